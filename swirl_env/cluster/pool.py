"""A pool of workers on a Ray cluster: each item is done once, whatever becomes of the workers.

The driver holds a bounded number of items per worker. Those of a worker that is lost (killed, out of memory, its node gone) go to
another one, and a new worker takes its place. A result counts only from the worker to which its item is assigned, so nothing
that a lost worker may have sent counts twice.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator
from types import ModuleType, TracebackType
from typing import Any, Self

from swirl_env.cluster.actor import Actor, Reply, Work
from swirl_env.cluster.settings import ClusterOptions
from swirl_env.errors import ConfigError, MissingExtra, PluginError

log = logging.getLogger(__name__)

MAX_LOSSES = 5
"""So many workers lost one after the other, without a finished item in between, end the run."""
CALLS = 2
"""Calls under way per worker: while the driver reads the reply to one, the worker is busy with the other."""
_PATIENCE_S = 30.0
"""After so long without any worker the driver says what it is waiting for."""


class _Member:
    """A worker as the driver sees it."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.items: dict[int, Any] = {}
        """Items that are assigned to it, by number."""
        self.calls = 0
        self.pid = 0
        """Of its process, once it has been built."""


class Pool:
    """Workers that share a stream of items. A context manager: leaving it ends the workers.

    Args:
        options: how many workers, where, and what each needs.
        make: builds the work, in each worker; it travels there by pickle.

    Raises:
        MissingExtra: if Ray is not installed.
        ConfigError: if the cluster cannot be reached, or the work cannot be built in a worker.
    """

    def __init__(self, options: ClusterOptions, make: Callable[[], Work]) -> None:
        self._ray = _import_ray()
        self._options, self._make = options, make
        self._owned = not self._ray.is_initialized()
        self._members: set[_Member] = set()
        self._under_way: dict[Any, _Member] = {}
        """Calls whose replies have not come."""
        self._description: object = None
        self._losses = 0
        self.lost = 0
        """How many workers were lost."""
        try:
            if self._owned:
                _connect(self._ray, options)
            for _ in range(options.workers):
                self._hire()
            while self._description is None:
                self._wait()
        except BaseException:
            self.close()
            raise

    @property
    def description(self) -> Any:
        """What the work says of itself, the same in all workers."""
        return self._description

    @property
    def pids(self) -> list[int]:
        """The processes of the workers that have been built."""
        return [member.pid for member in list(self._members) if member.pid]

    def run(self, items: Iterator[tuple[int, Any]], backlog: int, chunk: int = 1) -> Iterator[tuple[int, Any]]:
        """Yields the results of all items, each with its item's number, as they come.

        Args:
            items: pairs of a number, different for each, and a content that can be pickled; read as the workers need them.
            backlog: most items that a worker has at once.
            chunk: most items in one message.

        Raises:
            PluginError: if a worker's work fails for good, or workers are lost again and again.
        """
        again: deque[tuple[int, Any]] = deque()
        ended = False

        def following() -> tuple[int, Any] | None:
            nonlocal ended
            item = again.popleft() if again else next(items, None)
            ended = item is None
            return item

        while True:
            for member in [member for member in self._members if member.pid]:
                self._feed(member, following, backlog, chunk)
            if ended and not again and not any(member.items for member in self._members):
                return
            for member, results in self._wait():
                if results is None:
                    again.extend(member.items.items())
                    continue
                for number, result in results:
                    del member.items[number]
                    self._losses = 0
                    yield number, result

    def _feed(self, member: _Member, following: Callable[[], tuple[int, Any] | None], backlog: int, chunk: int) -> None:
        """Keeps a worker busy: hands it items, and asks for results."""
        while member.calls < CALLS:
            batch: list[tuple[int, Any]] = []
            while len(batch) < chunk and len(member.items) < backlog and (item := following()) is not None:
                batch.append(item)
                member.items[item[0]] = item[1]
            if not member.items:
                return
            self._call(member, member.actor.exchange.remote(batch))

    def _hire(self) -> None:
        """Starts a worker; `_wait` sees it join."""
        needs = {"num_cpus": self._options.cpus, "num_gpus": self._options.gpus, "max_restarts": 0, "max_task_retries": 0}
        member = _Member(self._ray.remote(Actor).options(**needs).remote())
        self._members.add(member)
        path = [entry for entry in sys.path if os.path.isabs(entry)]
        self._call(member, member.actor.build.remote(self._make, path, os.getcwd()))

    def _call(self, member: _Member, call: Any) -> None:
        member.calls += 1
        self._under_way[call] = member

    def _wait(self) -> list[tuple[_Member, list[tuple[int, Any]] | None]]:
        """Waits for a reply; returns results by worker, None for a worker that was lost."""
        patience = None if any(member.pid for member in self._members) else _PATIENCE_S
        ready, _ = self._ray.wait(list(self._under_way), num_returns=1, timeout=patience)
        if not ready:
            self._say_what_is_missing()
            return []
        more, _ = self._ray.wait(list(self._under_way), num_returns=len(self._under_way), timeout=0)
        replies: list[tuple[_Member, list[tuple[int, Any]] | None]] = []
        for call in [*ready, *(call for call in more if call not in ready)]:
            member = self._under_way.pop(call, None)
            if member is None or member not in self._members:
                continue  # of a worker that was lost meanwhile
            member.calls -= 1
            reply = self._read(call, member)
            if reply is None:
                replies.append((member, None))
            elif member.pid:
                replies.append((member, reply.value))
            else:
                self._join(member, reply)
        return replies

    def _read(self, call: Any, member: _Member) -> Reply | None:
        """Returns a reply; None if the worker is lost."""
        errors = self._ray.exceptions
        try:
            reply: Reply = self._ray.get(call)
        except (errors.RayTaskError, errors.RuntimeEnvSetupError) as error:
            cause = getattr(error, "cause", None) or error
            raise PluginError(f"A worker failed: {type(cause).__name__}: {cause!s:.500}") from error
        except errors.RayError as error:
            self._lose(member, error)
            return None
        if reply.error is not None:
            raise PluginError(reply.error) if member.pid else ConfigError(f"A worker cannot do this work: {reply.error}")
        return reply

    def _join(self, member: _Member, reply: Reply) -> None:
        """Takes a worker in that has been built."""
        if self._description is not None and reply.value != self._description:
            raise ConfigError(
                f"The workers differ: one is made for {reply.value}, another for {self._description}. Install the same versions "
                f"of swirl-env and of its plugins, and the same data, on all nodes."
            )
        member.pid, self._description = reply.pid, reply.value

    def _lose(self, member: _Member, error: Exception) -> None:
        """Replaces a worker that is lost; its items stay with it for the caller to take."""
        self._members.discard(member)
        self._ray.kill(member.actor)  # if it is only out of reach, what it still sends must not count
        self.lost += 1
        self._losses += 1
        if self._losses >= MAX_LOSSES:
            raise PluginError(
                f"{self._losses} workers were lost one after the other before any of them finished anything; the last one: "
                f"{' '.join(str(error).split())[:300]} Look for an item that needs too much memory, and give each worker more "
                f"(fewer cluster.workers, fewer slots)."
            )
        log.warning("a worker was lost, another takes its %d items", len(member.items))
        self._hire()

    def _say_what_is_missing(self) -> None:
        has, options = self._ray.cluster_resources(), self._options
        print(
            f"waiting for a worker with {options.cpus:g} CPUs and {options.gpus:g} GPUs; the cluster has {has.get('CPU', 0):g} "
            f"CPUs and {has.get('GPU', 0):g} GPUs in all",
            file=sys.stderr,
        )

    def close(self) -> None:
        """Ends the workers, and Ray if the pool has started it."""
        for member in self._members:
            self._ray.kill(member.actor)
        self._members, self._under_way = set(), {}
        if self._owned:
            self._ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@functools.cache
def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingExtra("cluster=ray needs 'ray'. Install it with: pip install 'swirl-env[ray]'") from error
    return ray


def _connect(ray: ModuleType | Any, options: ClusterOptions) -> None:
    """Joins the cluster, or starts one of this machine with room for the workers."""
    address = options.address or os.environ.get("RAY_ADDRESS") or None
    if address:
        _check_reachable(address)
    new = {} if address else {"num_cpus": max(1, options.workers * options.cpus), "include_dashboard": False}
    try:
        ray.init(address=address or "local", logging_level=logging.ERROR, **new)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(f"No Ray cluster at {address or 'this machine'}: {' '.join(str(error).split())[:300]}") from error


def _check_reachable(address: str) -> None:
    """Refuses an address at which nothing listens: Ray itself tries for minutes."""
    host, colon, port = address.rpartition("//")[2].rpartition(":")
    if not (colon and port.isdecimal()):
        return  # "auto"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"No Ray cluster at {address}: {error}. Start one there (ray start --head), or leave cluster.address out to start "
            f"Ray on this machine."
        ) from error
