"""The thread that watches a directory for all of a process's watchers."""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from wool.abc import Event
from wool.exceptions import WoolError
from wool_shm import _place, _presence, _records
from wool_shm._changes import changes
from wool_shm._events import Events
from wool_shm._process import Process
from wool_shm._records import Record
from wool_shm._view import View

_log = logging.getLogger("wool.shm")

RETRY = 1.0
"""Seconds after which to look again when something could not be looked at."""


@dataclass(eq=False, slots=True)
class Watch:
    """Somebody who watches a namespace, given as its digest."""

    namespace: str
    events: Events = field(default_factory=Events)
    welcomed: bool = False


class Monitor:
    """Watches a directory in a thread, for as long as there is a watch.

    What it knows never depends on the order or number of the changes it is told of: it looks at
    what is there. Views belong to the thread; all else is guarded by the lock of the process.
    """

    def __init__(self, process: Process, directory: str) -> None:
        self._process = process
        self._directory = directory
        self._watches: tuple[Watch, ...] = ()
        self._views: dict[str, View] = {}
        self._complete = False  # whether the views show all there was before the latest changes
        self._trouble = ""  # what kept us from looking, so that it is logged once
        self._wakes, self._waker = map(process.keep, os.pipe())
        os.set_blocking(self._waker, False)
        self._changes = changes()
        if self._changes.descriptor is not None:
            process.keep(self._changes.descriptor)
        self._thread = threading.Thread(target=self._run, name="wool-shm", daemon=True)
        self._pid = process.pid

    # Called by anybody who holds the lock

    def start(self) -> None:
        try:
            self._thread.start()
        except RuntimeError:
            self._close()
            raise

    def add(self, watch: Watch) -> None:
        self._watches = (*self._watches, watch)
        self._wake()

    def remove(self, watch: Watch) -> None:
        """Ends a watch; with the last one, the thread ends."""
        self._watches = tuple(other for other in self._watches if other is not watch)
        if not self._watches and self._process.monitors.get(self._directory) is self:
            del self._process.monitors[self._directory]
        self._wake()

    def _wake(self) -> None:
        if self._waker >= 0:
            try:
                os.write(self._waker, b"\0")
            except BlockingIOError:
                pass

    def _close(self) -> None:
        for descriptor in (self._changes.descriptor, self._wakes, self._waker):
            if descriptor is not None:
                self._process.close(descriptor)
        self._waker = -1

    # Called by anybody

    def end(self, watch: Watch) -> None:
        """Ends a watch, and waits for the thread if that ends too."""
        if os.getpid() != self._pid:
            return  # in a forked child there is no thread
        with self._process.lock:
            self.remove(watch)
            last = not self._watches
        watch.events.end()
        if last:
            self._thread.join()

    # The thread

    def _run(self) -> None:
        error: Exception | None = None
        try:
            wait = 0.0
            while self._watches:
                self._wait(wait)
                wait = self._turn()
        except Exception as failure:
            error = failure
        with self._process.lock:
            for watch in self._watches:
                watch.events.end(error)
                self.remove(watch)
            self._close()
        _presence.abandon(self._process, self._directory)

    def _wait(self, seconds: float | None) -> None:
        poll = select.poll()
        poll.register(self._wakes, select.POLLIN)
        if self._changes.descriptor is not None:
            poll.register(self._changes.descriptor, select.POLLIN)
        ready = poll.poll(None if seconds is None else seconds * 1000)
        if self._wakes in dict(ready):
            os.read(self._wakes, 4096)

    def _turn(self) -> float | None:
        """Looks at what has changed; returns the seconds until the next look, None for never."""
        watches = self._watches
        known = self._views
        wanted = dict.fromkeys(watch.namespace for watch in watches)
        self._views = {name: known.get(name) or View() for name in wanted}
        complete = self._complete and known.keys() >= self._views.keys()
        self._complete = False  # until we are through
        try:
            files = self._changes.read()
            if complete and files is not None:
                for presence in _place.presences(files):
                    self._look(presence)
            else:
                self._look_at_everything()
        except FileNotFoundError:
            return 0.0  # the directory has just been removed
        except (OSError, WoolError) as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                _log.warning("cannot look for workers, will try again: %s", error)
            return RETRY
        self._complete, self._trouble = True, ""
        for watch in watches:
            if not watch.welcomed:
                view = self._views[watch.namespace]
                watch.welcomed = True
                self._tell(watch, [view.snapshot()], view)
        return self._changes.interval

    def _look_at_everything(self) -> None:
        _place.make(self._directory)
        self._changes.follow(self._directory)
        there = _place.presences(os.listdir(self._directory))
        known = [presence for view in self._views.values() for presence in view.presences()]
        for presence in dict.fromkeys(there + known):
            if not self._watches:
                return
            self._look(presence)

    def _look(self, presence: str) -> None:
        """Finds out whether a process lives and what it announces, and tells who watches."""
        namespace = _place.namespace_of(presence)
        view = self._views.get(namespace)
        with self._process.lock:
            alive = _presence.is_alive(self._process, self._directory, presence)
            records = _read(self._directory, presence) if alive and view is not None else ()
        if view is None:
            return
        events = view.replace(presence, records)
        for watch in self._watches if events else ():
            if watch.namespace == namespace and watch.welcomed:
                self._tell(watch, events, view)

    def _tell(self, watch: Watch, events: Sequence[Event], view: View) -> None:
        if not watch.events.put(events, view.snapshot):
            with self._process.lock:
                self.remove(watch)  # its event loop was closed while it was watching


def _read(directory: str, presence: str) -> Sequence[Record]:
    try:
        return _records.read(directory, presence)
    except msgspec.MsgspecError as error:
        _log.warning("what a process announces in %s is ignored: %s", directory, error)
        return ()


def watch(process: Process, directory: str, one: Watch) -> Monitor:
    """Begins a watch; the monitor that is returned ends it.

    Raises:
        ConfigurationError: the directory cannot be used.
    """
    with process.lock:
        _place.make(directory)
        monitor = process.monitors.get(directory)
        if monitor is not None:
            monitor.add(one)
            return monitor
        monitor = Monitor(process, directory)
        monitor.add(one)
        monitor.start()
        process.monitors[directory] = monitor
        return monitor
