"""`python -m wool.cli`, the same as `wool`."""

from wool.cli import main

main(prog_name="wool")
