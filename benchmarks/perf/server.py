"""How busy the `openai` agent keeps a server that takes 100 ms ± 80 ms per call, with 16 calls in flight.

The server is a process of its own: ``python -m swirl_env.benchmarks.perf.server`` prints its port and serves until its
standard input ends.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import resource
import subprocess
import sys
from collections.abc import Iterator
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

    The baseline is the time in which 16 workers do the same calls without a pause: the calls' own times, summed, over 16. It
    includes no end at which some workers have nothing left to do, so 1 is out of reach (0.95 on average for these times).

    Args:
        size: episodes per round.
        rounds: how often they run, after one that is not counted.
    """
    tasks = [Task(f"q{i}", f"What is {i} + {i}?", str(2 * i)) for i in range(size)]
    engine = build_engine(tasks, tools=["calculator"], judge="outcome", prompt="question", max_steps=STEPS)
    delays = _delays()
    walls: list[int] = []
    ideals, processor = [], []
    with _served() as url:
        agent: Any = make_agent("openai", model="none", base_url=url, api_key_env="SWIRL_NO_KEY", concurrency=IN_FLIGHT)
        for _ in range(rounds + 1):
            before = _processor_ns()
            with stopwatch(walls):
                calls = sum(len(trajectory.steps) for trajectory in collect(agent, engine, size, max(size, IN_FLIGHT)))
            processor.append((_processor_ns() - before) / calls)
            ideals.append(1e9 * sum(itertools.islice(delays, calls)) / IN_FLIGHT)
        agent.close()
    ratio = sum(ideals[1:]) / sum(walls[1:])
    fields = {"baseline": f"{IN_FLIGHT} workers that never wait", "ratio": ratio, "bar": f"at least {BAR} x"}
    rows = (
        row(f"{size} episodes of {STEPS} steps", walls[1:], "s", met=ratio >= BAR, **fields),
        row("processor time of the client per call", processor[1:], "ms"),
    )
    about = f"a server of {SHORTEST_S * 1e3:.0f} to {LONGEST_S * 1e3:.0f} ms per call, {IN_FLIGHT} in flight"
    return Report("server", about, rows)


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
