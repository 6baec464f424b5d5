"""The screen of `wool top`: workers above, their calls below, and the tree of the chosen call."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import ClassVar, cast

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Header, Static

from wool._client.calltree import CallTree, all_calls
from wool._protocol.status import CallStatus, ProcessStatus
from wool.cli.ps import CALLS, Question, call_row, sort
from wool.exceptions import WoolError

MEASURED = ("load", "calls/s", "cpu %", "memory", "delay", "up", "callers")
WORKERS = ("worker", "state", *MEASURED, "called by")
MANY = 500
"""Calls that are listed, the longest."""


class Confirm(ModalScreen[bool]):
    """Asks before something is done to others."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape", "answer(False)", "No"),
    ]
    CSS: ClassVar[str] = (
        "Confirm { align: center middle; } Confirm Static { width: auto; padding: 1 3; }"
    )

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        """Shows the question."""
        yield Static(f"{self._question} (y/n)", markup=False)

    def action_answer(self, answer: bool) -> None:
        """Takes the answer."""
        self.dismiss(answer)


class Dashboard(App[None]):
    """Asks the workers again and again, and shows what they say.

    Args:
        question: asks them; entered for as long as the screen is shown.
        programs: those whose workers are shown; all if there are none.
        interval: seconds between two looks.
        read_only: whether calls cannot be cancelled nor workers drained.
    """

    TITLE: str | None = "wool top"
    CSS: ClassVar[str] = """
    #workers { height: auto; max-height: 40%; }
    #calls { height: 1fr; }
    #detail { height: auto; max-height: 40%; border-top: solid $primary; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "cancel", "Cancel call"),
        Binding("d", "drain", "Drain worker"),
        Binding("p", "pause", "Pause"),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(
        self,
        question: AbstractAsyncContextManager[Question],
        programs: Sequence[str],
        interval: float,
        *,
        read_only: bool,
    ) -> None:
        super().__init__()
        self._question = question
        self._programs = programs
        self._interval = interval
        self._read_only = read_only
        self._is_paused = False
        self._to_cancel = ""  # the call that is to be cancelled with the next look
        self._hurry = asyncio.Event()
        self._looked = 0.0
        self._last_look: dict[bytes, ProcessStatus] = {}
        self._silent_since: dict[str, float] = {}
        self._by_worker: dict[str, ProcessStatus] = {}
        self._by_call: dict[str, CallStatus] = {}
        self._call_tree = CallTree(())

    def compose(self) -> ComposeResult:
        """Lays out the screen."""
        yield Header()
        yield DataTable(id="workers", cursor_type="row")
        yield DataTable(id="calls", cursor_type="row")
        yield VerticalScroll(Static(id="tree", markup=False), id="detail")
        yield Footer()

    def on_mount(self) -> None:
        """Begins to look."""
        self._table("workers").add_columns(*WORKERS)
        self._table("calls").add_columns(*CALLS)
        self._table("calls").focus()
        self.run_worker(self._look_on())

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Says whether a key may be used, and is shown."""
        return not (self._read_only and action in ("cancel", "drain"))

    # Looking ------------------------------------------------------------------------------------

    async def _look_on(self) -> None:
        parent = os.getppid()
        try:
            async with self._question as ask:
                while os.getppid() == parent:  # a server of browsers may be killed
                    if not self._is_paused or self._to_cancel:
                        cancel, self._to_cancel = self._to_cancel, ""
                        self._show(*sort(await ask(cancel), self._programs))
                    self._hurry.clear()
                    try:
                        async with asyncio.timeout(self._interval):
                            await self._hurry.wait()
                    except TimeoutError:
                        pass
        except WoolError as error:
            self.exit(return_code=1, message=f"wool: {error}")
        else:
            self.exit()

    def _show(self, processes: list[ProcessStatus], silent: Mapping[str, str]) -> None:
        now = time.monotonic()
        passed, self._looked = now - self._looked, now
        self._call_tree = CallTree(processes)
        self._by_worker = {process.worker: process for process in processes if process.worker}
        calls = sorted(all_calls(processes), key=lambda call: -call.age)
        self._by_call = {call.id: call for call in calls}
        rows = {
            worker: self._worker_row(process, passed) for worker, process in self._by_worker.items()
        }
        empty = [""] * len(MEASURED)
        self._silent_since = {name: self._silent_since.get(name, now) for name in silent}
        for name, reason in silent.items():
            since = f"silent {now - self._silent_since[name]:.0f} s"
            rows[name] = [name, since, *empty, reason]
        self._last_look = {process.key: process for process in processes}
        _fill(self._table("workers"), rows)
        _fill(
            self._table("calls"),
            {call.id: call_row(call, self._by_worker.get(call.worker)) for call in calls[:MANY]},
        )
        self.sub_title = f"{len(self._by_worker)} workers, {len(calls)} calls"
        self._detail()

    def _worker_row(self, status: ProcessStatus, passed: float) -> list[str]:
        made = ((p.program, call.worker) for p in self._call_tree.processes for call in p.makes)
        callers = {program for program, worker in made if worker == status.worker}
        before = self._last_look.get(status.key)
        rates = ["", ""]
        if before is not None:
            rates = [
                f"{(status.ended - before.ended) / passed:.0f}",
                f"{100 * (status.cpu - before.cpu) / passed:.0f}",
            ]
        return [
            f"{status.pid} on {status.host}",
            "blocked" if status.blocked else "serving",
            str(status.load),
            *rates,
            f"{status.memory / 2**20:.0f} MiB",
            f"{1000 * status.delay:.1f} ms",
            f"{status.uptime:.0f} s",
            str(status.connections),
            ", ".join(sorted(callers)),
        ]

    def on_data_table_row_highlighted(self) -> None:
        """Another call is chosen."""
        self._detail()

    def _detail(self) -> None:
        """Shows the tree that the chosen call is in, and its stack."""
        call = self._by_call.get(_chosen(self._table("calls")))
        lines: list[str] = []
        if call is not None:
            lines = [*self._call_tree.around(call.id), "", *map(str, call.stack)]
        self.query_one("#tree", Static).update("\n".join(lines))

    # Acting -------------------------------------------------------------------------------------

    def action_cancel(self) -> None:
        """Cancels the chosen call."""
        call = self._by_call.get(_chosen(self._table("calls")))
        if call is not None:
            self._ask_user(f"Cancel {call.routine}(), call {call.id}?", self._do_cancel, call.id)

    def _do_cancel(self, call: str) -> None:
        self._to_cancel = call
        self._hurry.set()

    def action_drain(self) -> None:
        """Has the chosen worker finish its calls and leave."""
        worker = self._by_worker.get(_chosen(self._table("workers")))
        if worker is None:
            return
        if worker.host != socket.gethostname():
            self.notify(f"Worker {worker.pid} is drained on {worker.host}: kill -TERM {worker.pid}")
            return
        question = f"Drain worker {worker.pid}? Its calls get to end, and its pool replaces it."
        self._ask_user(question, self._do_drain, str(worker.pid))

    def _do_drain(self, pid: str) -> None:
        try:
            os.kill(int(pid), signal.SIGTERM)
        except OSError as error:
            self.notify(f"Worker {pid} cannot be drained: {error.strerror}", severity="error")

    def _ask_user(self, question: str, act: Callable[[str], None], name: str) -> None:
        self.push_screen(Confirm(question), lambda yes: act(name) if yes else None)

    def action_pause(self) -> None:
        """Keeps what is shown, or goes on."""
        self._is_paused = not self._is_paused
        self.notify("Paused" if self._is_paused else "Goes on")

    def _table(self, name: str) -> DataTable[Text]:
        return cast("DataTable[Text]", self.query_one(f"#{name}"))


def _fill(table: DataTable[Text], rows: dict[str, list[str]]) -> None:
    """Shows rows by their keys; the chosen one stays chosen if it is still there."""
    chosen, scrolled = _chosen(table), table.scroll_y
    table.clear()
    for key, cells in rows.items():
        table.add_row(*map(Text, cells), key=key)
    if chosen in rows:
        table.move_cursor(row=table.get_row_index(chosen), animate=False, scroll=False)
        table.scroll_y = scrolled


def _chosen(table: DataTable[Text]) -> str:
    """Returns the key of the row under the cursor; nothing if there is none."""
    if not table.is_valid_coordinate(table.cursor_coordinate):
        return ""
    return table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value or ""
