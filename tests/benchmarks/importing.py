"""What importing wool adds to the start of an interpreter.

    python tests/benchmarks/importing.py

Prints the fastest of several starts of a bare interpreter and of one that imports wool, in ms.
"""

from __future__ import annotations

import subprocess
import sys
import time

ROUNDS = 10


def fastest(code: str) -> float:
    """Returns the shortest time of a process that runs `code`, in ms."""
    times: list[float] = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        times.append(time.perf_counter() - began)
    return min(times) * 1000


if __name__ == "__main__":
    bare, imported = fastest("pass"), fastest("import wool")
    print(f"bare {bare:.0f} ms, with wool {imported:.0f} ms: {imported - bare:.0f} ms more")
