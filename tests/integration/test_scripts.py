"""How callers are started: workers find the caller's code however it came into the world."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from support.pools import TRANSPORTS
from support.processes import Script

pytestmark = pytest.mark.timeout(60)

# Valid for a file, standard input, `-c`, `-m` and, line by line, for the interactive interpreter.
EVERYTHING = """
import asyncio
import os
import sys
import wool

place = sys.argv[1]
executed = os.open(place + "/executed", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
_ = os.write(executed, f"{os.getpid()}\\n".encode())
os.close(executed)

class Failure(Exception):
    def __init__(self, *, code):
        super().__init__(f"code {code}")
        self.code = code

class Point:
    def __init__(self, x, y):
        self.x, self.y = x, y
    def __eq__(self, other):
        return (self.x, self.y) == (other.x, other.y)
    @wool.routine
    async def moved(self, dx):
        return Point(self.x + dx, self.y)

factor = 3

def scaled(x):
    return factor * x

@wool.routine
async def scale(x):
    return scaled(x)

@wool.routine
async def fail(code):
    raise Failure(code=code)

@wool.routine
async def search(query):
    lo, hi = 0, 25
    while lo <= hi:
        mid = (lo + hi) // 2
        hint = yield chr(97 + mid)
        if hint == "higher":
            lo = mid + 1
        elif hint == "lower":
            hi = mid - 1
        else:
            return

@wool.routine
async def outer(x):
    return await scale(x) + await scale(1)

@wool.routine
async def where():
    return os.getpid()

async def main():
    offset = 100
    @wool.routine
    async def shifted(x):
        return x + offset
    async with wool.WorkerPool(size=2):
        print(await scale(2), await outer(2), await shifted(1))
        print(await Point(1, 2).moved(3) == Point(4, 2), type(await Point(1, 2).moved(3)) is Point)
        try:
            await fail(7)
        except Failure as error:
            print("caught", type(error) is Failure, error.code)
        guesses = search("c")
        print(await anext(guesses), await guesses.asend("lower"), await guesses.asend("lower"))
        await guesses.aclose()
        print(sum([x async for x in wool.map(scale, range(10))]), await where() != os.getpid())

asyncio.run(main())
"""

EXPECTED = """\
6 9 101
True True
caught True 7
m f c
135 True"""


def typed(code: str) -> str:
    """The same for the interactive interpreter: a blank line ends each block, none is inside."""
    lines: list[str] = []
    for line in code.splitlines():
        if not line.strip():
            continue
        if lines and lines[-1].startswith(" ") and not line.startswith(" "):
            lines.append("")
        lines.append(line)
    return "\n".join(lines) + "\n"


CONSOLE = """
import __main__
import code, sys

class Console(code.InteractiveConsole):
    def raw_input(self, prompt=""):
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\\n")

Console(__main__.__dict__).interact(banner="", exitmsg="")
"""


@pytest.mark.parametrize("console", ["python -i", "code.interact"])
def test_interactive_interpreter(console: str, folder: Path) -> None:
    """Typed in line by line: definitions have no file, and workers do not read what is typed."""
    code = typed(EVERYTHING)
    if console == "python -i":
        script = Script(code, folder, str(folder), how="stdin", flags=["-i"])
    else:
        script = Script(CONSOLE, folder, str(folder), stdin=code)
    with script:
        assert script.output() == EXPECTED
        assert (folder / "executed").read_text() == f"{script.process.pid}\n"


def test_same_sys_path(folder: Path) -> None:
    """A worker can import what the caller can, though the path was added at run time."""
    late = folder / "late"
    late.mkdir()
    (late / "late_helper.py").write_text("def triple(x):\n    return 3 * x\n")
    (late / "late_module.py").write_text(
        textwrap.dedent("""
            import os
            import wool

            loaded_in = os.getpid()

            class Failure(Exception):
                pass

            @wool.routine
            async def triple(x):
                from late_helper import triple
                assert loaded_in == os.getpid()
                return triple(x)

            @wool.routine
            async def fail():
                raise Failure("on purpose")
        """)
    )
    code = textwrap.dedent(f"""
        import asyncio, sys
        import wool
        sys.path.insert(0, {str(late)!r})
        import late_module

        @wool.routine
        async def by_import(x):
            import late_helper
            return late_helper.triple(x), sys.path

        async def main():
            async with wool.WorkerPool(size=2):
                print(await late_module.triple(3))
                value, path = await by_import(4)
                print(value, path == sys.path)
                try:
                    await late_module.fail()
                except late_module.Failure as error:
                    print("caught", error)

        asyncio.run(main())
    """)
    with Script(code, folder) as script:
        assert script.output().splitlines() == ["9", "12 True", "caught on purpose"]


def test_modules_beside_the_script(folder: Path) -> None:
    """The script's own folder, and with `-c` the current one, are on the workers' path as well."""
    home = folder / "home"
    home.mkdir()
    (home / "beside.py").write_text(
        "import wool\n@wool.routine\nasync def double(x):\n    return 2 * x\n"
    )
    code = textwrap.dedent("""
        import asyncio, os, wool
        from beside import double

        @wool.routine
        async def lazily(x):
            import beside
            return await beside.double(x)

        async def main():
            os.chdir("/")
            async with wool.WorkerPool(size=1):
                print(await double(2), await lazily(3))

        asyncio.run(main())
    """)
    for how in ("file", "-m"):
        with Script(code, folder, how=how) as script:
            assert script.output() == "4 6"
    # With `-c` and standard input the path has "", which means wherever one is.
    for how in ("-c", "stdin"):
        with Script(code.replace('os.chdir("/")', "pass"), folder, how=how) as script:
            assert script.output() == "4 6"


def test_large_script_from_stdin_with_input(folder: Path) -> None:
    """Workers leave the caller's standard input alone, and find their own at its end."""
    code = textwrap.dedent("""
        import asyncio, os, sys
        import wool

        @wool.routine
        async def read():
            return sys.stdin.read() if sys.stdin else ""

        async def main():
            async with wool.WorkerPool(size=2):
                print(repr(await read()), repr(await read()))
                print(sys.stdin.readline().strip())
                print(repr(await read()))
            print(sys.stdin.read().strip())

        asyncio.run(main())
    """)
    with Script(code, folder, stdin="one\ntwo\n") as script:
        assert script.output().splitlines() == ["'' ''", "one", "''", "two"]


def test_output_is_inherited(folder: Path) -> None:
    """Output of a routine appears where the caller's own output does, complete and exact."""
    code = textwrap.dedent("""
        import asyncio, os, subprocess, sys
        import wool

        @wool.routine
        async def speak(number):
            print(f"out {number}")
            print(f"err {number}", file=sys.stderr)
            if number == 3:
                os.write(1, b"raw\\n")
                subprocess.run(["echo", "child"])

        async def main():
            async with wool.WorkerPool(size=2):
                for number in range(10):
                    await speak(number)

        asyncio.run(main())
    """)
    with Script(code, folder) as script:
        output = script.output().splitlines()
        expected = [f"out {number}" for number in range(10)] + ["raw", "child"]
        assert sorted(output) == sorted(expected)
        assert sorted(script.stderr.splitlines()) == [f"err {number}" for number in range(10)]


def test_output_appears_at_once(folder: Path) -> None:
    """A line that a routine printed and flushed does not wait for the end of the call."""
    code = textwrap.dedent("""
        import asyncio
        import wool

        @wool.routine
        async def speak():
            print("begun", flush=True)
            await asyncio.sleep(3600)

        async def main():
            async with wool.WorkerPool(size=1):
                await speak()

        asyncio.run(main())
    """)
    with Script(code, folder) as script:
        assert script.line() == "begun"


QUIET = EVERYTHING + (
    """
import gc
async def again():
    pool = wool.WorkerPool(size=2)
    for _ in range(2):
        async with pool:
            calls = [asyncio.ensure_future(scale(i)) for i in range(10)]
            calls[3].cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            async for letter in search("x"):
                break
            await asyncio.gather(fail(1), fail(2), return_exceptions=True)
    gc.collect()

asyncio.run(again())
"""
)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("flags", [(), ("-X", "dev", "-W", "error")], ids=["plain", "strict"])
def test_silent_by_default(flags: tuple[str, ...], transport: str, folder: Path) -> None:
    """Nothing is printed or logged that the user did not ask for, no warning either."""
    code = QUIET.replace("size=2", f"size=2, transport={transport!r}")
    code = code.replace(", await where() != os.getpid()", ", True")
    with Script(code, folder, str(folder), flags=flags) as script:
        assert script.output() == EXPECTED
        # asyncio's debug mode reports whatever takes 0.1 s, and on a busy machine anything may.
        lines = [line for line in script.stderr.splitlines() if not line.startswith("Executing <")]
        assert lines == []


def test_log_level_is_not_touched(folder: Path) -> None:
    """A caller that logs everything gets its own lines, and its handlers stay as they were."""
    code = textwrap.dedent("""
        import asyncio, logging
        import wool

        @wool.routine
        async def add(x, y):
            return x + y

        async def main():
            before = list(logging.root.handlers), logging.root.level
            async with wool.WorkerPool(size=1):
                print(await add(1, 2))
            assert (list(logging.root.handlers), logging.root.level) == before

        asyncio.run(main())
        logging.warning("mine")
    """)
    with Script(code, folder) as script:
        assert script.output() == "3"
        assert script.stderr == "WARNING:root:mine\n"


def test_interpreter_flags_reach_workers(folder: Path) -> None:
    """The same interpreter with the same flags: `-O`, `-W`, `-X utf8`, `-B`."""
    code = textwrap.dedent("""
        import asyncio, sys
        import wool

        @wool.routine
        async def flags():
            f = sys.flags
            return sys.executable, f.optimize, f.dont_write_bytecode, f.utf8_mode

        async def main():
            async with wool.WorkerPool(size=1):
                there = await flags()
            f = sys.flags
            here = sys.executable, f.optimize, f.dont_write_bytecode, f.utf8_mode
            print(here == there, here[1:])

        asyncio.run(main())
    """)
    with Script(code, folder, flags=["-O", "-B", "-X", "utf8"]) as script:
        assert script.output() == "True (1, 1, 1)"


def test_uvloop_is_optional(folder: Path) -> None:
    """Where uvloop cannot be imported the workers use the plain loop, without a word."""
    path = folder / "without"
    path.mkdir()
    (path / "uvloop.py").write_text("raise ImportError('not here')\n")
    code = textwrap.dedent("""
        import asyncio, sys
        import wool

        @wool.routine
        async def loop():
            return type(asyncio.get_running_loop()).__module__

        async def main():
            async with wool.WorkerPool(size=1):
                print((await loop()).partition(".")[0])

        asyncio.run(main())
    """)
    search = os.pathsep.join([str(path), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    with Script(code, folder, env={"PYTHONPATH": search}) as script:
        assert script.output() == "asyncio"
        assert script.stderr == ""


def test_uvloop_is_used_where_installed(folder: Path) -> None:
    """User code runs on uvloop's loop, whichever loop the caller has."""
    pytest.importorskip("uvloop")
    code = textwrap.dedent("""
        import asyncio, sys
        import uvloop
        import wool

        @wool.routine
        async def loop():
            return type(asyncio.get_running_loop()).__module__.partition(".")[0]

        async def main():
            async with wool.WorkerPool(size=1):
                print(await loop())

        asyncio.run(main())
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
    """)
    with Script(code, folder) as script:
        assert script.output().split() == ["uvloop", "uvloop"]
        assert script.stderr == ""


NEEDED = {
    "array": "descriptors on their way over a socket",
    "asyncio": "runs user code; it imports ssl, logging and inspect",
    "cloudpickle": "the serializer",
    "ctypes": "the signal that outlives a blocked interpreter",
    "fcntl": "the lock of the directory of sockets",
    "gc": "nothing that is imported is garbage",
    "hashlib, hmac, secrets": "the handshake",
    "importlib.util": "modules that travel",
    "msgspec": "the frames",
    "mmap": "the length of pages, by which large values are cut",
    "pluggy": "the hooks of back-ends",
    "uvloop": "the loop, where it is installed",
    "zlib": "the checksum of tokens",
}
"""The modules that a worker imports before its first call, and what for."""

UNNEEDED = {
    "wool._backends.dns": "nobody is looked for",
    "wool._pool": "it starts no workers",
    "wool._settings.settings": "it is told what its pool has read",
    "wool._sync": "nobody calls it without a loop",
    "wool._worker.worker": "it is not made by a program",
    "wool.cli": "it is no command",
    "wool.testing": "it is no test",
}
"""Parts of Wool that a worker does without, and why."""


def test_workers_import_little(folder: Path) -> None:
    """Their imports are paid for at each start, in time and in memory."""
    code = textwrap.dedent("""
        import asyncio, sys
        import wool, sqlite3, xml.dom.minidom

        @wool.routine
        async def modules():
            return list(sys.modules)

        async def main():
            async with wool.WorkerPool(size=1):
                print(*await modules())

        asyncio.run(main())
    """)
    with Script(code, folder) as script:
        loaded = set(script.output().split())
    code = textwrap.dedent("""
        import contextlib, importlib, sys

        for name in sys.argv[1:]:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        print(*sys.modules)
    """)
    command = [sys.executable, "-c", code, *", ".join(NEEDED).split(", ")]
    needed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    own = {name for name in loaded if name.startswith("wool")}
    others = {name for name in loaded - own if name.partition(".")[0] != "opentelemetry"}
    assert others - set(needed) == set()
    assert [name for name in own if name.startswith(tuple(UNNEEDED))] == []
