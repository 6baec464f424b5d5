"""Makes the transports that a process needs."""

from __future__ import annotations

import dataclasses
from typing import Any

from wool import abc
from wool._plugins import lookup
from wool._plugins.lookup import TRANSPORT, Found
from wool._plugins.schemes import scheme_transport
from wool._session.routes import Route, Routes, scheme_of
from wool.plugins import TransportPlugin


class Transports:
    """Transports made of back-ends, with the options that they were given here or elsewhere.

    Args:
        given: of some back-ends the module they come from and their options, by name.
    """

    def __init__(self, given: dict[str, tuple[str | None, dict[str, Any]]]) -> None:
        self._given = given
        self._made: dict[str, tuple[TransportPlugin, abc.Transport]] = {}
        self.routes = Routes(self._find)

    def get(self, name: str) -> tuple[TransportPlugin, abc.Transport]:
        """Returns the back-end called `name` and the transport it makes, always the same one.

        Raises:
            ConfigurationError, PluginError: there is none, or it cannot be used.
        """
        if name not in self._made:
            found, options = self._look_up(name)
            self._made[name] = found.plugin, found.make(options)
        return self._made[name]

    def _look_up(self, name: str) -> tuple[Found[TransportPlugin], Any]:
        if name not in self._given:
            found = lookup.transport(name)
            return found, found.plugin.options()
        module, options = self._given[name]
        if module is None:
            found = lookup.transport(name)
        else:
            found = lookup.load_from(module, name, TRANSPORT)
        return found, found.plugin.options(**options)

    def export(self) -> dict[str, tuple[str | None, dict[str, Any]]]:
        """Returns what another process makes the same transports of."""
        exported = dict(self._given)
        for name in self._made:
            found, options = self._look_up(name)
            exported[name] = found.module, dataclasses.asdict(options)
        return exported

    def _find(self, address: str) -> Route:
        plugin, transport = self.get(scheme_transport(address))
        local = "network" not in plugin.capabilities or scheme_of(address).endswith("+unix")
        return Route(transport, local)
