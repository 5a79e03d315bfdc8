"""Rollouts of agents that are asked one state at a time: every slot works, however long the slowest reply takes.

The agent's event loop runs in a thread of its own, so that requests in flight go on while tools and judges run here.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future

from swirl_env.episodes.acting import GuardedAgent
from swirl_env.episodes.engine import Engine
from swirl_env.errors import plugin_failure
from swirl_env.protocols import AsyncAgent
from swirl_env.types import State, Trajectory


def run_async(
    guarded: GuardedAgent, engine: Engine, slots: int, waiting: Iterator[tuple[State, int]], name: str
) -> Iterator[Trajectory]:
    """Yields finished episodes as they end; episodes whose reply has come go on while others wait for theirs.

    Args:
        guarded: an async agent; asked for one action at a time, up to `slots` at once.
        engine: takes the steps; those whose replies came meanwhile are taken together.
        slots: how many episodes are in flight at once.
        waiting: first states of the episodes to run, each with its sample number; asked again whenever a slot is free.
        name: recorded as the trajectories' agent.
    """
    agent = guarded.agent
    assert isinstance(agent, AsyncAgent)
    replies: queue.SimpleQueue[tuple[State, int, Future[object]]] = queue.SimpleQueue()
    pending: dict[Future[object], State] = {}
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="swirl-rollout", daemon=True)
    thread.start()

    def ask(state: State, sample: int) -> None:
        future = asyncio.run_coroutine_threadsafe(_act(agent, state), loop)
        pending[future] = state
        future.add_done_callback(lambda done: replies.put((state, sample, done)))

    def refill() -> None:
        while len(pending) < slots and (fresh := next(waiting, None)) is not None:
            ask(*fresh)

    try:
        refill()
        while pending:
            batch = [replies.get()]
            while not replies.empty():
                batch.append(replies.get())
            for _, _, future in batch:
                del pending[future]
            states = [state for state, _, _ in batch]
            transitions = engine.step(states, guarded.sort(states, [future.result() for _, _, future in batch]))
            engine.raise_permanent()
            for transition, (_, sample, _) in zip(transitions, batch, strict=True):
                if transition.ended is None:
                    ask(transition.state, sample)
            refill()
            for transition, (_, sample, _) in zip(transitions, batch, strict=True):
                if transition.ended is not None:
                    yield engine.trajectory(transition, sample, name)
            refill()
    finally:
        engine.abandon(pending.values())
        _shut_down(agent, loop, thread, pending)


async def _act(agent: AsyncAgent, state: State) -> object:
    """Returns the agent's action, or what it raises (`GuardedAgent` sorts them)."""
    try:
        return await agent.act_one(state)
    except BaseException as error:
        return plugin_failure(error)


def _shut_down(
    agent: AsyncAgent, loop: asyncio.AbstractEventLoop, thread: threading.Thread, pending: Iterable[Future[object]]
) -> None:
    """Cancels what is in flight, closes the agent's connections in this loop, and ends the loop."""
    for future in pending:
        future.cancel()

    async def end() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        await agent.aclose()

    asyncio.run_coroutine_threadsafe(end(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
