"""Environments for TRL's `environment_factory`: the tools of an engine as methods, one episode from `reset` to `reset`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

from msgspec.structs import replace

from swirl_env.env import as_engine, find_task
from swirl_env.episodes.engine import Engine
from swirl_env.episodes.failures import Failures
from swirl_env.episodes.guarded import run_judge
from swirl_env.episodes.transcript import clean, result_of, subtrajectories
from swirl_env.episodes.transition import Transition
from swirl_env.episodes.values import task_at
from swirl_env.errors import ConfigError, unknown_name
from swirl_env.interop.trl.methods import tool_method
from swirl_env.interop.trl.turns import Call, Message, Turns, call_text, calls_of, join_turns, policy_messages, text_step
from swirl_env.protocols import Judge, OffersFunctions
from swirl_env.registry import Spec
from swirl_env.seeding import episode_seed
from swirl_env.types import Action, Answer, Ended, State, Step, Trajectory

Reward = Literal["steps", "outcome"]
"""What `get_reward` returns: the sum of the steps' rewards, or 1.0 for a right answer and 0.0 for any other ending."""

FORMAT = "native"
"""The action format in which a model's chat template offers the tools, as TRL has it."""
OVER = "The episode is over. Write nothing more."


class ToolEnvironment:
    """One rollout at a time, as `trl.GRPOTrainer` plays it: each public method but `reset` and `get_reward` is a tool.

    `make_environments` makes the class for a task, with the methods of its tools. The judge is asked once an episode is over,
    when its reward is wanted; `StepGRPOTrainer` asks for all episodes of a batch together.
    """

    _engine: ClassVar[Engine]
    """Plays the episodes; it has no judge."""
    _tools: ClassVar[frozenset[str]]
    """The methods that are tools, the answer included."""
    _judge: ClassVar[Judge | None]
    _reward: ClassVar[Reward]
    _seed: ClassVar[int]
    _samples: ClassVar[Counter[str]]
    """How often each task was begun in this process."""
    _failures: ClassVar[Failures]

    def __init__(self) -> None:
        self._state: State | None = None
        self._sample = 0
        self._end: Transition | None = None
        self._calls: list[Call] = []
        """What the steps so far came from."""
        self._stray: Step | None = None
        """A last message that neither called nor answered."""
        self._trajectory: Trajectory | None = None
        self._judged = False

    def reset(self, *, task_id: str | None = None, **row: Any) -> str:
        """Begins an episode on the task of a dataset's row; returns its prompt.

        Raises:
            ConfigError: if the row names no task.
            UnknownName: if there is no task with that id.
            PluginError: if a tool or the grader has failed everywhere.
        """
        if task_id is None:
            raise ConfigError(
                f"A row of the dataset names its task in the column task_id (the rollouts of one row are compared); this one has "
                f"the columns {', '.join(sorted(row)) or 'none'}. Make the dataset of swirl_env.interop.trl.rows(environments)."
            )
        self._engine.raise_permanent()
        if self._state is not None:
            self._engine.abandon([self._state])
        task = find_task(self._engine.tasks, task_id)
        self._sample = _of_all_processes(self._samples[task.id])
        self._samples[task.id] += 1
        self._state = self._engine.begin(task, episode_seed(self._seed, task.id, self._sample))
        self._end, self._stray, self._trajectory, self._judged = None, None, None, False
        self._calls = []
        return self._state.turns[0].text

    def get_reward(self) -> float | None:
        """Returns the reward of the episode; None if a verdict, or the outcome, that it is made of is missing."""
        judge_episodes([self])
        trajectory = self._record()
        if self._reward == "outcome":
            correct = trajectory.outcome.correct
            return None if correct is None else float(correct)
        rewards = [step.verdict.reward for step in trajectory.steps]
        known = [reward for reward in rewards if reward is not None]
        return sum(known, 0.0) if len(known) == len(rewards) else None

    def _call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Takes one step, a call of a tool or the answer; returns what the policy reads of it."""
        if self._end is not None:
            return OVER
        self._act(call_text(name, arguments))
        self._calls.append((name, arguments))
        return result_of(self._current().steps[-1]) if self._end is None else OVER

    def _act(self, text: str) -> None:
        (transition,) = self._engine.step([self._current()], [Action(clean(text))])
        self._state = transition.state
        if transition.ended is not None:
            self._end = transition

    def _current(self) -> State:
        if self._state is None:
            raise ConfigError("There is no episode going on; call reset(task_id=...) first.")
        return self._state

    def _finish(self, completion: Sequence[Message]) -> list[list[int]]:
        """Ends the episode with all that the policy wrote.

        Args:
            completion: the messages of the rollout, as TRL's reward functions get them.

        Returns:
            For each message of the policy the places of its steps in the trajectory; none for a message after the end.
        """
        messages = policy_messages(completion)
        if messages and completion[-1] is messages[-1] and self._end is None:
            self._finish_last(messages)
        steps = [*self._current().steps, *([self._stray] if self._stray else [])]
        turns = join_turns(messages, self._calls, steps, self._end is not None, self._engine.format.parse)
        self._trajectory = self._recorded(turns)
        most = len(self._trajectory.steps)
        return [[place for place in own if place < most] for own in turns.owned]

    def _finish_last(self, messages: Sequence[Message]) -> None:
        """Takes the steps of the last message: calls that TRL's own limit left out, or a text that calls nothing."""
        if calls := list(calls_of(messages[-1])):
            if len(self._calls) == sum(self._runs(call) for message in messages[:-1] for call in calls_of(message)):
                for name, arguments in filter(self._runs, calls):
                    self._call(name, arguments)
            return
        text, parse = clean(str(messages[-1].get("content") or "")), self._engine.format.parse
        if isinstance(parse(text), Answer):
            self._act(text)
        else:  # what TRL read no call in is none, whatever our own format would read in it
            self._stray = text_step(text, parse)

    def _runs(self, call: Call) -> bool:
        """Returns whether TRL runs a call when its turn comes."""
        return call[0] in self._tools and isinstance(call[1], Mapping)

    def _recorded(self, turns: Turns) -> Trajectory:
        """Returns the record of the episode; what goes beyond its budget is left out."""
        state, steps = self._current(), tuple(turns.steps[: self._engine.settings.max_steps])
        ended: Ended = "budget"
        outcome = self._engine.unanswered(state.task)
        if self._end is not None and self._end.ended is not None and len(steps) == len(turns.steps):
            ended, outcome = self._end.ended, self._end.outcome or outcome
        if self._end is None:
            self._engine.abandon([state])
        prompt = state.turns[0].text
        return Trajectory(state.task, state.settings, prompt, steps, ended, outcome, self._sample, state.seed, "trl")

    def _record(self) -> Trajectory:
        """Returns the record of the episode, which is cut short if it has not ended."""
        if self._trajectory is None:
            self._trajectory = self._recorded(Turns(list(self._current().steps), []))
            self._end = self._end or Transition(self._current(), None, "budget", self._trajectory.outcome)
        return self._trajectory


