"""Rollouts, judge calls and updates as events: who waits for whom, and what is busy.

Each episode is a process that asks for one thing after another: an action from a replica of the policy, the processor of its
worker, the tool, a verdict from a replica of the judge; at its end the driver. An update begins when its batch is complete.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import NamedTuple

from swirl_env.benchmarks.plan.hardware import Replica

Process = Generator[tuple["Station", "Work"], None, None]


class Work(NamedTuple):
    """A piece of work: a fixed time, and tokens to write, whose time depends on how many others write too."""

    seconds: float
    tokens: float = 0.0


def _fixed(work: Work, busy: int) -> float:
    return work.seconds


class Station:
    """Something of which there are `servers`, each doing one thing at a time; who comes when all are busy waits in line.

    Args:
        name: what it is.
        servers: how many.
        seconds: how long a piece of work takes, given how many servers are busy, itself included.
    """

    def __init__(self, name: str, servers: int, seconds: Callable[[Work, int], float] = _fixed) -> None:
        self.name, self.servers, self.seconds = name, servers, seconds
        self.line: deque[tuple[Process, Work]] = deque()
        self.busy = 0
        self.busy_s = 0.0
        """Time that its servers were busy, summed over them."""


class Clock:
    """The time, and what happens next."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Process, Station]] = []
        self._order = itertools.count()

    def start(self, process: Process) -> None:
        """Lets a process ask for its first thing."""
        request = next(process, None)
        if request is None:
            return
        station, work = request
        station.line.append((process, work))
        self._serve(station)

    def run(self, done: Callable[[], bool]) -> None:
        """Lets events happen until `done`, or nothing is left to happen."""
        while self._events and not done():
            self.now, _, process, station = heapq.heappop(self._events)
            station.busy -= 1
            self.start(process)
            self._serve(station)

    def _serve(self, station: Station) -> None:
        while station.line and station.busy < station.servers:
            process, work = station.line.popleft()
            station.busy += 1
            took = station.seconds(work, station.busy)
            station.busy_s += took
            heapq.heappush(self._events, (self.now + took, next(self._order), process, station))


@dataclass(frozen=True)
class Costs:
    """What this project's own code takes, in processor seconds; measured on one machine (see `measure`)."""

    env_step: float
    """Of a worker: parsing, tool, rules and record of a step."""
    call: float
    """Of a worker: the client of a request to a server."""
    episode: float
    """Of the driver: receiving, checking and storing an episode."""


@dataclass(frozen=True)
class Setup:
    """Machines, models and episodes of a run."""

    name: str
    policy: Replica
    policies: int
    """Replicas that generate."""
    judge: Replica | None
    judges: int
    trainer_gpus: int
    update_s: float
    """Seconds of an update, weights sent to the replicas included."""
    workers: int
    episodes: int
    """Per update."""
    staleness: int = 0
    """So many updates may be made between an episode's beginning and its training."""
    steps: int = 5
    prompt: int = 700
    action: int = 120
    result: int = 350
    """Tokens of the first state, of an action and of a tool's result."""
    verdict: int = 150
    tool_s: float = 0.005

    @property
    def tokens(self) -> float:
        """Of a whole episode."""
        return self.prompt + self.steps * (self.action + self.result)

    @property
    def gpus(self) -> int:
        """Devices in all."""
        judge = 0 if self.judge is None else self.judge.gpus * self.judges
        return self.policy.gpus * self.policies + judge + self.trainer_gpus


@dataclass(frozen=True)
class Outcome:
    """What a simulated run comes to."""

    seconds: float
    """Per update."""
    busy: dict[str, float]
    """Share of its servers that each station kept busy."""
    in_flight: int


class _Run:
    def __init__(self, setup: Setup, costs: Costs, updates: int, seed: int) -> None:
        self.setup, self.costs, self.updates = setup, costs, updates
        self.draws = random.Random(seed)
        self.clock = Clock()
        policy, judge = setup.policy, setup.judge
        self.generation = _replicas("generation", policy, setup.policies)
        self.judging = None if judge is None else _replicas("judging", judge, setup.judges)
        self.tools = Station("tools", 1_000_000)
        self.workers, self.driver = Station("workers", setup.workers), Station("driver", 1)
        self.training = Station("training", 1)
        self.begun = self.finished = self.trained = 0
        self.flying = self.most_flying = 0
        self.is_training = False

    def simulate(self) -> Outcome:
        self.fill()
        self.clock.run(lambda: self.trained >= self.updates)
        stations = [self.generation, self.judging, self.workers, self.driver, self.training]
        seconds = self.clock.now
        busy = {s.name: s.busy_s / s.servers / seconds for s in stations if s is not None}
        return Outcome(seconds / self.updates, busy, self.most_flying)

    def fill(self) -> None:
        """Begins the episodes that may begin: of the batch that is due, and of as many after it as staleness allows."""
        setup = self.setup
        room = setup.policy.slots * setup.policies + (0 if setup.judge is None else setup.judge.slots * setup.judges)
        allowed = (self.trained + 1 + setup.staleness) * setup.episodes
        while self.begun < min(allowed, self.updates * setup.episodes) and self.flying < room:
            self.begun += 1
            self.flying += 1
            self.most_flying = max(self.most_flying, self.flying)
            self.clock.start(self.episode())

    def episode(self) -> Process:
        setup, costs, draws = self.setup, self.costs, self.draws
        new = float(setup.prompt)
        for _ in range(max(1, round(draws.gauss(setup.steps, 1)))):
            # The length of an action is what makes one episode slower than another.
            yield self.generation, Work(setup.policy.read_s(new), setup.action * draws.gammavariate(2, 0.5))
            yield self.workers, Work(costs.env_step + costs.call * (1 if setup.judge is None else 2))
            yield self.tools, Work(draws.expovariate(1 / setup.tool_s))
            if self.judging is not None and setup.judge is not None:
                yield self.judging, Work(setup.judge.read_s(new + setup.action + setup.result), setup.verdict)
            new = float(setup.result)
        yield self.driver, Work(costs.episode)
        self.flying -= 1
        self.finished += 1
        self.train()
        self.fill()

    def train(self) -> None:
        if not self.is_training and self.finished >= (self.trained + 1) * self.setup.episodes:
            self.is_training = True
            self.clock.start(self.update())

    def update(self) -> Process:
        yield self.training, Work(self.setup.update_s)
        self.is_training = False
        self.trained += 1
        self.train()
        self.fill()


def _replicas(name: str, replica: Replica, count: int) -> Station:
    """Returns a station of all slots of all replicas; requests spread evenly over them (least-loaded)."""

    def seconds(work: Work, busy: int) -> float:
        return work.seconds + work.tokens * replica.write_s(-(-busy // count))

    return Station(name, replica.slots * count, seconds)


def simulate(setup: Setup, costs: Costs, updates: int = 12, seed: int = 0) -> Outcome:
    """Returns what a run of so many updates comes to."""
    return _Run(setup, costs, updates, seed).simulate()
