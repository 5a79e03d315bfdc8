"""The environment: `gym.make("swirl_env/HotpotQA-v0", tools=["search"], judge="rules", max_steps=5)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded

from swirl_env.episodes.engine import Engine
from swirl_env.episodes.prompts import Prompt, PromptFunction
from swirl_env.episodes.transition import Transition
from swirl_env.episodes.values import task_at
from swirl_env.errors import ConfigError, UnknownName, unknown_name
from swirl_env.protocols import FindsTasks, TaskSource
from swirl_env.registry import Spec, load, make, make_tasks, options
from swirl_env.spaces import UnicodeText
from swirl_env.texts import Text
from swirl_env.types import Action, History, State, Task, Verdict

MAX_ACTION_CHARS = 1_000_000
"""Longest action that the action space holds; reading one is linear in its length."""


def build_engine(
    tasks: Spec,
    tools: Sequence[Spec] | None = None,
    judge: Spec | None = "rules",
    max_steps: int | None = None,
    *,
    format: str = "xml",
    history: History = "full",
    prompt: Prompt | PromptFunction = "full",
    instructions: Text = "",
    examples: Text = "",
    max_chars: int = 100_000,
    grader: Spec | Callable[[Task, str], bool | None] | None = None,
    **task_options: Any,
) -> Engine:
    """Returns the engine of an environment from names, mappings or ready objects (see `Engine`).

    Args:
        tasks: name, mapping, `TaskSource` or list of `Task`s.
        tools: tools on offer; None takes what the task source names.
        judge: name, mapping or `Judge`; None for no rewards.
        max_steps: the most actions per episode; None takes the task source's.
        format: action format.
        history: ``full`` or ``calls``.
        prompt: ``full``, ``question``, a text or file that contains ``{question}``, a function, or the name of one of these.
        instructions: text for the beginning of the prompt; or a file or a name (see `swirl_env.texts`).
        examples: worked examples for the place before the question, likewise.
        max_chars: longest state in characters.
        grader: name, mapping or object that judges final answers in place of the task's own grading; or a function.
        **task_options: options of the task source (``split=``, ``data_dir=``...).
    """
    if task_options:
        _check_task_options(tasks, task_options)
    source: TaskSource = make_tasks(tasks, **task_options) if task_options else make("task", tasks)
    return Engine(
        source,
        tools,
        judge,
        max_steps,
        format=format,
        history=history,
        prompt=prompt,
        instructions=instructions,
        examples=examples,
        max_chars=max_chars,
        grader=grader,
    )


def _check_task_options(tasks: Spec, asked: Mapping[str, Any]) -> None:
    """Refuses options that neither the environment nor its task source takes, with the names of both."""
    own = [name for name in options(build_engine) if name not in ("tasks", "task_options")] + ["render_mode"]
    if not isinstance(tasks, str | Mapping):
        raise ConfigError(
            f"Options {sorted(asked)} are none of the environment's ({', '.join(sorted(own))}); they could belong to a task "
            f"source made by name, but tasks is an object."
        )
    name = tasks if isinstance(tasks, str) else str(tasks.get("name"))
    accepted = options(load("task", name))
    if any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
        return
    for option in asked:
        if option not in accepted:
            raise unknown_name(f"option of an environment with the task {name!r}", option, {*own, *accepted})


def as_engine(tasks: Spec, options: Mapping[str, Any]) -> Engine:
    """Returns `tasks` if it is an engine, else a new engine over it (see `build_engine`)."""
    if not isinstance(tasks, Engine):
        return build_engine(tasks, **options)
    if options:
        raise ConfigError(f"An engine has its options already; got {', '.join(sorted(options))} as well.")
    return tasks


def check_render_mode(render_mode: str | None) -> None:
    """Refuses what no environment of ours can render."""
    if render_mode not in (None, "ansi"):
        raise ConfigError(f"render_mode is 'ansi' or None; got {render_mode!r}.")


def reset_options(asked: Mapping[str, Any] | None, *known: str) -> Mapping[str, Any]:
    """Returns the options of a reset.

    Raises:
        UnknownName: for an option that `reset` does not take.
    """
    for option in asked or {}:
        if option not in known:
            raise unknown_name("option of reset", str(option), known)
    return asked or {}


def draw_task(engine: Engine, rng: np.random.Generator, task_id: str | None) -> State:
    """Returns the first state of an episode: the named task, or one drawn with `rng`.

    Raises:
        ConfigError: if the task source is empty.
        UnknownName: if it has no task with that id.
    """
    if not len(engine.tasks):
        raise ConfigError("The task source holds no tasks, so no episode can begin. Check its file, split and limit.")
    index = int(rng.integers(len(engine.tasks)))
    seed = int(rng.integers(2**63 - 1))
    task = task_at(engine.tasks, index) if task_id is None else find_task(engine.tasks, task_id)
    return engine.begin(task, seed)


def find_task(tasks: TaskSource, task_id: str) -> Task:
    """Returns the task with an id: by the source's own `find` (see `FindsTasks`), else by a search through all tasks.

    Raises:
        UnknownName: if there is none.
    """
    if not isinstance(task_id, str):
        raise ConfigError(f"A task_id is the text of `Task.id`; got {task_id!r}.")
    if isinstance(tasks, FindsTasks):
        task: Task | None = tasks.find(task_id)
    else:
        task = next((t for t in map(tasks.__getitem__, range(len(tasks))) if t.id == task_id), None)
    if task is None:
        raise UnknownName(f"No task has the id {task_id!r}; the first of these {len(tasks)} is {tasks[0].id!r}.")
    return task


def tuple_reward(transition: Transition) -> float:
    """Returns the number for the five-tuple: the verdict's reward, or 0.0 if it has none (see ``info["verdict"]``)."""
    step = transition.step
    return 0.0 if step is None or step.verdict.reward is None else step.verdict.reward


