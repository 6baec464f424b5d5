"""`wool completion`: has a shell complete the commands and options of `wool`."""

from __future__ import annotations

import os
from typing import Any

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", required=False, type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str | None) -> None:
    """Have a shell complete commands and options.

    Prints the script that does, by default for the shell in use. Have it read at each start:

    \b
        wool completion bash > ~/.local/share/bash-completion/completions/wool
        wool completion zsh > ~/.zfunc/_wool       # where fpath has ~/.zfunc
        wool completion fish > ~/.config/fish/completions/wool.fish
    """  # noqa: D301
    shell = shell or os.path.basename(os.environ.get("SHELL", ""))
    if shell not in SHELLS:
        raise click.UsageError(f"say which shell it is for: {', '.join(SHELLS)}")
    parent: Any = ctx.find_root().command
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(parent, {}, "wool", "_WOOL_COMPLETE").source())
