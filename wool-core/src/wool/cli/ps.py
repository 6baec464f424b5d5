"""`wool ps`: which calls run, where they stand, and who awaits whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial

import click

from wool._client.calltree import CallTree, all_calls
from wool._client.probing import Probe, without_address
from wool._pool.looking import Answer, Look, ask_at, local_probe
from wool._protocol.status import CallStatus, ProcessStatus, document, merged
from wool._security import sockets
from wool.cli.common import (
    Files,
    Where,
    credential_options,
    discovery_options,
    print_json,
    print_table,
    read_settings,
    timeout_option,
)
from wool.cli.group import FAILURE
from wool.exceptions import ConnectFailed, WoolError


@click.command("ps")
@click.argument("programs", nargs=-1, metavar="[PROGRAM]...")
@discovery_options("Ask the workers that this finds, in place of those of this machine and user.")
@credential_options
@timeout_option("For each worker to be reached.")
@click.option("--tree", is_flag=True, help="Draw who awaits whom, down to the line that waits.")
@click.option("--json", "as_json", is_flag=True, help="Print what each process says, as JSON.")
@click.pass_context
def ps(
    ctx: click.Context,
    programs: tuple[str, ...],
    where: Where,
    files: Files,
    timeout: float,
    tree: bool,
    as_json: bool,
) -> None:
    """Show the calls that run, and who awaits whom.

    By default these are the calls of all workers of this user on this machine, whoever has started
    them. PROGRAM is the number of a process, or a part of the path of its script: only
    workers that it is, or that it calls, are shown. The programs need no preparation.

    The exit code is 0 if at least one worker has answered, else 1.
    """
    answers = asyncio.run(_ask(question_of(where, files, timeout)))
    processes, silent = sort(answers, programs)
    if as_json:
        print_json(list(map(document, processes)), indent=0)
    elif tree:
        click.echo(CallTree(processes))
    else:
        _print_calls(processes)
    for name, reason in silent.items():
        click.echo(f"{name} has not answered: {reason}", err=True)
    if not processes:
        click.echo("wool: no worker has answered", err=True)
        ctx.exit(FAILURE)


Question = Callable[[str], Awaitable[dict[str, Answer]]]
"""Asks workers what they do, and returns their answers by what names them.

Its argument is the id of a call that is to be cancelled, or nothing.
"""


def question_of(
    where: Where, files: Files, timeout: float
) -> AbstractAsyncContextManager[Question]:
    """Returns what asks the workers that options mean, for as long as its context is entered.

    Raises:
        UsageError, ConfigurationError, PluginError: the options are of no use.
    """
    settings = read_settings()
    if where:
        chosen = where.choose(settings)
        assert chosen is not None
        return _found(Look(settings, chosen, files.read(), timeout))
    if files:
        raise click.UsageError("credentials are for a --discovery; name one")
    return nullcontext(partial(_ask_here, local_probe(settings, timeout)))


@asynccontextmanager
async def _found(look: Look) -> AsyncGenerator[Question]:
    async with look.watching(0):
        yield look.ask_all


async def _ask_here(probe: Probe, cancel: str) -> dict[str, Answer]:
    """Asks the workers of this user on this machine."""
    named = {f"unix://{path}": pid for pid, path in sockets.status_sockets()}
    answers = await ask_at(probe, list(named), cancel)
    return {f"process {named[a]}": answer for a, answer in answers.items() if not _is_over(answer)}


async def _ask(question: AbstractAsyncContextManager[Question]) -> dict[str, Answer]:
    async with question as ask:
        return await ask("")


def _is_over(answer: Answer) -> bool:
    """Whether nobody listens any more: a process that was killed leaves its socket."""
    return isinstance(answer, ConnectFailed) and answer.reason == "refused"


def sort(
    answers: Mapping[str, Answer], programs: Sequence[str]
) -> tuple[list[ProcessStatus], dict[str, str]]:
    """Returns the processes that somebody asks for, once each, and why others have not answered.

    Args:
        programs: numbers of processes, or parts of the paths of scripts; all if there are none.
    """
    found: dict[bytes, ProcessStatus] = {}
    silent: dict[str, str] = {}
    for name, answer in answers.items():
        if isinstance(answer, WoolError):
            silent[name] = without_address(answer, name)
        elif not programs or any(_is_meant(process, programs) for process in answer):
            for process in answer:
                before = found.get(process.key)
                found[process.key] = process if before is None else merged(before, process)
    return list(found.values()), silent


def _is_meant(process: ProcessStatus, programs: Sequence[str]) -> bool:
    return any(p == str(process.pid) if p.isdigit() else p in process.program for p in programs)


def _print_calls(processes: Sequence[ProcessStatus]) -> None:
    calls = all_calls(processes)
    workers = {process.worker: process for process in processes if process.worker}
    if not calls:
        click.echo("no calls")
        return
    longest_first = sorted(calls, key=lambda call: -call.age)
    print_table(CALLS, [call_row(call, workers.get(call.worker)) for call in longest_first])


CALLS = ("call", "routine", "state", "age", "steps", "worker", "stands at")


def call_row(call: CallStatus, worker: ProcessStatus | None) -> list[str]:
    """Returns what is shown of a call below `CALLS`."""
    return [
        call.id,
        call.routine,
        call.state,
        f"{call.age:.1f}s",
        str(call.steps or "-"),
        "-" if worker is None else f"{worker.pid} on {worker.host}",
        str(call.stack[-1]) if call.stack else "-",
    ]
