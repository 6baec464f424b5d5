"""Observers: told of calls, left out when they fail, and never in the way."""

from __future__ import annotations

import logging
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.fixtures import write_distribution
from wool._plugins.lookup import Lookup, observers_from
from wool._plugins.observers import FINISHED, STARTED, Observer
from wool._workerinfo import WorkerInfo
from wool.exceptions import PluginError
from wool.plugins import CallInfo, ContextTranslator, Outcome, hookimpl

CALL = CallInfo(id="1", parent=None, routine="birds:sing")
OUTCOME = Outcome(status="returned", worker=WorkerInfo(address="unix:///x"), seconds=0.5)

Install = Callable[..., None]


class Diary:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    @hookimpl
    def wool_call_started(self, call: CallInfo) -> None:
        self.told.append(call)

    @hookimpl
    def wool_call_finished(self, call: CallInfo, outcome: Outcome) -> None:
        self.told.append((call, outcome))


def observers(known: Lookup) -> tuple[Observer, ...]:
    """Those that are told of calls; translators of contexts are not."""
    return tuple(plugin for plugin in known.companions() if plugin.listens)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Writes a distribution with an observer."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, code: str) -> None:
        write_distribution(tmp_path, name, "1.2", {"wool.plugins": {name: f"{name}_module"}})
        (tmp_path / f"{name}_module.py").write_text(textwrap.dedent(code))

    yield write
    for name in [name for name in sys.modules if name.startswith("acme")]:
        del sys.modules[name]


GOOD = """
    from wool.plugins import hookimpl
    told = []
    @hookimpl
    def wool_call_finished(outcome):
        told.append(outcome)
"""


def test_there_are_none(caplog: pytest.LogCaptureFixture) -> None:
    assert observers(Lookup()) == ()
    assert caplog.records == []


def test_an_installed_one_is_told(install: Install) -> None:
    install("acme", GOOD)
    here = Lookup()
    (observer,) = observers(here)
    observer.tell(STARTED, CALL)
    observer.tell(FINISHED, CALL, outcome=OUTCOME)
    assert sys.modules["acme_module"].told == [OUTCOME]
    assert observer.module == "acme_module"
    assert observers(here) == (observer,)


def test_a_registered_one_is_told_until_it_is_taken_back() -> None:
    here, diary = Lookup(), Diary()
    with here.register(diary):
        (observer,) = observers(here)
        assert observers(here) == (observer,)
        observer.tell(STARTED, CALL)
        observer.tell(FINISHED, CALL, outcome=OUTCOME)
    assert diary.told == [CALL, (CALL, OUTCOME)]
    assert observer.module is None
    assert observers(here) == ()


class Panic(BaseException):
    """As of a library in Rust."""


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit, Panic])
@pytest.mark.parametrize("hook", ["wool_call_started", "wool_call_finished"])
def test_one_that_fails_is_logged_once_and_left_out(
    hook: str, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Diary):
        pass

    def fail(self: Broken, call: CallInfo) -> None:
        self.told.append(call)
        raise error("no luck")

    setattr(Broken, hook, hookimpl(fail))
    here, broken, diary = Lookup(), Broken(), Diary()
    with here.register(broken), here.register(diary):
        for _ in range(2):
            for observer in observers(here):
                observer.tell(STARTED, CALL)
                observer.tell(FINISHED, CALL, outcome=OUTCOME)
    assert diary.told == [CALL, (CALL, OUTCOME)] * 2
    assert broken.told == ([CALL] if hook == "wool_call_started" else [CALL, CALL])
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("wool.plugins", logging.WARNING)
    assert f"failed in its hook {hook}: {error.__name__}: no luck." in record.message
    assert "It is told of no more calls." in record.message
    assert record.exc_info is not None


@pytest.mark.parametrize(
    ("code", "part"),
    [
        ("1 / 0", "which provides the observer 'acme', cannot be imported: ZeroDivisionError"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        ("raise BaseException('panic')", "cannot be imported: BaseException: panic"),
        ("import no_such_library", "Install what provides the module 'no_such_library'."),
        ("", "has none of the hooks wool_call_started, wool_call_finished, "),
        (
            "from wool.plugins import hookimpl\n@hookimpl\ndef wool_call_begun(call): ...",
            "does not fit this version of wool-core",
        ),
    ],
)
def test_one_that_cannot_be_loaded_is_logged_once_and_left_out(
    code: str, part: str, install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("acme", code)
    install("acme2", GOOD)
    here = Lookup()
    for _ in range(2):
        assert [observer.module for observer in observers(here)] == ["acme2_module"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.startswith("acme 1.2 (module acme_module)")
    assert part in record.message
    assert record.message.endswith("Calls are not affected, and it is not told of them.")


def test_a_hook_with_an_unknown_parameter_is_refused() -> None:
    class Curious:
        @hookimpl
        def wool_call_started(self, call: CallInfo, weather: str) -> None: ...

    with pytest.raises(PluginError, match="weather"):
        Lookup().register(Curious())


def test_those_of_another_process(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    install("acme", GOOD)
    (observer,) = observers_from(["acme_module", "no_such_module_at_all"])
    observer.tell(FINISHED, CALL, outcome=OUTCOME)
    assert sys.modules["acme_module"].told == [OUTCOME]
    assert "no_such_module_at_all" in caplog.text


# Translators


def test_translators(install: Install) -> None:
    install(
        "acme",
        """
        from wool.plugins import ContextTranslator, hookimpl

        @hookimpl
        def wool_context_translators():
            yield ContextTranslator(name="acme", capture=lambda: b"x", restore=print)
        """,
    )
    (found,) = [o for o in Lookup().companions() if o.module == "acme_module"]
    assert not found.listens
    (translator,) = found.translators()
    assert (translator.name, translator.capture()) == ("acme", b"x")


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit])
@pytest.mark.parametrize("what", ["capture", "restore"])
def test_a_translator_that_fails_is_logged_once(
    what: str, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*data: bytes | None) -> bytes:
        if what == ("restore" if data else "capture"):
            raise error("no luck")
        return b"fine"

    class Translation:
        @hookimpl
        def wool_context_translators(self) -> Any:
            yield ContextTranslator(name="acme", capture=fail, restore=fail)  # type: ignore[arg-type]

    here = Lookup()
    with here.register(Translation()):
        observer = here.companions()[0]
    (translator,) = observer.translators()
    for _ in range(2):
        translator.capture()
        translator.restore(b"")
    assert translator.capture() is None
    (record,) = caplog.records
    said = f"failed to {what} the context of 'acme': {error.__name__}: no luck"
    assert said in record.message
