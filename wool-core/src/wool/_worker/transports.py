"""The transports that a process uses, made as a pool or the settings say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wool import abc
from wool._addresses import is_socket, scheme_of
from wool._peer.routes import Route, Routes
from wool._plugins import lookup
from wool._plugins.lookup import TRANSPORT, Found, scheme_transport
from wool._settings.sending import dump, load
from wool.plugins import TransportPlugin

if TYPE_CHECKING:
    from wool._settings.settings import Settings

Given = dict[str, tuple[str | None, bytes]]
"""Of some back-ends the module they come from and their options, by name."""


class Transports:
    """Transports made of back-ends, each when it is first needed.

    Args:
        given: how a pool has made some; they are made here in the same way.
        settings: the options of all others; by default those of this process.
    """

    def __init__(self, given: Given, settings: Settings | None = None) -> None:
        self._given = given
        self._settings = settings
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
            return self._choose(name)
        module, options = self._given[name]
        if module is None:
            found = lookup.transport(name)
        else:
            found = lookup.load_from(module, name, TRANSPORT)
        return found, load(found.plugin.options, options)

    def _choose(self, name: str) -> tuple[Found[TransportPlugin], Any]:
        # Workers are told what their pool has chosen, and start sooner without the settings.
        from wool._settings.settings import Settings

        found = lookup.transport(name)
        if self._settings is None:
            self._settings = Settings.read(lookup.names)
        options, _ = self._settings.options(name, found.plugin.options)
        self._given[name] = found.module, dump(options)
        return found, options

    def export(self) -> Given:
        """Returns what another process makes the same transports of."""
        return dict(self._given)

    def _find(self, address: str) -> Route:
        plugin, transport = self.get(scheme_transport(address))
        local = "network" not in plugin.capabilities or scheme_of(address).endswith("+unix")
        return Route(transport, local)


def is_local(address: str | None, plugin: TransportPlugin) -> bool:
    """Whether what listens there with a transport can be reached from this machine alone."""
    return "network" not in plugin.capabilities or (address is not None and is_socket(address))
