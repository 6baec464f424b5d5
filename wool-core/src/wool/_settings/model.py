"""The settings: the keys of `[tool.wool]`, and of its tables that are Wool's own.

Settings are the fields of a frozen dataclass, for Wool itself as for any back-end: the annotation
says what a value must be and, if it is `Annotated` with a string, what the setting is for; the
default is what holds if nobody says otherwise. A field with `repr=False`, or called like one, is a
secret. Another setting is another line here.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from wool.exceptions import PluginError

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0)]
Travel = Literal["auto", "off"]
Output = Literal["auto", "caller", "worker", "off"]
Loop = Literal["auto", "uvloop", "asyncio"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """The keys of `[tool.wool]`."""

    transport: Annotated[str | None, "How processes are connected; unset: Wool chooses."] = None
    discovery: Annotated[str | None, "How more workers are found; unset: none are sought."] = None
    serializer: Annotated[str, "How values become bytes."] = "cloudpickle"
    launcher: Annotated[str, "How the pool's own workers are started."] = "local"
    size: Annotated[
        Count | tuple[Count, ...] | None,
        "Workers to keep, or least and most; unset: one per CPU, none with a discovery.",
    ] = None
    idle: Annotated[Seconds, "Seconds for which a pool that shrinks keeps workers unused."] = 60.0
    concurrency: Annotated[Positive | None, "Calls a worker runs at once; unset: no limit."] = None
    memory_limit: Annotated[
        Positive | None, "Bytes of memory at which a worker is replaced; unset: no limit."
    ] = None
    quorum_timeout: Annotated[Seconds, "Seconds to wait for workers."] = 60.0
    shutdown_timeout: Annotated[Seconds, "Seconds calls get to end when a pool is left."] = 30.0
    cancel_grace: Annotated[Seconds, "Seconds a cancelled call gets to clean up."] = 10.0
    drain_timeout: Annotated[Seconds, "Seconds calls get to end on a worker told to leave."] = 30.0
    ship: Annotated[tuple[str, ...], "Modules sent to workers that may lack them."] = ()
    by_reference: Annotated[tuple[str, ...], "Modules of yours that all workers have."] = ()
    context: Annotated[Travel, "Whether context variables travel with calls."] = "auto"
    exclude: Annotated[tuple[str, ...], "Context variables that do not, as `module.name`."] = ()
    output: Annotated[Output, "Where what routines print and log goes; see its guide."] = "auto"
    observers: Annotated[tuple[str, ...], "Who is told of calls: `opentelemetry`, for spans."] = ()
    run_locally: Annotated[bool, "Whether routines run locally where no pool is open."] = True
    loop: Annotated[Loop, "Event loop of workers; auto: uvloop where it is installed."] = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """The keys of `[tool.wool.tls]`."""

    ca: Annotated[Path | None, "File with the authorities' certificates to trust."] = None
    cert: Annotated[Path | None, "File with the certificate to show."] = None
    key: Annotated[Path | None, "File with the private key of that certificate."] = None
    name: Annotated[str | None, "Name to demand of a worker's certificate; unset: its host."] = None
    proxy: Annotated[str | None, "Name of the proxy that ends TLS before the workers."] = None


SECRETS = frozenset({"token", "token_file", "password", "secret"})
"""Keys that are for secrets wherever they stand: no file may have them."""

TABLES: Mapping[str, type] = {"tls": Tls}
"""The tables of Wool's own; all others are named after back-ends."""


class Setting(Struct, frozen=True):
    """One key of a table."""

    name: str
    type: Any
    default: Any
    secret: bool
    description: str

    @property
    def required(self) -> bool:
        return self.default is dataclasses.MISSING


def settings_of(options: type) -> dict[str, Setting]:
    """Returns the settings that a dataclass stands for.

    Raises:
        PluginError: it is none, or its annotations make no sense.
    """
    try:
        fields = dataclasses.fields(options)
        hints = typing.get_type_hints(options, include_extras=True)
        return {field.name: _setting(field, hints[field.name]) for field in fields if field.init}
    except Exception as error:  # authors may use no type checker
        raise PluginError(
            f"The options {options!r} are no dataclass that Wool can read: "
            f"{type(error).__name__}: {error}. Report this to the authors of the back-end."
        ) from error


def _setting(field: dataclasses.Field[Any], annotation: Any) -> Setting:
    make, default = field.default_factory, field.default
    notes = getattr(annotation, "__metadata__", ())
    return Setting(
        name=field.name,
        type=annotation,
        default=default if make is dataclasses.MISSING else make(),
        secret=not field.repr or field.name in SECRETS,
        description=next((note for note in notes if isinstance(note, str)), ""),
    )
