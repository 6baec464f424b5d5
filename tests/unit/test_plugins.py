"""Finding back-ends: the real metadata of made-up distributions, and what goes wrong with them."""

from __future__ import annotations

import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import wool.plugins
from support.fixtures import write_distribution
from wool._backends.cloudpickle import CloudpickleSerializer
from wool._plugins import lookup
from wool._plugins.lookup import DISCOVERY, SERIALIZER, TRANSPORT, Lookup
from wool.exceptions import ConfigurationError, PluginError
from wool.plugins import SerializerPlugin, TransportPlugin, hookimpl

GOOD = """
    from dataclasses import dataclass
    from wool.plugins import TransportPlugin, hookimpl

    @dataclass(frozen=True)
    class Options:
        speed: int = 1

    @hookimpl
    def wool_transports():
        for name in {names}:
            yield TransportPlugin(name=name, api={api}, options=Options, factory=lambda o: o)
"""

Install = Callable[..., None]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory on the path; what is imported from it is forgotten again."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith(("acme", "birds", "broken"))]:
        del sys.modules[name]


@pytest.fixture
def install(site: Path) -> Install:
    """Writes a distribution: its metadata, and its module."""

    def write(
        distribution: str,
        version: str,
        entries: dict[str, str],
        *,
        group: str = "wool.transports",
        code: str | None = None,
        names: tuple[str, ...] = ("pigeon",),
        api: int = 1,
        where: Path = site,
    ) -> None:
        write_distribution(where, distribution, version, {group: entries})
        text = textwrap.dedent(code if code is not None else GOOD).replace("{names}", repr(names))
        for value in entries.values():
            module = value.partition(":")[0]
            (where / f"{module}.py").write_text(text.replace("{api}", str(api)))

    return write


def failure(name: str = "pigeon", error: type[Exception] = PluginError) -> Exception:
    with pytest.raises(error) as caught:
        Lookup().find(TRANSPORT, name)
    return caught.value


@dataclass(frozen=True)
class NoOptions:
    pass


def record(name: str, api: int = 1, factory: Any = None) -> TransportPlugin:
    return TransportPlugin(name=name, api=api, options=NoOptions, factory=factory or (lambda o: o))


class Registered:
    """A plug-in object with one transport."""

    def __init__(self, *records: Any) -> None:
        self.records = records

    @hookimpl
    def wool_transports(self) -> Any:
        return self.records


# What is installed


def test_finds_the_record_and_says_where_it_is_from(install: Install) -> None:
    install("acme-pigeon", "1.2", {"pigeon": "acme_pigeon"}, names=("dove", "pigeon"))
    found = Lookup().find(TRANSPORT, "pigeon")
    assert found.plugin.name == "pigeon"
    assert (found.module, found.distribution) == ("acme_pigeon", "acme-pigeon 1.2")
    assert found.plugin.factory(found.plugin.options()).speed == 1


def test_imports_only_the_chosen_module(install: Install) -> None:
    install("acme", "1", {"pigeon": "acme_pigeon"})
    install("broken", "1", {"other": "broken_module"}, code="raise RuntimeError")
    Lookup().find(TRANSPORT, "pigeon")
    assert "acme_pigeon" in sys.modules
    assert "broken_module" not in sys.modules