def step_info(engine: Engine, transition: Transition) -> dict[str, Any]:
    """Returns ``info``: call, result, verdict and state; at the end also ended, outcome and trajectory.

    A wrapper that cuts episodes short, such as Gymnasium's `TimeLimit`, leaves no trajectory:
    `swirl_env.rollout.cut_short` makes one of ``info["state"]``.
    """
    step = transition.step
    info: dict[str, Any] = {
        "call": step.call if step else None,
        "result": step.result if step else None,
        "verdict": step.verdict if step else Verdict("unscored"),
        "state": transition.state,
    }
    if transition.ended is not None:
        info["ended"] = transition.ended
        info["outcome"] = transition.outcome
        info["trajectory"] = engine.trajectory(transition)
    return info


def as_action(action: str | Action) -> Action:
    """Returns plain text as an action."""
    if type(action) is str:
        return Action(action)
    if type(action) is Action:
        return action
    if not isinstance(action, str):
        raise ConfigError(f"An action is text, or a swirl_env.types.Action; got {action!r:.80}.")
    return Action(action)


class ToolUseEnv(gym.Env[str, str]):
    """A question, tools to work on it, and a reward on every step.

    The observation is the environment's reply alone (the prompt at first, then ``QUERY -> RESULT`` or a correction, ``""``
    at the end); the whole state is `state`. The reward is the judge's verdict on this very step. ``terminated`` means
    answered, ``truncated`` that the step budget or the state length was used up (or an agent's error ended the episode).

    Args:
        tasks: name, mapping or `TaskSource`.
        render_mode: ``"ansi"``: `render` returns the episode so far with rewards and critiques.
        **options: see `build_engine`.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}

    def __init__(self, tasks: Spec, *, render_mode: str | None = None, **options: Any) -> None:
        check_render_mode(render_mode)
        self.engine = as_engine(tasks, options)
        self.observation_space = UnicodeText(self.engine.settings.max_chars)
        self.action_space = UnicodeText(MAX_ACTION_CHARS)
        self.render_mode = render_mode
        self.state: State | None = None
        """The current state, for agents (``agent.act([env.unwrapped.state])``); None before `reset`."""
        self._over = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begins an episode.

        Args:
            seed: seeds everything drawn at random.
            options: ``{"task_id": id}`` picks the task; otherwise one is drawn.

        Returns:
            The prompt, and ``{"task_id": id}``.
        """
        super().reset(seed=seed)
        self.close()
        self.state = draw_task(self.engine, self.np_random, reset_options(options, "task_id").get("task_id"))
        self._over = False
        return self.state.turns[0].text, {"task_id": self.state.task.id}

    def step(self, action: str | Action) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Takes one action: plain text, or an `Action` that keeps its token ids for training.

        Returns:
            Observation, reward, terminated, truncated, info (see `step_info`).
        """
        if self.state is None or self._over:
            raise ResetNeeded("Call reset() before step(): there is no episode going on.")
        (transition,) = self.engine.step([self.state], [as_action(action)])
        self.state = transition.state
        self._over = transition.ended is not None
        observation = transition.step.observation if transition.step else ""
        terminated = transition.ended == "answered"
        return (
            observation,
            tuple_reward(transition),
            terminated,
            self._over and not terminated,
            step_info(self.engine, transition),
        )

    def close(self) -> None:
        """Closes the sessions of tools that the current episode has open; `reset` begins another one."""
        if self.state is not None:
            self.engine.abandon([self.state])

    def render(self) -> str | None:
        """Returns the episode so far as text (``render_mode="ansi"``)."""
        if self.render_mode is None:
            return None
        from swirl_env.episodes.terminal import render_state

        return "" if self.state is None else render_state(self.state)
