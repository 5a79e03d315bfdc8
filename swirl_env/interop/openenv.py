"""An environment of swirl-env behind OpenEnv's server and client (package ``openenv``, 0.10).

`make_app` serves it over WebSocket and HTTP, one episode per session; `SwirlEnvClient` is the typed client, and OpenEnv's
`GenericEnvClient` works too. An action is the model's text. The reward of an observation is None if its step has none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import numpy as np
from openenv.core import EnvClient  # pyright: ignore[reportMissingImports] -- installed where this module is used
from openenv.core.client_types import StepResult  # pyright: ignore[reportMissingImports]
from openenv.core.env_server.http_server import create_app  # pyright: ignore[reportMissingImports]
from openenv.core.env_server.interfaces import Environment  # pyright: ignore[reportMissingImports]
from openenv.core.env_server.types import Action, Observation, State  # pyright: ignore[reportMissingImports]

from swirl_env import types
from swirl_env.env import as_action, draw_task
from swirl_env.episodes.engine import Engine
from swirl_env.interop.summary import verdict_of


class SwirlAction(Action):
    """One whole message of the model."""

    text: str


class SwirlObservation(Observation):
    """The environment's reply; ``reward`` is None if the step has none, ``metadata["verdict"]["status"]`` says why."""

    text: str
    """The prompt at first, then ``QUERY -> RESULT`` or a correction, empty at the end."""
    ended: str | None = None
    """Answered, budget, length or error; None while the episode goes on."""
    correct: bool | None = None
    """Whether the final answer is right; None while the episode goes on, or without a gold answer."""


class SwirlState(State):
    """Where an episode is."""

    task_id: str = ""
    steps_left: int = 0
    rewards: list[float | None] = []
    """Reward of each step so far, None for steps that have none."""


class SwirlEnvironment(Environment):
    """One session: one episode at a time.

    Args:
        engine: the environment; all sessions share it.
    """

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine
        self._episode_id = ""
        self._at: types.State | None = None
        self._over = True

    def reset(
        self, seed: int | None = None, episode_id: str | None = None, task_id: str | None = None, **kwargs: Any
    ) -> SwirlObservation:
        """Begins an episode.

        Args:
            seed: draws the task, as ``env.reset(seed=...)`` does.
            episode_id: name of the episode; by default a new one.
            task_id: picks the task instead.
            **kwargs: options of other environments; none are known here.

        Raises:
            TypeError: for an unknown option.
        """
        if kwargs:
            raise TypeError(f"reset takes seed, episode_id and task_id; got {', '.join(sorted(kwargs))}.")
        self.close()
        with _lock:
            self._at = draw_task(self._engine, np.random.default_rng(seed), task_id)
        self._episode_id, self._over = episode_id or str(uuid4()), False
        return SwirlObservation(text=self._at.turns[0].text, metadata={"task_id": self._at.task.id})

    def step(self, action: SwirlAction, timeout_s: float | None = None, **kwargs: Any) -> SwirlObservation:
        """Takes one action.

        Raises:
            RuntimeError: without an episode going on.
        """
        if self._at is None or self._over:
            raise RuntimeError("Call reset before step: there is no episode going on.")
        with _lock:
            (transition,) = self._engine.step([self._at], [as_action(action.text)])
        self._at, self._over = transition.state, transition.ended is not None
        step, outcome = transition.step, transition.outcome
        verdict = types.Verdict("unscored") if step is None else step.verdict
        return SwirlObservation(
            text="" if step is None else step.observation,
            done=self._over,
            reward=verdict.reward,
            ended=transition.ended,
            correct=None if outcome is None else outcome.correct,
            metadata={"verdict": verdict_of(verdict)},
        )

    @property
    def state(self) -> SwirlState:
        """Where the episode is."""
        at = self._at
        if at is None:
            return SwirlState()
        return SwirlState(
            episode_id=self._episode_id,
            step_count=len(at.steps),
            task_id=at.task.id,
            steps_left=at.steps_left,
            rewards=[step.verdict.reward for step in at.steps],
        )

    def close(self) -> None:
        """Closes the sessions of tools that the episode has open."""
        if self._at is not None:
            with _lock:
                self._engine.abandon([self._at])


class SwirlEnvClient(EnvClient[SwirlAction, SwirlObservation, SwirlState]):
    """The typed client: ``async with SwirlEnvClient(base_url=...) as env``, or ``.sync()`` for plain calls."""

    def _step_payload(self, action: SwirlAction | str) -> dict[str, Any]:
        return {"text": action if isinstance(action, str) else action.text}

    def _parse_result(self, payload: dict[str, Any]) -> StepResult[SwirlObservation]:
        reward, done = payload.get("reward"), bool(payload.get("done"))
        observation = SwirlObservation(**{**payload["observation"], "reward": reward, "done": done})
        return StepResult(observation=observation, reward=reward, done=done)

    def _parse_state(self, payload: dict[str, Any]) -> SwirlState:
        return SwirlState(**payload)


def make_app(make_engine: Callable[[], Engine], max_concurrent_envs: int = 64) -> Any:
    """Returns the server as an ASGI application, for ``uvicorn``.

    Args:
        make_engine: returns the environment; called once, its index and tools are shared by all sessions.
        max_concurrent_envs: most sessions at once.
    """
    engine = make_engine()
    return create_app(
        lambda: SwirlEnvironment(engine),
        SwirlAction,
        SwirlObservation,
        env_name="swirl_env",
        max_concurrent_envs=max_concurrent_envs,
    )


_lock = threading.Lock()
"""Sessions run in threads of their own, and tools are called from one at a time."""
