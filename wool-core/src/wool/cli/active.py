"""Which back-ends the settings choose."""

from __future__ import annotations

from wool._plugins import lookup
from wool._settings.settings import Settings, Value


def read_settings() -> Settings:
    """Returns what is set for a program that is started here."""
    return Settings.read(lookup.names)


def active(settings: Settings) -> dict[str, Value]:
    """Returns the name of each back-end in use, and why it is, by the word for its kind."""
    chosen = {word: settings.get(word) for word in ("transport", "discovery", "serializer")}
    if chosen["transport"].value is None and chosen["discovery"].value is None:
        chosen["transport"] = Value("unix", chosen["transport"].origin)
    return {word: value for word, value in chosen.items() if value.value is not None}