def test_metadata_is_read_once(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    read = lookup.read_entries
    calls: list[object] = []
    monkeypatch.setattr(
        lookup,
        "read_entries",
        lambda groups: calls.append(groups) or read(groups),  # type: ignore[func-returns-value]
    )
    install("acme", "1", {"pigeon": "acme_pigeon", "dove": "acme_dove"}, names=("pigeon", "dove"))
    here = Lookup()
    assert calls == []
    assert here.find(TRANSPORT, "pigeon") is here.find(TRANSPORT, "pigeon")
    here.find(TRANSPORT, "dove")
    assert len(calls) == 1


def test_a_distribution_that_is_on_the_path_twice_counts_once(
    install: Install, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path_factory.mktemp("other")
    install("acme-pigeon", "1.2", {"pigeon": "acme_pigeon"})
    install("acme.pigeon", "1.2", {"pigeon": "acme_pigeon"}, where=other)
    monkeypatch.syspath_prepend(str(other))
    assert Lookup().find(TRANSPORT, "pigeon").module == "acme_pigeon"


def test_a_distribution_without_metadata(install: Install, site: Path) -> None:
    """An uninstallation that has broken off leaves such a thing; other distributions go on."""
    install("acme", "1.2", {"pigeon": "acme_pigeon"})
    install("birds", "3.4", {"falcon": "birds_falcon"}, names=("falcon",))
    (site / "birds-3.4.dist-info" / "METADATA").unlink()
    here = Lookup()
    assert here.find(TRANSPORT, "pigeon").distribution == "acme 1.2"
    assert here.find(TRANSPORT, "falcon").distribution == "an unknown distribution"


def test_metadata_that_is_damaged(install: Install, site: Path) -> None:
    install("acme", "1.2", {"pigeon": "acme_pigeon"})
    (site / "acme-1.2.dist-info" / "entry_points.txt").write_text("[wool.transports]\npigeon\n")
    assert "look for an entry_points.txt that is damaged" in str(failure())


def test_two_distributions_with_one_name(install: Install) -> None:
    install("acme", "1.2", {"pigeon": "acme_pigeon"})
    install("birds", "3.4", {"pigeon": "birds_pigeon"})
    text = str(failure())
    for part in (
        "acme 1.2 (module acme_pigeon)",
        "birds 3.4",
        "pip uninstall acme",
        "birds_pigeon",
    ):
        assert part in text
    assert not {"acme_pigeon", "birds_pigeon"} & set(sys.modules)


def test_no_metadata_is_read_for_what_wool_core_has(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pools start their workers before they read any; nobody else can have such a name."""
    install("acme", "1.2", {"unix": "acme_unix"}, names=("unix",))
    monkeypatch.setattr(lookup, "read_entries", lambda groups: pytest.fail("read"))
    assert Lookup().find(TRANSPORT, "unix").module == "wool._transports.unix"


# What is not installed


def test_an_unknown_name_lists_what_there_is_and_the_nearest(install: Install) -> None:
    install("acme", "1", {"pigeon": "acme_pigeon", "semaphore": "acme_semaphore"})
    text = str(failure("Pigeons", ConfigurationError))
    assert "There is no transport 'Pigeons'" in text
    assert "Did you mean 'pigeon'?" in text
    assert "semaphore" in text


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (TRANSPORT, "grpc"),
        (TRANSPORT, "ws"),
        (DISCOVERY, "zeroconf"),
        (DISCOVERY, "shm"),
        (SERIALIZER, "dill"),
    ],
)
def test_names_of_ours_say_how_to_install_them(
    kind: Any, name: str, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(site)])
    with pytest.raises(PluginError) as caught:
        Lookup().find(kind, name)
    assert f'pip install "wool-core[{name}]"' in str(caught.value)


# What is broken


def test_a_module_that_fails(install: Install) -> None:
    install("acme", "1.2", {"pigeon": "acme_pigeon"}, code="1 / 0")
    error = failure()
    for part in ("acme 1.2", "acme_pigeon", "'pigeon'", "ZeroDivisionError", "reinstall"):
        assert part in str(error)
    assert isinstance(error.__cause__, ZeroDivisionError)


HOOK = "from wool.plugins import hookimpl\n@hookimpl\n"


@pytest.mark.parametrize(
    ("made", "parts"),
    [
        ({"code": "import carrier_birds"}, ["Install what provides the module 'carrier_birds'"]),
        ({"api": 0}, ["version 0", "has version 1", "Upgrade acme 1.2 (module acme_pigeon)."]),
        ({"api": 2}, ["version 2", "has version 1", "Upgrade wool-core."]),
        ({"code": HOOK + "def wool_carriers(): pass"}, ["wool_carriers"]),
        ({"code": HOOK + "def wool_transports(unknown): pass"}, ["unknown"]),
        ({"names": ()}, ["does not yield it", "none"]),
        ({"names": ("dove",)}, ["does not yield it", "dove"]),
    ],
)
def test_a_module_of_no_use(install: Install, made: dict[str, Any], parts: list[str]) -> None:
    install("acme", "1.2", {"pigeon": "acme_pigeon"}, **made)
    text = str(failure())
    assert [part for part in ("acme 1.2", *parts) if part not in text] == [], text


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (
            "return [SerializerPlugin(name='pigeon', api=1, options=int, factory=int)]",
            "TransportPlugin",
        ),
        ("return ['pigeon']", "TransportPlugin"),
        ("return 5", "TypeError"),
        ("return [TransportPlugin(name='pigeon', colour='grey')]", "colour"),
        ("yield from [1 / 0]", "ZeroDivisionError"),
    ],
)
def test_a_hook_that_yields_something_else(install: Install, body: str, part: str) -> None:
    code = f"""
        from wool.plugins import SerializerPlugin, TransportPlugin, hookimpl
        @hookimpl
        def wool_transports():
            {body}
    """
    install("acme", "1.2", {"pigeon": "acme_pigeon"}, code=code)
    text = str(failure())
    assert "acme 1.2" in text and "wool_transports" in text and part in text


def test_a_factory_whose_library_is_missing() -> None:
    def factory(options: Any) -> Any:
        raise ModuleNotFoundError("No module named 'dill'", name="dill")

    here = Lookup()
    with here.register(Registered(record("dill", factory=factory))):
        found = here.find(TRANSPORT, "dill")
    with pytest.raises(PluginError, match=r'pip install "wool-core\[dill\]"') as caught:
        found.make(NoOptions())
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


# What is registered at run time


def test_registered_goes_before_installed_and_later_before_earlier(install: Install) -> None:
    install("acme", "1.2", {"pigeon": "acme_pigeon"})
    first, second = record("pigeon"), record("pigeon")
    here = Lookup()
    outer = here.register(Registered(first))
    with here.register(Registered(second)):
        assert here.find(TRANSPORT, "pigeon").plugin is second
    found = here.find(TRANSPORT, "pigeon")
    assert (found.plugin, found.module, found.distribution) == (first, None, None)
    outer.close()
    outer.close()
    assert here.find(TRANSPORT, "pigeon").distribution == "acme 1.2"


def test_a_registered_module_can_be_loaded_elsewhere(install: Install) -> None:
    module = types.ModuleType("made_up_plugin")
    module.wool_transports = hookimpl(lambda: [record("pigeon")])  # type: ignore[attr-defined]
    here = Lookup()
    with here.register(module):
        assert here.find(TRANSPORT, "pigeon").module == "made_up_plugin"
    module.__name__ = "__main__"
    with here.register(module):
        assert here.find(TRANSPORT, "pigeon").module is None


def test_registered_records_are_checked() -> None:
    here = Lookup()
    with here.register(Registered(record("pigeon", api=7))), pytest.raises(PluginError):
        here.find(TRANSPORT, "pigeon")

    class Unknown:
        @hookimpl
        def wool_nothing(self) -> None: ...

    with pytest.raises(PluginError, match="wool_nothing"):
        here.register(Unknown())


def test_the_public_functions_share_one_lookup() -> None:
    with wool.plugins.register(Registered(record("pigeon"))) as handle:
        assert lookup.transport("pigeon").plugin.name == "pigeon"
        handle.close()
        with pytest.raises(ConfigurationError):
            lookup.transport("pigeon")
    with pytest.raises(ConfigurationError):
        lookup.discovery("pigeon")
    with pytest.raises(ConfigurationError):
        lookup.serializer("pigeon")


# In a spawned worker


def test_load_from_needs_no_metadata() -> None:
    found = lookup.load_from("wool._backends.cloudpickle", "cloudpickle", SERIALIZER)
    assert isinstance(found.plugin, SerializerPlugin)
    assert found.distribution is None
    assert isinstance(found.make(found.plugin.options()), CloudpickleSerializer)