def _of_all_processes(sample: int) -> int:
    """Returns the number of a process's n-th sample among those of all processes of a launcher."""
    return sample * int(os.environ.get("WORLD_SIZE", "1")) + int(os.environ.get("RANK", "0"))


def judge_episodes(environments: Sequence[ToolEnvironment]) -> None:
    """Judges the steps of episodes that have no verdicts yet, all in one call per judge.

    Raises:
        PluginError: if a judge fails on every step of whole batches in a row.
    """
    by_class: dict[type[ToolEnvironment], list[ToolEnvironment]] = {}
    for environment in environments:
        if environment._judge is not None and not environment._judged:
            by_class.setdefault(type(environment), []).append(environment)
    for kind, members in by_class.items():
        steps = [sub for member in members for sub in subtrajectories(member._record())]
        assert kind._judge is not None
        verdicts = iter(run_judge(kind._judge, steps, failures=kind._failures))
        if kind._failures.permanent is not None:
            raise kind._failures.permanent
        for member in members:
            record = member._record()
            judged = tuple(replace(step, verdict=next(verdicts)) for step in record.steps)
            member._trajectory, member._judged = replace(record, steps=judged), True


def make_environments(
    tasks: Spec, *, reward: Reward = "steps", seed: int = 0, name: str = "", **options: Any
) -> type[ToolEnvironment]:
    """Returns a class of environments for ``GRPOTrainer(environment_factory=...)``.

    Args:
        tasks: name, mapping, task source or list of tasks; or an `Engine` with ``format="native"``.
        reward: what `get_reward` returns: ``steps`` (sum of the step rewards) or ``outcome`` (1.0 for a right answer, else 0.0).
        seed: seed of the episodes.
        name: name of the class, under which TRL logs the reward; by default that of the task source.
        **options: of the engine (see `swirl_env.env.build_engine`): ``tools``, ``judge``, ``max_steps``, ``split``...

    Raises:
        ConfigError: for another action format, or a tool that cannot be a method.
    """
    if reward not in get_args(Reward):
        raise unknown_name("reward", str(reward), get_args(Reward))
    if not isinstance(tasks, Engine):
        options = {"format": FORMAT, **options}
    engine = as_engine(tasks, options)
    if engine.settings.format != FORMAT:
        raise ConfigError(f"TRL offers tools by the chat template, so the format is {FORMAT!r}; got {engine.settings.format!r}.")
    members: dict[str, Any] = {
        "_engine": engine.without_judge(),
        "_judge": engine.judge,
        "_reward": reward,
        "_seed": seed,
        "_samples": Counter(),
        "_failures": Failures(f"the judge {type(engine.judge).__name__}", engine.judge),
        "__doc__": ToolEnvironment.__doc__,
    }
    assert isinstance(engine.format, OffersFunctions)
    functions = engine.format.functions(list(engine.tools.values()))
    methods = {str(offered["function"]["name"]): tool_method(offered["function"]) for offered in functions}
    members["_tools"] = frozenset(methods)
    return type(name or type(engine.tasks).__name__, (ToolEnvironment,), {**members, **methods})


def rows(environments: type[ToolEnvironment], n: int | None = None) -> list[dict[str, Any]]:
    """Returns rows of a dataset, one per task: ``datasets.Dataset.from_list(rows(environments))``.

    The prompt is left to `ToolEnvironment.reset`.

    Args:
        environments: what `make_environments` returned.
        n: the first n tasks; None takes all.
    """
    tasks = environments._engine.tasks
    many = len(tasks) if n is None else min(n, len(tasks))
    return [{"prompt": [{"role": "user", "content": ""}], "task_id": task_at(tasks, i).id} for i in range(many)]
