"""Whether what is configured can be used: settings, and the back-ends they choose."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from wool._plugins import catalogue, lookup
from wool._settings.settings import Settings, Value
from wool.cli.active import active
from wool.cli.checks.finding import Finding, ok, problem


def check_settings(settings: Settings) -> Finding:
    """Says where settings come from; that they have no mistakes is known by now."""
    variables = sorted(settings.environment.variables)
    places = [str(settings.file.path)] if settings.file is not None else []
    return ok("settings", f"from {', '.join([*places, *variables]) or 'nowhere: all defaults'}")


def check_plugins(settings: Settings, names: dict[str, Value]) -> Iterator[Finding]:
    """Makes the back-ends that are in use.

    Args:
        names: what is chosen otherwise than by the settings, by the word for the kind.
    """
    chosen = active(settings) | names
    here = lookup.process()

    def options(plugin: Any) -> Any:
        return settings.options(plugin.name, plugin.options)[0]

    for item in catalogue.items(here, {word: str(one.value) for word, one in chosen.items()}):
        choice = chosen.get(item.word)
        if choice is None or choice.value != item.name:
            continue
        done = catalogue.check(here, item, True, options)
        if done.problem is not None:
            yield problem(item.word, str(done.problem))
        else:
            yield ok(item.word, f"{item.name} ({choice.origin})")
