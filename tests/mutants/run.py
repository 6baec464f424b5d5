"""Puts defects into a copy of the tree, one by one, and says whether the tests find them.

    make mutants                          # all of them
    make mutants ARGS="cancel-not-sent"   # some of them

The table is in `table.py`. The concerned tests run first without any defect. A mutant is found if a
test fails, or if the tests do not end within the time limit; it survives if all of them pass. The
contract suite runs on one transport, unless CONTRACT_PLACES says otherwise.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from table import MUTANTS, Mutant, read_sources

ROOT = Path(__file__).parents[2]
LIMIT = 300
"""Seconds that the tests of one mutant may take."""

PACKAGES = ("wool", "wool_grpc", "wool_ws", "wool_shm", "wool_zeroconf")
FAILURE = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


def main(names: Sequence[str]) -> int:
    """Runs the mutants with these names, or all of them; returns an exit status."""
    unknown = set(names).difference(mutant.name for mutant in MUTANTS)
    if unknown:
        sys.exit(f"There are no mutants {', '.join(sorted(unknown))}; see tests/mutants/table.py")
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    with tempfile.TemporaryDirectory(prefix="wool-mutants-") as folder:
        tree = Path(folder)
        copy_tree(tree)
        make_environment(tree)
        sources = read_sources(tree)
        try:
            places = {mutant: mutant.find(sources) for mutant in chosen}
        except LookupError as error:
            sys.exit(str(error))
        check_unmutated(tree, chosen)
        survivors = [mutant.name for mutant in chosen if not is_found(tree, mutant, places[mutant])]
    print(f"\n{len(chosen) - len(survivors)} of {len(chosen)} mutants found")
    if survivors:
        print(f"Survived: {', '.join(survivors)}")
    return 1 if survivors else 0


def copy_tree(tree: Path) -> None:
    """Copies what belongs to the repository, with what has not been committed."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():  # and has not been deleted
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)


def make_environment(tree: Path) -> None:
    """Makes an environment that has the packages of the copy, and the libraries of this one.

    All processes that tests start have them, whatever is in their environment variables.
    """
    environment = tree / ".venv"
    venv.create(environment, symlinks=True)
    base = {"base": str(environment), "platbase": str(environment)}
    sources = [*tree.glob("wool-*/src"), *tree.glob("tests/plugins/*/src")]
    paths = [*map(str, sources), sysconfig.get_path("purelib")]
    Path(sysconfig.get_path("purelib", vars=base), "copy.pth").write_text("\n".join(paths) + "\n")
    command = Path(sys.executable).with_name("wool").read_text().partition("\n")[2]
    (environment / "bin" / "wool").write_text(f"#!{environment}/bin/python\n{command}")
    (environment / "bin" / "wool").chmod(0o755)
    code = f"import {', '.join(PACKAGES)}; print({'.__file__, '.join(PACKAGES)}.__file__)"
    run = subprocess.run([python(tree), "-c", code], check=True, capture_output=True, text=True)
    strange = [path for path in run.stdout.split() if not Path(path).is_relative_to(tree)]
    if strange:
        sys.exit(f"The tests would not use the copy, but {', '.join(strange)}")


def python(tree: Path) -> str:
    """Returns the interpreter of the copy."""
    return str(tree / ".venv" / "bin" / "python")


def check_unmutated(tree: Path, mutants: Sequence[Mutant]) -> None:
    """Ends the program if the concerned tests fail without any defect."""
    tests = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    print("The concerned tests, without a defect ...", flush=True)
    status, output, seconds = run_tests(tree, tests, limit=LIMIT * len(mutants))
    if status != 0:
        sys.exit(f"{output}\nThe tests fail, or do not end, without any defect: see above")
    print(f"passed in {seconds:.0f} s\n\n{'mutant':37}{'':9} seconds  by", flush=True)


def is_found(tree: Path, mutant: Mutant, path: Path) -> bool:
    """Runs the tests with the defect, prints a row of the table, and restores the file."""
    before = path.read_text()
    path.write_text(before.replace(mutant.old, mutant.new))
    status, output, seconds = run_tests(tree, mutant.tests, limit=LIMIT)
    path.write_text(before)
    if status not in (None, 0, 1) or (status == 1 and not FAILURE.search(output)):
        sys.exit(f"{output}\nThe tests of {mutant.name} cannot be run, status {status}: see above")
    failure = FAILURE.search(output)
    by = failure[1] if failure else "no end within the limit" if status is None else "-"
    level = "  (unit)" if mutant.unit else ""
    word = "found" if status != 0 else "SURVIVED"
    print(f"{mutant.name:37}{word:9} {seconds:7.0f}  {by}{level}", flush=True)
    return status != 0


def run_tests(tree: Path, tests: Sequence[str], limit: float) -> tuple[int | None, str, float]:
    """Returns the exit status of pytest, None if it did not end; what it said, and the seconds."""
    command = [python(tree), "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=short"]
    environment = {"CONTRACT_PLACES": "unix", **os.environ}
    began = time.monotonic()
    with (tree / "output").open("w+") as output:
        process = subprocess.Popen(
            [*command, *tests],
            cwd=tree,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            process_group=0,
        )
        with suppress(subprocess.TimeoutExpired):
            process.wait(limit)
        status = process.poll()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with all that it has left
        process.wait()
        output.seek(0)
        return status, output.read(), time.monotonic() - began


if __name__ == "__main__":
    # A shell lets what it starts in the background ignore Ctrl-C, and tests send that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
