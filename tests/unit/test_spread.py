"""The simulation of many callers and workers, on a small scale: what it shows, and its plot."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from wool._client.balancing import MANY, MOST

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "spread.py"
WORKERS, CALLERS = 300, 30

ROW = re.compile(
    r"\| \d+ on \d+ \| (?P<busy>\d+)% \| \d+, 99 %: \d+, most (?P<most>\d+) "
    r"\| \d+, 99 %: (?P<caller>\d+) \| [^|]* \| \d+, 99 %: (?P<wait>\d+) ms \|"
)
"""How busy the workers are, the most connections that one has, how many most callers have at the
most, and how long most calls wait at the most."""


def test_the_simulation(tmp_path: Path) -> None:
    plot = tmp_path / "spread.svg"
    size = ["--workers", str(WORKERS), "--callers", str(CALLERS)]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *size, "--out", "1", "8", "30", "--svg", str(plot)],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    rows = [match.groupdict() for match in ROW.finditer(done.stdout)]
    few, usual, many, random = [{k: int(v) for k, v in row.items()} for row in rows]
    assert few["caller"] <= 4, "one call after another needs few connections"
    assert usual["caller"] <= MANY, "fewer calls than workers need few connections"
    assert usual["most"] <= CALLERS / 2, "no worker has most of the callers"
    assert usual["busy"] > 60, "of the 80 that would be ideal"
    assert usual["busy"] > random["busy"]
    assert usual["wait"] < random["wait"]
    assert many["busy"] > 95, "there is enough to do for everyone"
    assert MANY < many["caller"] <= MOST
    drawn = ET.parse(plot).getroot()
    assert len(drawn.findall(".//{*}polyline")) == 3 + 2 + 2
