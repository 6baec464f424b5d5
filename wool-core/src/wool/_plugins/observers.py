"""Observers: plug-ins that are told of calls, or translate contexts for them.

An observer is not chosen, it is there once it is installed. So one that is broken must cost its
owner a line in the log and not a single call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from wool._plugins.records import OBSERVER, Hooks, import_hooks
from wool._texts import reason_of
from wool.exceptions import ConfigurationError, PluginError
from wool.plugins import CallInfo, ContextTranslator, Outcome

GROUP = "wool.plugins"
OF_CALLERS = STARTED, FINISHED = "wool_call_started", "wool_call_finished"
OF_WORKERS = BEGAN, ENDED = "wool_execution_started", "wool_execution_finished"

CHOICES: Mapping[str, str] = {"opentelemetry": "wool._backends.spans"}
"""Observers of Wool's own that the setting `observers` chooses, and their modules."""

_log = logging.getLogger("wool.plugins")


class Observer:
    """One observer. Calls and contexts get no error from it; it may be used from any thread.

    Attributes:
        module: what a worker gives to `load_observer` to have the same one; None if only this
            process can have it.
        origin: names it in messages.
    """

    def __init__(self, hooks: Hooks, module: str | None) -> None:
        self.module = module
        self.origin: str = hooks.origin
        self._told = {name: hooks.caller(name) for name in (*OF_CALLERS, *OF_WORKERS)}
        self.translates: bool = hooks.caller("wool_context_translators") is not None
        """Whether it has a hook for contexts."""
        self._hooks = hooks

    @property
    def listens(self) -> bool:
        """Whether it has a hook for the calls that this process makes."""
        return any(self._told[name] for name in OF_CALLERS)

    @property
    def attends(self) -> bool:
        """Whether it has a hook for the calls that this process executes."""
        return any(self._told[name] for name in OF_WORKERS)

    @property
    def useful(self) -> bool:
        """Whether it has any hook."""
        return self.listens or self.attends or self.translates

    def translators(self) -> tuple[Translator, ...]:
        """Returns its translators of contexts, none if it is broken."""
        try:
            found = self._hooks.translators() if self.translates else ()
        except PluginError as error:
            self.translates = False  # say it once
            _report(error)
            return ()
        return tuple(Translator(translator, self.origin) for translator in found)

    def check(self) -> None:
        """Raises `PluginError` if it has a hook for contexts that is broken."""
        if self.translates:
            self._hooks.translators()

    def tell(self, hook: str, call: CallInfo, **more: Outcome) -> None:
        """Tells of a call by one of its hooks, if it has that."""
        told = self._told[hook]
        if told is not None:
            _tried(partial(told, call=call, **more), hook, self._leave_out)

    def _leave_out(self, hook: str, error: BaseException) -> None:
        self._told = dict.fromkeys(self._told)
        _log.warning(
            "%s failed in its hook %s: %s. It is told of no more calls. Upgrade it, or report this "
            "to its authors.",
            self.origin,
            hook,
            reason_of(error),
            exc_info=error,
        )


class Translator:
    """One translator of contexts. Its methods never raise."""

    def __init__(self, translator: ContextTranslator, origin: str) -> None:
        self.name: str = translator.name
        self._origin = origin
        self._capture: Callable[[], bytes | None] | None = translator.capture
        self._restore: Callable[[bytes | None], None] | None = translator.restore

    def capture(self) -> bytes | None:
        """Returns what of the current context has to travel."""
        if self._capture is None:
            return None
        try:
            data: Any = self._capture()  # authors may use no type checker
            return data if data is None or isinstance(data, bytes) else bytes(memoryview(data))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._leave_out("capture", error)
            return None

    def restore(self, data: bytes | None) -> None:
        """Makes it part of the current context."""
        if self._restore is not None:
            _tried(partial(self._restore, data), "restore", self._leave_out)

    def _leave_out(self, what: str, error: BaseException) -> None:
        self._capture = self._restore = None
        _log.warning(
            "%s failed to %s the context of %r: %s. It is not used again in this process. Upgrade "
            "it, or report this to its authors.",
            self._origin,
            what,
            self.name,
            reason_of(error),
            exc_info=error,
        )


def _tried(
    function: Callable[[], Any], what: str, failed: Callable[[str, BaseException], None]
) -> Any:
    """Returns what a function of a plug-in returns; None if it fails, which is told."""
    try:
        return function()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        failed(what, error)
        return None


def load_observer(name: str, module: str, provider: str | None) -> Observer:
    """Imports the module of an observer.

    Raises:
        PluginError: it cannot be imported, observes nothing, or does not fit.
    """
    hooks = import_hooks(OBSERVER, name, module, provider)
    observer = Observer(hooks, module)
    if not observer.useful:
        raise hooks.fault(
            f"is registered as an observer, but has none of the hooks "
            f"{', '.join((*OF_CALLERS, *OF_WORKERS))}, nor wool_context_translators"
        )
    return observer


def chosen_observers(names: Iterable[str]) -> tuple[Observer, ...]:
    """Loads those of Wool's own that a setting names.

    Raises:
        ConfigurationError: there is none of a name.
        PluginError: the library that it is for is not installed.
    """
    names = tuple(dict.fromkeys(names))
    for name in names:
        if name not in CHOICES:
            raise ConfigurationError(
                f"There is no observer {name!r} to choose. There is: {', '.join(CHOICES)}. Those "
                "of other distributions are in use once they are installed."
            )
    return tuple(load_observer("otel", CHOICES[name], "wool-core") for name in names)


def load_observers(places: Iterable[tuple[str, str, str | None]]) -> tuple[Observer, ...]:
    """Loads those that can be loaded; each is a name, a module, and who provides it."""
    loaded: list[Observer] = []
    for place in places:
        try:
            loaded.append(load_observer(*place))
        except PluginError as error:
            _report(error)
    return tuple(loaded)


def _report(error: PluginError) -> None:
    """Logs that an observer cannot be used."""
    _log.warning("%s Calls are not affected, and it is not told of them.", error)
