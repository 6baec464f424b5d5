"""Simulates many callers of many workers: how load and connections spread.

    python tests/benchmarks/spread.py --workers 10000 --callers 1000 --svg docs/_static/spread.svg

What a caller decides is decided by Wool's own code: which workers it keeps links to and which of
these gets a call (`wool._client.balancing`). Simulated are the network, workers that do one call
after another, callers that keep a number of calls out at all times, and what they take back of them
for workers that have nothing to do. For comparison: each call goes to a random one of all workers,
and stays there.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import charts

from wool._client.balancing import MANY, Subset, least_loaded
from wool._client.client import PATIENCE
from wool._workerinfo import WorkerInfo

SERVICE, LATENCY = 0.1, 0.001
"""Seconds that a call takes on average, and a message on its way."""

WARM, MEASURED = 1.0, 2.0
"""Seconds before anything is counted, and while it is."""

ANYWHERE = WorkerInfo(address="x://")

OUT = (1, 5, 8, 20)
"""Calls that each caller keeps out, for one run each, if there are ten workers to a caller."""


@dataclass(eq=False, slots=True)
class Call:
    """A call, and when it was made."""

    link: Link
    number: int
    made: float


@dataclass(eq=False, slots=True)
class Worker:
    """Does one call after another."""

    links: set[Link] = field(default_factory=set)
    queue: list[Call] = field(default_factory=list)
    current: Call | None = None
    done: int = 0
    busy: float = 0.0

    @property
    def load(self) -> int:
        return len(self.queue) + (self.current is not None)


@dataclass(eq=False, slots=True)
class Link:
    """What a caller knows of a worker, as `wool._client.link.Link` does."""

    caller: Caller
    worker: Worker
    idle: bool = True
    session: object | None = None
    unbegun: dict[int, float] = field(default_factory=dict)  # when they were sent, by number
    begun: int = 0
    usable: bool = True
    info: WorkerInfo = ANYWHERE
    others: int = 0
    last: int = 0
    seen: int = 0
    recalling: bool = False

    @property
    def load(self) -> int:
        return len(self.unbegun) + self.begun + self.others

    @property
    def oldest(self) -> float:
        return next(iter(self.unbegun.values()))


@dataclass(eq=False, slots=True)
class Caller:
    """Keeps a number of calls out."""

    order: list[Link] = field(default_factory=list)
    width: int = MANY
    rebalancing: bool = False

    @property
    def links(self) -> list[Link]:
        return self.order[: self.width]

    def choose(self) -> Link:
        """Returns who gets the next call; looks at more workers if all of them are busy."""
        links = self.links
        link = least_loaded(links)
        assert link is not None
        if not link.idle and self.width < len(self.order) and not any(k.idle for k in links):
            self.width = min(2 * self.width, len(self.order))
            link = least_loaded(self.links) or link
        return link


@dataclass
class Result:
    """What has come of a run."""

    out: int
    done: list[int]
    connections: list[int]
    per_caller: list[int]
    waits: list[float]
    busy: float


@dataclass
class Simulation:
    """A run. Events are called at their time."""

    workers: Sequence[Worker]
    callers: Sequence[Caller]
    choose: Callable[[Caller], Link]
    now: float = 0.0
    waits: list[float] = field(default_factory=list[float])
    _events: list[Any] = field(default_factory=list[Any])
    _numbers: Any = field(default_factory=itertools.count)

    def run(self, out: int) -> Result:
        for caller in self.callers:
            for _ in range(out):
                self.at(random.uniform(0, SERVICE), self.submit, caller)
        while self._events and self._events[0][0] < WARM + MEASURED:
            self.now, _, event, args = heapq.heappop(self._events)
            event(*args)
        return Result(
            out=out,
            done=[worker.done for worker in self.workers],
            connections=[len(worker.links) for worker in self.workers],
            per_caller=[
                sum(link.session is not None for link in caller.order) for caller in self.callers
            ],
            waits=self.waits,
            busy=sum(worker.busy for worker in self.workers) / len(self.workers) / MEASURED,
        )

    def at(self, delay: float, event: Callable[..., None], *args: Any) -> None:
        heapq.heappush(self._events, (self.now + delay, next(self._numbers), event, args))

    def submit(self, caller: Caller, made: float | None = None) -> None:
        link = self.choose(caller)
        link.session = link
        link.worker.links.add(link)
        link.last += 1
        link.unbegun[link.last] = self.now
        link.idle = False
        call = Call(link, link.last, self.now if made is None else made)
        self.at(LATENCY, self.arrive, call)

    def arrive(self, call: Call) -> None:
        worker = call.link.worker
        call.link.seen = call.number
        worker.queue.append(call)
        if worker.current is None:
            self.begin(worker)

    def begin(self, worker: Worker) -> None:
        worker.current = worker.queue.pop(0)
        seconds = random.expovariate(1 / SERVICE)
        if self.now >= WARM:
            self.waits.append(self.now - worker.current.made)
        worker.busy += max(0.0, min(self.now + seconds, WARM + MEASURED) - max(self.now, WARM))
        self.at(seconds, self.finish, worker)

    def finish(self, worker: Worker) -> None:
        call, worker.current = worker.current, None
        assert call is not None
        worker.done += self.now >= WARM
        idle = 0 if worker.queue else call.link.seen
        self.at(LATENCY, self.reply, call, worker.load, idle)
        if worker.queue:
            self.begin(worker)
            return
        for link in worker.links:  # it tells all of its callers that it has nothing to do
            link.others = 0
            self.note(link, link.seen)

    def reply(self, call: Call, load: int, idle: int) -> None:
        link = call.link
        if link.unbegun.pop(call.number, None) is None:
            link.begun -= 1
        link.others = max(0, load - len(link.unbegun) - link.begun)
        self.note(link, idle)
        self.submit(link.caller)

    # What `wool._client.client` does about workers that have nothing to do

    def note(self, link: Link, seen: int) -> None:
        if seen >= link.last:
            link.idle = True
            if not link.caller.rebalancing:
                link.caller.rebalancing = True
                self.at(PATIENCE, self.rebalance, link.caller)

    def rebalance(self, caller: Caller) -> None:
        caller.rebalancing = False
        links = caller.links
        idle = sum(link.idle for link in links)
        before = self.now - PATIENCE
        donors = [k for k in links if k.unbegun and not k.idle and not k.recalling]
        slow = [link for link in donors if link.oldest <= before]
        slow.sort(key=lambda link: -len(link.unbegun))
        for link in slow[:idle]:
            link.recalling = True
            self.at(LATENCY, self.recall, link, ceil(len(link.unbegun) / 2), link.last)

    def recall(self, link: Link, count: int, last: int) -> None:
        waiting = [call for call in link.worker.queue if call.link is link]
        returned = waiting[max(0, len(waiting) - count) :]
        for call in returned:
            link.worker.queue.remove(call)
        self.at(LATENCY, self.given_back, link, returned, len(waiting) - len(returned), last)

    def given_back(self, link: Link, calls: Sequence[Call], waiting: int, last: int) -> None:
        link.recalling = False
        for call in calls:
            del link.unbegun[call.number]
        if not waiting:
            begun = [number for number in link.unbegun if number <= last]
            link.begun += len(begun)
            for number in begun:
                del link.unbegun[number]
        for call in calls:
            self.submit(link.caller, call.made)


def preferences(workers: int, callers: int, seed: int) -> list[list[int]]:
    """Returns, for each caller, the workers that it would ever keep links to, in its order."""
    members = {f"{n:016x}": WorkerInfo(id=f"{n:016x}", address="x://") for n in range(workers)}
    numbers = {key: number for number, key in enumerate(members)}
    chosen: list[list[int]] = []
    for caller in range(callers):
        subset = Subset(f"{seed}/{caller}".encode())
        while subset.can_widen:
            subset.widen()
        chosen.append([numbers[key] for key in subset.choose(members, ())])
    return chosen


def simulate(workers: int, preferred: Sequence[Sequence[int]], out: int) -> Result:
    """Has callers choose as Wool does."""
    servers = [Worker() for _ in range(workers)]
    callers = [Caller() for _ in preferred]
    for caller, order in zip(callers, preferred, strict=True):
        caller.order.extend(Link(caller, servers[number]) for number in order)
    return Simulation(servers, callers, Caller.choose).run(out)


def at_random(workers: int, callers: int, out: int) -> Result:
    """Has callers send each call to any worker."""
    servers = [Worker() for _ in range(workers)]
    everybody = [Caller(width=0) for _ in range(callers)]  # nothing is taken back
    known: dict[Caller, dict[int, Link]] = {caller: {} for caller in everybody}

    def choose(caller: Caller) -> Link:
        links = known[caller]
        number = random.randrange(workers)
        if number not in links:
            links[number] = Link(caller, servers[number])
            caller.order.append(links[number])
        return links[number]

    return Simulation(servers, everybody, choose).run(out)


def moved(preferred: Sequence[Sequence[int]], workers: int) -> float:
    """Returns how many of its first links a caller has to replace if 1 % of the workers leave."""
    gone = set(random.sample(range(workers), max(1, workers // 100)))
    return statistics.mean(sum(number in gone for number in order[:MANY]) for order in preferred)


HEADER = (
    "| calls out | workers busy | connections of a worker | of a caller | calls a worker did | "
    "waiting for a worker |\n"
    "| ---: | ---: | --- | --- | --- | --- |"
)


def row(result: Result, workers: int, callers: int) -> str:
    """Describes a run."""

    def spread(values: Sequence[float], form: str = ".0f", factor: float = 1) -> str:
        ranked = sorted(values)
        middle, high = ranked[len(ranked) // 2], ranked[int(len(ranked) * 0.99)]
        return f"{middle * factor:{form}}, 99 %: {high * factor:{form}}"

    return (
        f"| {result.out * callers:,} on {workers:,} | {result.busy:.0%} | "
        f"{spread(result.connections)}, most {max(result.connections)} | "
        f"{spread(result.per_caller)} | {spread(result.done)} | "
        f"{spread(result.waits, factor=1000)} ms |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulates many callers of many workers.")
    parser.add_argument("--workers", type=int, default=10_000)
    parser.add_argument("--callers", type=int, default=1_000)
    parser.add_argument("--out", type=int, nargs="+", help="calls that each caller keeps out")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--svg", type=Path)
    asked = parser.parse_args()
    random.seed(asked.seed)
    scale = asked.workers / asked.callers / 10
    outs = asked.out or [max(1, round(out * scale)) for out in OUT]
    preferred = preferences(asked.workers, asked.callers, asked.seed)
    results = [simulate(asked.workers, preferred, out) for out in outs]
    print(HEADER)
    for result in results:
        print(row(result, asked.workers, asked.callers))
    other = at_random(asked.workers, asked.callers, outs[-2] if len(outs) > 1 else outs[0])
    print(f"\nEach call to a random worker instead:\n\n{HEADER}")
    print(row(other, asked.workers, asked.callers))
    print(f"\nlinks replaced if 1 % of the workers leave: {moved(preferred, asked.workers):.2f}")
    if asked.svg is not None:
        asked.svg.write_text(picture(results, other, asked.callers))


def picture(results: Sequence[Result], other: Result, callers: int) -> str:
    """Draws the results: connections of each worker, and how long calls wait for one."""
    names = [f"{result.out * callers:,} calls out" for result in results]
    connections = {name: result.connections for name, result in zip(names, results, strict=True)}
    busy = results[-2] if len(results) > 1 else results[0]
    load = {
        "as Wool chooses": [float(done) for done in busy.done],
        "at random": [float(done) for done in other.done],
    }
    waits = {
        "as Wool chooses": [1000 * wait for wait in busy.waits],
        "at random": [1000 * wait for wait in other.waits],
    }
    share = f"{busy.out * callers:,} calls out"
    return charts.stacked(
        [
            charts.histogram(connections, "connections of a worker", "workers"),
            charts.histogram(load, f"calls that a worker did ({share})", "workers"),
            charts.cumulative(waits, f"ms that a call waited for its worker ({share})", "calls"),
        ]
    )


if __name__ == "__main__":
    main()
