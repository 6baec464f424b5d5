"""`wool plugin new`: writes a distribution with a plug-in that works, to begin with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import click

from wool._plugins.lookup import DISCOVERY, LAUNCHER, SERIALIZER, TRANSPORT
from wool._plugins.observers import GROUP
from wool._plugins.records import OBSERVER, OWN
from wool._settings.model import SECRETS, TABLES, Core, settings_of
from wool.plugins import API

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LONGEST = 40
PLACE = Path(__file__).with_name("templates")


TEMPLATES: Mapping[str, Mapping[str, str]] = {
    TRANSPORT.word: {
        "group": TRANSPORT.group,
        "toy": "sends messages over TCP with TLS",
        "use": "WOOL_TRANSPORT=@name@ python program.py",
        "needs": "",
        "extras": "testing,tls",
    },
    DISCOVERY.word: {
        "group": DISCOVERY.group,
        "toy": "finds workers by files of one machine",
        "use": "wool worker --discovery @name@ & WOOL_DISCOVERY=@name@ python program.py",
        "needs": '"msgspec", ',
        "extras": "testing",
    },
    SERIALIZER.word: {
        "group": SERIALIZER.group,
        "toy": "compresses what cloudpickle makes",
        "use": "WOOL_SERIALIZER=@name@ python program.py",
        "needs": '"cloudpickle", ',
        "extras": "testing",
    },
    LAUNCHER.word: {
        "group": LAUNCHER.group,
        "toy": "starts workers of this machine that are in no hurry",
        "use": "WOOL_LAUNCHER=@name@ python program.py",
        "needs": "",
        "extras": "testing",
    },
    OBSERVER: {
        "group": GROUP,
        "toy": "counts calls by routine",
        "use": "python program.py           # where it is installed, it is in use",
        "needs": "",
        "extras": "testing",
    },
}
"""Of each kind the words of its README and pyproject.toml.

That is its group of entry points, what it does before its author has changed it, how it is used on
the command line, what it depends on besides wool-core, and the extras of wool-core for its tests.
"""


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
    written = write(kind, name, folder)
    for path in written:
        click.echo(path)
    click.echo(
        f'\nNext:\n  cd {folder}\n  pip install -e ".[test]"\n  wool plugins\n  pytest', err=True
    )


def _check(name: str) -> None:
    if not NAME.fullmatch(name) or len(name) > LONGEST or name.startswith("wool-"):
        problem = (
            f"{name!r} is not a name like `carrier` or `my-thing`: small letters, digits and "
            f"single hyphens, at most {LONGEST}, a letter first, and no `wool-`"
        )
    # The settings of a plug-in are a table of its name, beside those.
    elif name in {*OWN, *TABLES, *settings_of(Core), *SECRETS, "core", "wool"}:
        problem = f"{name!r} is a name of Wool's own"
    else:
        return
    raise click.BadParameter(problem, param_hint="NAME")


def write(kind: str, name: str, folder: Path) -> list[Path]:
    """Writes a distribution; returns its files."""
    words = _words(kind, name)
    written: list[Path] = []
    for part in (PLACE / "common", PLACE / kind):
        for template in part.rglob("*.in"):
            place = template.relative_to(part).with_suffix("")
            path = folder / _filled(str(place), words)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_filled(template.read_text("utf-8"), words), "utf-8")
            written.append(path)
    return sorted(written)


def _words(kind: str, name: str) -> dict[str, str]:
    """Returns what stands for the words in templates."""
    module = name.replace("-", "_")
    return {
        "api": str(API),
        "name": name,
        "test": f"test_{module}",
        "package": f"wool_{module}",
        "distribution": f"wool-{name}",
        "Class": "".join(part.capitalize() for part in name.split("-")),
        "VARIABLE": f"WOOL_{module.upper()}",
        "kind": kind,
        "compatible": _compatible(),
        **{word: text.replace("@name@", name) for word, text in TEMPLATES[kind].items()},
    }


def _compatible() -> str:
    """Returns the versions of wool-core that have the same interfaces as this one."""
    major, minor = map(int, metadata.version("wool-core").split(".")[:2])
    limit = f"0.{minor + 1}" if major == 0 else str(major + 1)
    return f">={major}.{minor},<{limit}"


def _filled(text: str, words: Mapping[str, str]) -> str:
    return re.sub(r"@([A-Za-z]+)@", lambda found: words[found[1]], text)
