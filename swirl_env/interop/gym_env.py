"""Other people's Gymnasium environments whose observations and actions are texts, as tasks: ``task=gym task.env=my_pkg/Game-v0``.

Each task is a start of the environment, told by a seed; its question is the first observation. The tool `act` sends an action
and shows the next observation. An episode ends when the environment ends, and everything else works as for any other task:
steps are stored, judged (the judge `env_reward` hands out the environment's own rewards) and credited.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import gymnasium as gym
from gymnasium.spaces import Text

from swirl_env.errors import ConfigError, PluginError, printable
from swirl_env.spaces import UnicodeText
from swirl_env.tasks.generated import GeneratedTasks, check_whole
from swirl_env.tasks.names import Split
from swirl_env.types import Outcome, SubTrajectory, Task, ToolCall, ToolResult, Verdict

MakeEnv = Callable[[], gym.Env[Any, Any]]
PROMPT = """\
{instructions}You act in an environment, step by step. Each of your messages holds one action. Think first where that helps, \
then write one of these:
{forms}
{results} and you go on from there. You have {steps} in all. The episode ends by itself; a final answer gives it up.

{examples}{question}"""
"""The prompt for such tasks (``prompt=environment``): there is no question to answer."""

_OVER = ToolResult("The episode is over.", "invalid")
_makers: dict[str, tuple[MakeEnv, float | None]] = {}
"""Name of an environment in this process -> what makes one, and the return from which on an episode counts as solved.

