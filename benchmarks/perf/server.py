"""How busy the `openai` agent keeps a server that takes 100 ms ± 80 ms per call, with 16 calls in flight.

The server is a process of its own: ``python -m swirl_env.benchmarks.perf.server`` prints its port and serves until its
standard input ends.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import random
import resource
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from swirl_env.benchmarks.perf.timing import Report, row, stopwatch
from swirl_env.env import build_engine
from swirl_env.episodes.rollout import collect
from swirl_env.registry import make_agent
from swirl_env.types import CALCULATOR, Task

EPISODES, STEPS, IN_FLIGHT = 64, 4, 16
SHORTEST_S, LONGEST_S = 0.02, 0.18
BAR = 0.9


def server(size: int = EPISODES, rounds: int = 3) -> Report:
    """Measures episodes of four steps against a server that never fails.

    The baseline is the time that the same calls take if a client costs nothing: as soon as one of 16 calls ends the next one
    begins, and a call begins only when that of the step before has ended. At the end, some of the 16 have nothing left to do;
    that is part of the baseline, and the figure without it (the calls' own times, summed, over 16) is told as well.

    Args:
        size: episodes per round.
        rounds: how often they run, after one that is not counted.
    """
    tasks = [Task(f"q{i}", f"What is {i} + {i}?", str(2 * i)) for i in range(size)]
    engine = build_engine(tasks, tools=["calculator"], judge="outcome", prompt="question", max_steps=STEPS)
    delays = _delays()
    walls: list[int] = []
    ideals, busy, processor = [], [], []
    with _served() as url:
        agent: Any = make_agent("openai", model="none", base_url=url, api_key_env="SWIRL_NO_KEY", concurrency=IN_FLIGHT)
        for _ in range(rounds + 1):
            before = _processor_ns()
            with stopwatch(walls):
                calls = sum(len(trajectory.steps) for trajectory in collect(agent, engine, size, max(size, IN_FLIGHT)))
            processor.append((_processor_ns() - before) / calls)
            own = list(itertools.islice(delays, calls))
            ideals.append(1e9 * least_time(own, size, STEPS, IN_FLIGHT))
            busy.append(1e9 * sum(own) / IN_FLIGHT)
        agent.close()
    ratio, share = (sum(times[1:]) / sum(walls[1:]) for times in (ideals, busy))
    fields = {"baseline": "a client that costs nothing", "ratio": ratio, "bar": f"at least {BAR} x"}
    rows = (
        row(f"{size} episodes of {STEPS} steps", walls[1:], "s", met=ratio >= BAR, **fields),
        row("the calls' own times over those in flight", busy[1:], "s", baseline="(episodes)", ratio=1 / share),
        row("processor time of the client per call", processor[1:], "ms"),
    )
    about = f"a server of {SHORTEST_S * 1e3:.0f} to {LONGEST_S * 1e3:.0f} ms per call, {IN_FLIGHT} in flight"
    return Report("server", about, rows)


def least_time(delays: Sequence[float], episodes: int, steps: int, in_flight: int) -> float:
    """Returns how long episodes of some steps take if nothing but the calls takes time.

    Args:
        delays: seconds of each call, in the order in which calls begin.
        episodes: how many; the calls of one follow one another.
        steps: calls per episode.
        in_flight: most calls at a time; of those that could begin, the one that has waited longest does.
    """
    waiting = deque([steps] * episodes)  # calls left of each episode that could begin one
    running: list[tuple[float, int, int]] = []  # end, number, calls left
    now = 0.0
    for number, delay in enumerate(delays):
        if not waiting or len(running) == in_flight:
            now, _, left = heapq.heappop(running)
            waiting += [left] if left else []
        while not waiting:
            now, _, left = heapq.heappop(running)
            waiting += [left] if left else []
        heapq.heappush(running, (now + delay, number, waiting.popleft() - 1))
    return max((end for end, _, _ in running), default=0.0)


def _delays() -> Iterator[float]:
    """Yields the seconds that the server takes for its calls, in their order."""
    draws = random.Random(0)
    while True:
        yield draws.uniform(SHORTEST_S, LONGEST_S)


def _processor_ns() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return 1e9 * (used.ru_utime + used.ru_stime)


@contextmanager
def _served() -> Iterator[str]:
    """Runs the server; yields its base URL."""
    command = [sys.executable, "-m", "swirl_env.benchmarks.perf.server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            port = int(process.stdout.readline() if process.stdout else 0)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def _completion(request: dict[str, Any]) -> bytes:
    """Returns a reply: calculations, then an answer."""
    asked = sum(message["role"] == "assistant" for message in request["messages"])
    text = "<answer>4</answer>" if asked == STEPS - 1 else f"<{CALCULATOR}>{asked} + 1</{CALCULATOR}>"
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return json.dumps({"id": "c", "object": "chat.completion", "created": 0, "model": "none", "choices": [choice]}).encode()


async def _serve() -> None:
    delays = _delays()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
                request = json.loads(await reader.readexactly(length))
                await asyncio.sleep(next(delays))
                body = _completion(request)
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(converse, "127.0.0.1", 0)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve())
