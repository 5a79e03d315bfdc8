"""Who judges stored episodes: this process, or workers of a cluster, each with a judge of its own."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import NamedTuple, Protocol

from swirl_env.cluster import Pool
from swirl_env.config.options import JudgeOptions
from swirl_env.episodes.guarded import run_judge
from swirl_env.episodes.transcript import subtrajectories
from swirl_env.protocols import Judge
from swirl_env.registry import make_judge
from swirl_env.stages import runs
from swirl_env.store.codec import decode_trajectory, decode_verdicts, encode_trajectory, encode_verdicts
from swirl_env.types import Trajectory, Verdict


class Request(NamedTuple):
    """Episodes whose steps are judged in one batch."""

    trajectories: Sequence[Trajectory]
    places: Sequence[Sequence[int]]
    """Which steps of each episode are judged."""


Verdicts = list[list[Verdict]]
"""One verdict per place of each episode of a request."""


class Judging(Protocol):
    """Judges requests."""

    table: str
    """Name of the judge's table of verdicts."""

    def judge(self, requests: Iterator[Request]) -> Iterator[tuple[Request, Verdicts]]:
        """Yields each request with its verdicts, in any order."""
        ...


def open_judging(options: JudgeOptions) -> AbstractContextManager[Judging]:
    """Returns who judges."""
    return ClusterJudging(options) if options.cluster else nullcontext(LocalJudging(options))


def judge_request(judge: Judge, request: Request) -> Verdicts:
    """Returns the verdicts that a request asks for, from one call of the judge."""
    steps = []
    for trajectory, places in zip(request.trajectories, request.places, strict=True):
        wanted = set(places)
        steps += [step for place, step in enumerate(subtrajectories(trajectory)) if place in wanted]
    verdicts = iter(run_judge(judge, steps) if steps else [])
    return [list(islice(verdicts, len(places))) for places in request.places]


class LocalJudging:
    """Judges in this process.

    Args:
        options: which judge.
    """

    def __init__(self, options: JudgeOptions) -> None:
        self._judge = make_judge(options.judge)
        self.table = runs.table_name(options.judge, self._judge)

    def judge(self, requests: Iterator[Request]) -> Iterator[tuple[Request, Verdicts]]:
        """Yields each request with its verdicts, in order."""
        return ((request, judge_request(self._judge, request)) for request in requests)


class ClusterJudging(AbstractContextManager["ClusterJudging"]):
    """Has steps judged by the workers of a cluster.

    Args:
        options: which judge, and the cluster.
    """

    def __init__(self, options: JudgeOptions) -> None:
        self._pool = Pool(options.cluster, functools.partial(JudgeWork, options))
        self.table: str = self._pool.description

    def judge(self, requests: Iterator[Request]) -> Iterator[tuple[Request, Verdicts]]:
        """Yields each request with its verdicts, as the workers finish them."""
        under_way: dict[int, Request] = {}

        def items() -> Iterator[tuple[int, Packed]]:
            for number, request in enumerate(requests):
                under_way[number] = request
                yield number, ([encode_trajectory(trajectory) for trajectory in request.trajectories], request.places)

        for number, lines in self._pool.run(items(), backlog=2):
            yield under_way.pop(number), [list(decode_verdicts(line)) for line in lines]

    def __exit__(self, *error: object) -> None:
        self._pool.close()


Packed = tuple[list[bytes], Sequence[Sequence[int]]]
"""A request as it travels."""


class JudgeWork:
    """Judges in a worker: an item is a request, its result one line of verdicts per episode.

    Args:
        options: which judge.
    """

    def __init__(self, options: JudgeOptions) -> None:
        self._judge = make_judge(options.judge)
        self._table = runs.table_name(options.judge, self._judge)

    def description(self) -> str:
        """Returns the name of the judge's table."""
        return self._table

    def exchange(self, items: Sequence[tuple[int, Packed]]) -> list[tuple[int, list[bytes]]]:
        """Judges the requests."""
        return [(number, self._answer(*packed)) for number, packed in items]

    def _answer(self, lines: list[bytes], places: Sequence[Sequence[int]]) -> list[bytes]:
        request = Request([decode_trajectory(line) for line in lines], places)
        verdicts = judge_request(self._judge, request)
        return [encode_verdicts(t.key, of_one) for t, of_one in zip(request.trajectories, verdicts, strict=True)]
