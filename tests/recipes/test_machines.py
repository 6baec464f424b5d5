"""The recipes for one machine and for three of a LAN, typed word for word."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from publishing.walk import File, Shell, Walk
from recipes.kit import commands_of, follow, meeting
from support.network import lan

pytestmark = pytest.mark.timeout(180)


def test_one_machine(folder: Path, walk: Walk, program: File, variables: dict[str, str]) -> None:
    variables["WOOL_SHM__NAMESPACE"] = secrets.token_hex(4)
    for name in ("", "one", "two"):
        walk.shells[name] = Shell(folder / f"at-{name}", variables)
    walk.follow(meeting(program, 2, folder / "met"))
    commands = commands_of("index.md")
    assert [command.text for command in commands[2:4]] == [
        "wool workers --discovery shm",
        "WOOL_DISCOVERY=shm python count.py",
    ]
    for command in commands:
        follow(walk, command)


async def test_three_machines(
    folder: Path, walk: Walk, program: File, variables: dict[str, str]
) -> None:
    async with lan(3) as hosts:
        for name, host in zip(["alpha", "beta", "gamma"], hosts, strict=True):
            prefix = ["ip", "netns", "exec", host.name]
            walk.shells[name] = Shell(folder / name, variables, prefix)
        program = meeting(program, 2, folder / "met")
        (folder / "gamma" / program.name).write_text(program.text)
        for command in commands_of("lan.md"):
            follow(walk, command)
        assert not list((folder / "beta").iterdir())
        walk.close()
        walk.shells.clear()