A task names its environment; what it names has been made here, by the user's own configuration, and is never imported.
"""
_numbers = itertools.count()


class GymTasks(GeneratedTasks):
    """Starts of a Gymnasium environment with text observations and text actions.

    Args:
        env: id that `gymnasium.make` knows (``my_package:Game-v0`` imports the package first), or a function that returns one.
        options: options of `gymnasium.make`.
        split: ``train``, ``validation`` or ``test``: other seeds.
        size: how many starts there are.
        seed: which starts.
        max_steps: the most actions per episode.
        solved_at: total reward from which on an episode that has ended counts as solved; None takes the ``reward_threshold`` of
            the environment's registration. Without either, episodes have no outcome, and step rewards alone.

    Raises:
        ConfigError: if it is no environment with texts.
    """

    tools = ("act",)

    def __init__(
        self,
        env: str | MakeEnv,
        options: Mapping[str, Any] | None = None,
        split: Split = "train",
        size: int = 1_000,
        seed: int = 0,
        max_steps: int = 20,
        solved_at: float | None = None,
    ) -> None:
        check_whole(seed=seed, max_steps=max_steps)
        self.max_steps = max_steps
        own = dict(options or {})
        if callable(env):
            if own:
                raise ConfigError(f"options are those of gymnasium.make; a function has its own. Got {', '.join(own)}.")
            make, name = env, f"{getattr(env, '__name__', type(env).__name__)}-{next(_numbers)}"
        else:
            make, name = _registered(env, own), env
        probe = _probe(make, name)
        if solved_at is None and probe.spec is not None and probe.spec.reward_threshold is not None:
            solved_at = float(probe.spec.reward_threshold)
        probe.close()
        shape = {"env": name, "options": sorted(own.items()), "seed": seed, "solved_at": solved_at}
        super().__init__("gym", 1, size, split, shape, {})
        self.environment = self._prefix
        _makers[self.environment] = (make, solved_at)
        self.grader = GivenUp(solved_at is not None)
        self._first = lru_cache(maxsize=1_024)(self._first_observation)

    def draw(self, rng: Any, task_id: str) -> Task:
        """Returns the start that `rng` decides."""
        seed = rng.randrange(2**31)
        return Task(task_id, self._first(seed), None, meta={"environment": self.environment, "seed": seed, "split": self.split})

    def _first_observation(self, seed: int) -> str:
        env = _makers[self.environment][0]()
        try:
            observation, _ = env.reset(seed=seed)
        finally:
            env.close()
        return _text(observation)


class GivenUp:
    """Grades episodes that did not reach the end of their environment: not solved, if one can be.

    Args:
        solvable: whether it is known from which return on an episode is solved.
    """

    def __init__(self, solvable: bool) -> None:
        self._solved = False if solvable else None

    def grade(self, tasks: Sequence[Task], answers: Sequence[str]) -> list[bool | None]:
        """Returns False, or None if nothing is known of solving, for each answer."""
        return [self._solved] * len(tasks)


class EnvironmentTool:
    """Sends actions to the environment of a task (see `GymTasks`)."""

    tag = "act"
    description = "sends an action to the environment; write the action alone."

    def open(self, task: Task, seed: int) -> EnvironmentSession | NoEnvironment:
        """Returns a running environment at the start that the task tells."""
        name = task.meta.get("environment")
        if not isinstance(name, str) or name not in _makers:
            return NoEnvironment()
        make, solved_at = _makers[name]
        return EnvironmentSession(make, int(task.meta["seed"]), solved_at)


class NoEnvironment:
    """What a task has that no environment of this process belongs to, because its task source was not made here."""

    def run(self, queries: Sequence[str]) -> list[ToolResult]:
        """Returns the same error for each action."""
        return [ToolResult("No environment belongs to this question.", "unavailable") for _ in queries]

    def fork(self) -> NoEnvironment:
        """Returns the session, which holds nothing."""
        return self

    def close(self) -> None:
        """Has nothing to close."""


class EnvironmentSession:
    """One running environment. It can be forked if it does the same again for the same seed and actions."""

    def __init__(self, make: MakeEnv, seed: int, solved_at: float | None) -> None:
        self._make, self._seed, self._solved_at = make, seed, solved_at
        self._env = make()
        self._actions: list[str] = []
        self._observation = _text(self._env.reset(seed=seed)[0])
        self._total = 0.0
        self.outcome: Outcome | None = None
        """How the episode ended; None while it goes on."""

    def run(self, queries: Sequence[str]) -> list[ToolResult]:
        """Returns what follows each action; ``data`` has its ``reward``, ``terminated`` and ``truncated``."""
        return [self._step(action) for action in queries]

    def _step(self, action: str) -> ToolResult:
        if self.outcome is not None:
            return _OVER
        if not self._env.action_space.contains(action):
            return ToolResult(f"This is no action of the environment; expected {self._env.action_space}.", "invalid")
        observation, reward, terminated, truncated, _ = self._env.step(action)
        self._actions.append(action)
        self._observation = _text(observation)
        self._total += float(reward)
        if terminated or truncated:
            solved = None if self._solved_at is None else self._total >= self._solved_at
            self.outcome = Outcome(None, solved, None)
        data = {"reward": float(reward), "terminated": bool(terminated), "truncated": bool(truncated)}
        return ToolResult(self._observation, None, data)

    def fork(self) -> EnvironmentSession:
        """Returns another environment in the same state: one to which the same actions were sent.

        Raises:
            PluginError: if that led to another state.
        """
        twin = EnvironmentSession(self._make, self._seed, self._solved_at)
        twin.run(self._actions)
        if (twin._observation, twin._total, twin.outcome) != (self._observation, self._total, self.outcome):
            twin.close()
            raise PluginError(
                "The environment did something else when the same actions were sent to it again from the same seed, so an "
                "episode in it cannot branch. Draw all randomness from the seed of reset()."
            )
        return twin

    def close(self) -> None:
        """Closes the environment."""
        self._env.close()


class EnvRewardJudge:
    """The reward that a tool reports for a call (``data["reward"]``), such as that of a Gymnasium environment.

    Args:
        scale: factor on it.
        malformed: reward of an action that calls nothing; None leaves it without a verdict, and out of the loss.
    """

    pure = True
    needs_results = True
    spent: Mapping[str, int] = {}
    """It asks no model."""

    def __init__(self, scale: float = 1.0, malformed: float | None = None) -> None:
        for name, value in (("scale", scale), ("malformed", 0.0 if malformed is None else malformed)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ConfigError(f"{name} is a finite number; got {value!r:.40}.")
        self._scale, self._malformed = scale, malformed

    def judge(self, steps: Sequence[SubTrajectory]) -> list[Verdict]:
        """Returns one verdict per step."""
        return [self._one(step) for step in steps]

    def _one(self, step: SubTrajectory) -> Verdict:
        if not isinstance(step.call, ToolCall) or (step.result is not None and step.result.error == "invalid"):
            if self._malformed is None:
                return Verdict.unscored("The action never reached the environment.", "env_reward")
            return Verdict("scored", float(self._malformed), None, "The action never reached the environment.", "env_reward")
        reward = None if step.result is None else step.result.data.get("reward")
        if isinstance(reward, bool) or not isinstance(reward, int | float) or not math.isfinite(reward):
            return Verdict.failed("The result of the call holds no reward.", "env_reward")
        return Verdict("scored", self._scale * reward, None, "", "env_reward")


def _registered(env: str, options: Mapping[str, Any]) -> MakeEnv:
    def make() -> gym.Env[Any, Any]:
        return gym.make(env, **options)

    return make


def _probe(make: MakeEnv, name: str) -> gym.Env[Any, Any]:
    """Returns an environment after a look at its spaces.

    Raises:
        ConfigError: if it cannot be made, or observations or actions are no texts.
    """
    try:
        env = make()
    except Exception as error:
        raise ConfigError(
            f"The environment {name!r} could not be made: {type(error).__name__}: {printable(str(error)[:300])}"
        ) from error
    for what in ("observation", "action"):
        space = getattr(env, f"{what}_space", None)
        if not isinstance(space, Text | UnicodeText):
            env.close()
            raise ConfigError(
                f"The {what}s of the environment {name!r} are no texts: its {what}_space is {space!r:.80}. Wrap it so that both "
                f"spaces are gymnasium.spaces.Text."
            )
    return env


def _text(observation: object) -> str:
    """Returns an observation.

    Raises:
        TypeError: if it is no text.
    """
    if not isinstance(observation, str):
        raise TypeError(f"expected a text as observation, got {type(observation).__name__}")
    return observation
