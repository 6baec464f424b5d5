"""The command `wool` itself: which sub-commands there are, and what becomes of an error.

A sub-command is imported when it is used, so that help and completion come at once.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from importlib import import_module
from typing import IO, Any, cast

import click

from wool.exceptions import WoolError

COMMANDS: Mapping[str, tuple[str, str]] = {
    "certs": ("wool.cli.certs", "Make certificates for mutual TLS."),
    "config": ("wool.cli.config", "Show every setting, and where its value comes from."),
    "debug": ("wool.cli.debug", "Attach pdb to a running process, at this terminal."),
    "doctor": ("wool.cli.doctor", "Check this machine, and say what to change."),
    "plugin": ("wool.cli.plugin", "Begin a plug-in of your own."),
    "plugins": ("wool.cli.plugins", "List the plug-ins that are installed."),
    "ps": ("wool.cli.ps", "Show the calls that run, and who awaits whom."),
    "top": ("wool.cli.top", "Show workers and calls, live."),
    "worker": ("wool.cli.worker", "Serve calls in this process."),
    "workers": ("wool.cli.workers", "Show the workers there are, and why one is of no use."),
    "token": ("wool.cli.certs", "Print a new token of 256 random bits."),
}
"""Each sub-command: the module that has it under its name, and the first line of its help."""

FAILURE = 1
"""Exit code when a command has failed; a wrong command line is 2, as everywhere."""


class Failure(click.ClickException):
    """An error of Wool's, as the command line shows it: one line, and no traceback."""

    exit_code = FAILURE

    def show(self, file: IO[Any] | None = None) -> None:
        """Prints the error."""
        click.echo(f"wool: {' '.join(self.message.split())}", file=file, err=True)


class Commands(click.Group):
    """A group whose commands are modules."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command."""
        if cmd_name not in COMMANDS:
            return None
        return getattr(import_module(COMMANDS[cmd_name][0]), cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command."""
        try:
            return super().invoke(ctx)
        except WoolError as error:
            raise Failure(str(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # whoever has read is gone, which click sees to
                raise
            place = f"{os.fspath(error.filename)!s}: " if error.filename else ""
            raise Failure(f"{place}{error.strerror or error}") from error


def _print_version(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        import platform
        from importlib.metadata import version

        click.echo(f"wool-core {version('wool-core')} (Python {platform.python_version()})")
        ctx.exit()


@click.group(
    cls=Commands,
    commands=cast(Any, dict.fromkeys(COMMANDS)),  # each is imported when it is asked for
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 if all is well, 1 after a failure, 2 for a wrong command line.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the versions of Wool and Python.",
)
def main() -> None:
    """Run async functions in other processes as if they were local."""
