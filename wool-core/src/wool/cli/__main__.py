"""`python -m wool.cli`, the same as `wool`."""

from wool.cli.group import main

main(prog_name="wool")
