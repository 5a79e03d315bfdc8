"""n environments with one tool call and one judge call per step (``vectorization_mode="vector_entry_point"``).

Step for step it gives what n single environments with the same seeds give under Gymnasium's `SyncVectorEnv`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from swirl_env.env import (
    MAX_ACTION_CHARS,
    as_action,
    as_engine,
    check_render_mode,
    draw_task,
    reset_options,
    step_info,
)
from swirl_env.episodes.engine import Engine
from swirl_env.episodes.terminal import render_state
from swirl_env.episodes.transition import Transition
from swirl_env.errors import ConfigError, unknown_name
from swirl_env.registry import Spec
from swirl_env.spaces import UnicodeText
from swirl_env.types import Action, State

Batch = tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]


class ToolVectorEnv(VectorEnv[tuple[str, ...], Sequence[str | Action], NDArray[Any]]):
    """n tool-use episodes in lockstep.

    Args:
        tasks: name, mapping or `TaskSource`.
        num_envs: number of episodes.
        autoreset_mode: Gymnasium's: reset with the next step (default), within the same step, or never.
        render_mode: ``"ansi"`` or None.
        **options: see `swirl_env.env.build_engine`.
    """

    metadata: dict[str, Any] = {
        "render_modes": ["ansi"],
        "render_fps": 1,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        tasks: Spec,
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(num_envs, int) or isinstance(num_envs, bool) or num_envs < 1:
            raise ConfigError(f"num_envs is a whole number of at least 1; got {num_envs!r:.40}.")
        modes = [mode.value for mode in AutoresetMode]
        if autoreset_mode not in (*AutoresetMode, *modes):
            raise unknown_name("autoreset_mode", str(autoreset_mode), modes)
        check_render_mode(render_mode)
        self.engine = as_engine(tasks, options)
        self.num_envs = num_envs
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = render_mode
        self.single_observation_space: gym.Space[Any] = UnicodeText(self.engine.settings.max_chars)
        self.single_action_space: gym.Space[Any] = UnicodeText(MAX_ACTION_CHARS)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._states: list[State | None] = [None] * num_envs
        self._rngs: list[np.random.Generator | None] = [None] * num_envs
        self._observations = [""] * num_envs
        self._over = np.zeros(num_envs, dtype=np.bool_)

    @property
    def states(self) -> list[State]:
        """The n current states, for agents: ``venv.step(agent.act(venv.states))``."""
        if any([state is None for state in self._states]):
            raise ResetNeeded("Call reset() first: there are no episodes going on.")
        return list(self._states)  # type: ignore[arg-type]

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[tuple[str, ...], dict[str, Any]]:
        """Begins n episodes.

        Args:
            seed: one seed per environment, or one number s for s, s + 1, ...
            options: ``task_id`` (one for all, or one per environment), ``reset_mask`` ([n] bool; the others go on).
        """
        known = reset_options(options, "task_id", "reset_mask")
        if isinstance(seed, bool | float | str | bytes):
            raise ConfigError(f"seed is a whole number, or one for each environment; got {seed!r:.40}.")
        if seed is None or isinstance(seed, int | np.integer):
            seed = [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        seeds = [None if one is None else int(one) for one in seed]
        task_id = known.get("task_id")
        several = isinstance(task_id, Sequence | np.ndarray) and not isinstance(task_id, str)
        ids: list[Any] = list(task_id) if several else [task_id] * self.num_envs  # type: ignore[arg-type]  # as was just seen
        mask = np.asarray(known.get("reset_mask", [True] * self.num_envs))
        if not len(seeds) == len(ids) == len(mask) == self.num_envs or mask.dtype != np.bool_:
            raise ConfigError(
                f"Expected one seed, one task_id and one reset_mask entry (a bool) for each of the {self.num_envs} "
                f"environments; got {len(seeds)}, {len(ids)} and {len(mask)} ({mask.dtype})."
            )
        infos = [self._begin(i, seeds[i], ids[i]) if begins else {} for i, begins in enumerate(mask.tolist())]
        return tuple(self._observations), info_columns(infos)

    def step(self, actions: Sequence[str | Action]) -> Batch:
        """Takes one action in each episode; see `ToolUseEnv.step` for the parts."""
        ordered = isinstance(actions, Sequence | np.ndarray) and not isinstance(actions, str | bytes)
        if not ordered or len(actions) != self.num_envs:
            got = len(actions) if ordered else "a single text" if isinstance(actions, str) else f"a {type(actions).__name__}"
            raise ConfigError(f"step takes {self.num_envs} actions, one per environment; got {got}.")
        rewards = [0.0] * self.num_envs
        terminated = np.zeros(self.num_envs, dtype=np.bool_)
        truncated = np.zeros(self.num_envs, dtype=np.bool_)
        restarted: dict[int, dict[str, Any]] = {}
        live = self._restart(restarted)
        states, observations = self.states, self._observations
        if len(live) < self.num_envs:
            states, actions = [states[i] for i in live], [actions[i] for i in live]
        moved = self.engine.step(states, [Action(a) if type(a) is str else as_action(a) for a in actions])
        acting = self._states
        for i, transition in zip(live, moved, strict=True):
            acting[i] = transition.state
            if (step := transition.step) is None:
                observations[i] = ""
            else:
                observations[i] = step.observation
                if (reward := step.verdict.reward) is not None:
                    rewards[i] = reward
            if transition.ended is not None:
                (terminated if transition.ended == "answered" else truncated)[i] = True
        self._over = terminated | truncated
        if self.autoreset_mode == AutoresetMode.SAME_STEP and self._over.any():
            infos = [step_info(self.engine, transition) for transition in moved]
            for i in np.flatnonzero(self._over).tolist():
                infos[i] = {"final_obs": observations[i], "final_info": infos[i], **self._begin(i)}
            columns = info_columns(infos)
        else:
            columns = step_columns(self.engine, moved, live, self.num_envs)
            columns |= info_columns([restarted.get(i, {}) for i in range(self.num_envs)]) if restarted else {}
        return tuple(observations), np.array(rewards), terminated, truncated, columns

    def _restart(self, infos: dict[int, dict[str, Any]]) -> list[int]:
        """Deals with episodes that ended in the step before, and fills in their infos; returns the indices that act now."""
        if not self._over.any():
            return list(range(self.num_envs))
        if self.autoreset_mode == AutoresetMode.DISABLED:
            raise ResetNeeded(f"Environments {np.flatnonzero(self._over).tolist()} are over; reset them with a reset_mask.")
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            return list(range(self.num_envs))
        live: list[int] = np.flatnonzero(~self._over).tolist()
        for i in np.flatnonzero(self._over).tolist():
            infos[i] = self._begin(i)
        return live

    def _begin(self, i: int, seed: int | None = None, task_id: str | None = None) -> dict[str, Any]:
        if (old := self._states[i]) is not None:
            self.engine.abandon([old])
        rng = self._rngs[i]
        if rng is None or seed is not None:
            rng = self._rngs[i] = seeding.np_random(seed)[0]
        state = self._states[i] = draw_task(self.engine, rng, task_id)
        self._observations[i] = state.turns[0].text
        self._over[i] = False
        return {"task_id": state.task.id}

    def close_extras(self, **kwargs: Any) -> None:
        """Closes the sessions of tools that the current episodes have open."""
        self.engine.abandon([state for state in self._states if state is not None])

    def render(self) -> tuple[str, ...] | None:
        """Returns the n episodes so far as text (``render_mode="ansi"``)."""
        return None if self.render_mode is None else tuple("" if s is None else render_state(s) for s in self._states)


def step_columns(engine: Engine, moved: Sequence[Transition], live: Sequence[int], n: int) -> dict[str, Any]:
    """Returns `info_columns` of the `step_info` of each transition, without a dict per episode, which costs twice the time.

    Args:
        engine: the engine.
        moved: a transition for each of the environments in `live`.
        live: their indices.
        n: number of environments.
    """
    if not moved:
        return {}
    if any([transition.step is None for transition in moved]):
        infos: list[dict[str, Any]] = [{}] * n
        for i, transition in zip(live, moved, strict=True):
            infos[i] = step_info(engine, transition)
        return info_columns(infos)
    steps: list[Any] = [transition.step for transition in moved]
    columns = _columns(
        live,
        n,
        call=[step.call for step in steps],
        result=[step.result for step in steps],
        verdict=[step.verdict for step in steps],
        state=[transition.state for transition in moved],
    )
    ended = [(i, transition) for i, transition in zip(live, moved, strict=True) if transition.ended is not None]
    if ended:
        columns |= _columns(
            [i for i, _ in ended],
            n,
            ended=[transition.ended for _, transition in ended],
            outcome=[transition.outcome for _, transition in ended],
            trajectory=[engine.trajectory(transition) for _, transition in ended],
        )
    return columns


def _columns(live: Sequence[int], n: int, **values: Sequence[Any]) -> dict[str, Any]:
    """Returns a column and a mask for each key, with the values of the environments in `live`."""
    columns: dict[str, Any] = {}
    for key, entries in values.items():
        if len(live) == n:
            columns[key] = np.fromiter(entries, dtype=object, count=n)
            columns["_" + key] = ~np.zeros(n, dtype=np.bool_)  # a third of the time of `np.ones`
            continue
        column = columns[key] = np.full(n, None, dtype=object)
        mask = columns["_" + key] = np.zeros(n, dtype=np.bool_)
        for i, value in zip(live, entries, strict=True):
            column[i] = value
            mask[i] = True
    return columns


def info_columns(infos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the infos of n environments as Gymnasium's columns: ``{key: [n] objects, "_" + key: [n] mask}``."""
    n = len(infos)
    columns: dict[str, Any] = {}
    for key in dict.fromkeys(itertools.chain.from_iterable(infos)):
        try:  # most keys are in every info: half the work
            values, mask = [info[key] for info in infos], np.ones(n, dtype=np.bool_)
        except KeyError:
            values = [info.get(key) for info in infos]
            mask = np.fromiter([key in info for info in infos], dtype=np.bool_, count=n)
        if type(values[mask.argmax()]) is dict:
            columns[key] = info_columns([value or {} for value in values])
        else:
            columns[key] = np.fromiter(values, dtype=object, count=n)
        columns["_" + key] = mask
    return columns
