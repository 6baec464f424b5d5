"""`wool plugin new`: writes a distribution with a plug-in that works, to begin with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from wool._plugins.lookup import DISCOVERY, SERIALIZER, TRANSPORT
from wool._plugins.observers import GROUP
from wool._plugins.records import BUILT_IN, EXTRAS, OBSERVER
from wool._settings.model import SECRETS, TABLES, Core, settings_of
from wool.plugins import API

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LONGEST = 40


@dataclass(frozen=True, slots=True)
class Template:
    """The parts of a new plug-in, besides the files.

    Attributes:
        group: of its entry point.
        toy: what it does before its author has changed it.
        use: how to use it on the command line, with `@name@` in it.
        needs: what it depends on, besides wool-core.
        extras: of wool-core, for its tests.
    """

    group: str
    toy: str
    use: str
    needs: tuple[str, ...] = ()
    extras: str = "testing"


TEMPLATES: Mapping[str, Template] = {
    TRANSPORT.word: Template(
        TRANSPORT.group,
        "sends messages over TCP with TLS",
        "WOOL_TRANSPORT=@name@ python program.py",
        extras="testing,tls",
    ),
    DISCOVERY.word: Template(
        DISCOVERY.group,
        "finds workers by files of one machine",
        "wool worker --discovery @name@ & WOOL_DISCOVERY=@name@ python program.py",
        needs=("msgspec",),
    ),
    SERIALIZER.word: Template(
        SERIALIZER.group,
        "compresses what cloudpickle makes",
        "WOOL_SERIALIZER=@name@ python program.py",
        needs=("cloudpickle",),
    ),
    OBSERVER: Template(
        GROUP,
        "counts calls by routine",
        "python program.py           # where it is installed, it is in use",
    ),
}


@click.group("plugin")
def plugin() -> None:
    """Begin a plug-in of your own."""


@plugin.command()
@click.argument("kind", type=click.Choice(list(TEMPLATES)))
@click.argument("name")
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path(),
    help="Folder to write to; by default the current one.",
)
def new(kind: str, name: str, into: Path) -> None:
    """Write a distribution with a new plug-in.

    It goes to a new folder, wool-NAME: a package that works and is found once it is installed, and
    tests that subclass Wool's conformance kit. Change what it does, and run the tests again.

    NAME is what users will choose: lower case, such as `carrier` or `my-thing`.
    """
    _check(name)
    folder = into / f"wool-{name}"
    if folder.exists():
        raise click.ClickException(f"{folder} exists already: remove it, or choose another name")
    try:
        written = write(kind, name, folder)
    except OSError as error:
        raise click.ClickException(
            f"{error.filename} cannot be written: {error.strerror}"
        ) from error
    for path in written:
        click.echo(path)
    click.echo(
        f'\nNext:\n  cd {folder}\n  pip install -e ".[test]"\n  wool plugins\n  pytest', err=True
    )


def _check(name: str) -> None:
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        raise click.BadParameter(
            f"{name!r} is not a name like `carrier` or `my-thing`: small letters, digits and "
            f"single hyphens, at most {LONGEST}, and a letter first",
            param_hint="NAME",
        )
    if name.startswith("wool-"):
        raise click.BadParameter(
            f"leave out `wool-`, which is put before it anyway: {name.removeprefix('wool-')}",
            param_hint="NAME",
        )
    # The settings of a plug-in are a table of its name, beside those.
    if name in {*BUILT_IN, *EXTRAS, *TABLES, *settings_of(Core), *SECRETS, "core", "wool"}:
        raise click.BadParameter(f"{name!r} is a name of Wool's own", param_hint="NAME")


def write(kind: str, name: str, folder: Path) -> list[Path]:
    """Writes a distribution; returns its files."""
    words = _words(kind, name)
    written: list[Path] = []
    root = resources.files("wool.cli") / "templates"
    for part in ("common", kind):
        for place, template in _files(root / part):
            path = folder / _filled(place.removesuffix(".in"), words)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_filled(template.read_text("utf-8"), words), "utf-8")
            written.append(path)
    return sorted(written)


def _files(folder: Traversable, place: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        inner = f"{place}/{entry.name}" if place else entry.name
        if entry.is_dir():
            yield from _files(entry, inner)
        elif entry.name.endswith(".in"):
            yield inner, entry


def _words(kind: str, name: str) -> dict[str, str]:
    """Returns what stands for the words in templates."""
    template = TEMPLATES[kind]
    module = name.replace("-", "_")
    needs = [f'"{need}"' for need in (*template.needs, f"wool-core{_compatible()}")]
    return {
        "api": str(API),
        "name": name,
        "test": f"test_{module}",
        "package": f"wool_{module}",
        "distribution": f"wool-{name}",
        "Class": "".join(part.capitalize() for part in name.split("-")),
        "VARIABLE": f"WOOL_{module.upper()}",
        "kind": kind,
        "group": template.group,
        "toy": template.toy,
        "use": template.use.replace("@name@", name),
        "extras": template.extras,
        "dependencies": ", ".join(needs),
    }


def _compatible() -> str:
    """Returns the versions of wool-core that have the same interfaces as this one."""
    major, minor = map(int, metadata.version("wool-core").split(".")[:2])
    limit = f"0.{minor + 1}" if major == 0 else str(major + 1)
    return f">={major}.{minor},<{limit}"


def _filled(text: str, words: Mapping[str, str]) -> str:
    return re.sub(r"@([A-Za-z]+)@", lambda found: words[found[1]], text)
