"""What an algorithm works with: rollouts of the current policy, judged actions, updates, and what all of it cost.

A run lives in a folder: ``metrics.jsonl`` (a line an update), ``timing.jsonl``, ``checkpoints/``. Everything drawn at random
follows from the run's seed and the number of the update, so a killed run that goes on from its last checkpoint ends with the
same weights and the same metrics.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from accelerate.utils import gather_object
from numpy.typing import ArrayLike

from swirl_env.agents.transformers import TransformersAgent
from swirl_env.algos.batch import TokenStep
from swirl_env.algos.run_files import RunFiles
from swirl_env.algos.trainer import Trainer
from swirl_env.episodes.rollout import collect
from swirl_env.errors import ConfigError
from swirl_env.protocols import needs_results
from swirl_env.seeding import episode_seed
from swirl_env.store import Store
from swirl_env.types import State, Step, Trajectory
from swirl_env.vector import ToolVectorEnv

Evaluate = Callable[[TransformersAgent], dict[str, float]]
"""Measures the policy; its figures go into the metrics."""


class Algorithm(Protocol):
    """A way to train a policy; its options are its constructor's."""

    def train(self, run: Run) -> None:
        """Trains until ``run.done``."""
        ...


@dataclass(slots=True)
class Spent:
    """What a run has cost so far."""

    sampled_tokens: int = 0
    """Tokens drawn from the policy: rollouts and resampled actions, not evaluation."""
    trained_tokens: int = 0
    """Tokens computed in the forward passes of updates."""
    judge_calls: int = 0
    """Steps given to the judge."""
    episodes: int = 0
    updates: int = 0
    questions: int = 0
    """Questions drawn so far; the next rollouts begin there."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a run ends: at whichever comes first; 0 for no limit."""

    sampled_tokens: int = 0
    updates: int = 0


class Run:
    """One training run.

    Args:
        agent: the policy as an agent; it generates with the very weights that `trainer` updates.
        venv: questions, tools and judge of the rollouts.
        trainer: makes the updates.
        folder: where metrics and checkpoints go.
        limits: when to stop.
        seed: seed of everything drawn at random.
        stored: trajectories to train on beside own rollouts (demonstrations, say).
        evaluate: measures the policy; called every `eval_every` updates and at the end.
        eval_every: updates between evaluations; 0 for the end alone.
        marks: counts of sampled tokens at whose crossing `at_mark` is called, after the update that crosses them; its time is
            left out of ``timing.jsonl``.
        at_mark: told the mark.
        save_every: updates between checkpoints; 0 for none.
        resume: go on from the last checkpoint in the folder, if there is one.
        report: told each update's metrics, in the main process (for a progress bar, a tracker).
    """

    def __init__(
        self,
        agent: TransformersAgent,
        venv: ToolVectorEnv,
        trainer: Trainer,
        folder: Path,
        limits: Limits,
        *,
        seed: int = 0,
        stored: Sequence[Trajectory] = (),
        evaluate: Evaluate | None = None,
        eval_every: int = 0,
        marks: Sequence[int] = (),
        at_mark: Callable[[int], None] | None = None,
        save_every: int = 0,
        resume: bool = False,
        report: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.agent, self.venv, self.trainer = agent, venv, trainer
        self.folder, self.limits, self.seed = Path(folder), limits, seed
        self.stored = list(stored)
        self.spent = Spent()
        self._evaluate, self._eval_every, self._save_every = evaluate, eval_every, save_every
        self._marks, self._at_mark = sorted(marks), at_mark
        self._report, self._block = report, 1
        self._began = time.monotonic()
        self._main = trainer.accelerator.is_main_process
        self.files = RunFiles(self.folder, trainer)
        held = self.files.load() if resume else None
        if held is None:
            self.files.begin()
        else:
            self.spent = Spent(**held)
        self._marked = self.spent.sampled_tokens

    @property
    def done(self) -> bool:
        """Whether a limit has been reached."""
        limits, spent = self.limits, self.spent
        out_of_tokens = limits.sampled_tokens and spent.sampled_tokens >= limits.sampled_tokens
        return bool((out_of_tokens and spent.updates % self._block == 0) or (limits.updates and spent.updates >= limits.updates))

    def updates(self, until: int | None = None, block: int = 1) -> Iterator[int]:
        """Yields the numbers of the updates to come, from where the run stands, until a limit or update `until`.

        Args:
            until: where to stop, limits aside.
            block: updates that belong together: tokens sampled for all of them are trained on before the run ends for want
                of more.
        """
        self._block = block
        while not self.done and (until is None or self.spent.updates < until):
            number = self.spent.updates
            yield number
            if self.spent.updates == number:
                return  # nothing was trained: the algorithm has run out of signal or of states

    def rng(self, *what: int) -> np.random.Generator:
        """Returns a generator for a purpose, the same whenever the run comes back to it."""
        return np.random.default_rng([self.seed, *what])

    def rollouts(self, questions: int, samples: int = 1) -> list[Trajectory]:
        """Returns finished episodes of the current policy on the next questions, `samples` on each.

        Each process runs its share; all get all. The questions come in order and begin anew when they run out.
        """
        engine, first = self.venv.engine, self.spent.questions
        tasks = engine.tasks
        if questions > len(tasks):
            raise ConfigError(f"{questions} questions were asked for at a time, but there are only {len(tasks)}.")
        order = [(first + i) % len(tasks) for i in range(questions)]
        share = _Chosen(tasks, order[self._rank :: self._world])
        seed = episode_seed(self.seed, f"rollouts/{self.spent.updates}", first)
        with self._generating():
            mine = list(
                collect(
                    self.agent,
                    engine.with_tasks(share),
                    len(share) * samples,
                    self.venv.num_envs,
                    seed,
                    samples=samples,
                    name=self.agent.name,
                )
            )
        found: list[Trajectory] = gather_object(mine) if self._world > 1 else mine
        place = {tasks[i].id: n for n, i in enumerate(order)}
        found.sort(key=lambda t: (place[t.task.id], t.sample))
        self.spent.questions = first + questions
        self.spent.episodes += len(found)
        self._count([step for t in found for step in t.steps])
        return found

    def recall(self, name: str, start: int, make: Callable[[], list[Trajectory]]) -> list[Trajectory]:
        """Returns what `make` gives at update `start`, or what it gave then, where the run was resumed after it.

        Args:
            name: what it is called in the run's ``rollouts`` folder.
            start: the update before which it is made.
            make: makes it with the weights of that moment.
        """
        folder = self.folder / "rollouts" / name
        if self.spent.updates > start:
            return list(Store(folder, "r"))
        found = make()
        if self._main:
            shutil.rmtree(folder, ignore_errors=True)
            with Store(folder) as store:
                for trajectory in found:
                    store.append(trajectory)
        return found

    def resample(self, states: Sequence[State], samples: int) -> list[list[Step]]:
        """Returns judged actions of the current policy at frozen states: for each state, `samples` steps.

        Steps of an action that failed (a state that the model cannot hold) have unscored verdicts and no tokens.
        """
        mine = range(self._rank, len(states), self._world)
        asked = [_reseeded(states[i], self.seed, self.spent.updates, k) for i in mine for k in range(samples)]
        with self._generating():
            actions = self.agent.act(asked)
        tools = needs_results(self.venv.engine.judge)
        steps = self.venv.engine.rate(asked, actions, tools=tools)
        pairs = [(i, steps[n * samples : (n + 1) * samples]) for n, i in enumerate(mine)]
        pairs = gather_object(pairs) if self._world > 1 else pairs
        found = [group for _, group in sorted(pairs, key=lambda pair: pair[0])]
        self._count([step for group in found for step in group])
        return found

    def update(self, steps: Sequence[TokenStep], advantages: ArrayLike, valid: ArrayLike, **said: float) -> None:
        """Makes one update and writes its metrics.

        Args:
            steps: N steps of the global batch, those of an episode together; each process trains on its share.
            advantages: [N].
            valid: [N] bool.
            **said: what the algorithm wants in the metrics beside the trainer's.
        """
        gain, usable = np.asarray(advantages, dtype=np.float64), np.asarray(valid, dtype=np.bool_)
        mine = [i for i, step in enumerate(steps) if step.episode % self._world == self._rank]
        metrics = self.trainer.update([steps[i] for i in mine], gain[mine], usable[mine])
        self.spent.trained_tokens += int(metrics.pop("tokens"))
        self.spent.updates += 1
        row = {"update": self.spent.updates, **metrics, **said, **_counts(self.spent)}
        if self._evaluate is not None and (self.done or self._due(self._eval_every)):
            row |= self.evaluate()
        self.files.write("metrics.jsonl", row)
        self.files.write("timing.jsonl", {"update": self.spent.updates, "seconds": round(time.monotonic() - self._began, 3)})
        self._pass_marks()
        if self._due(self._save_every):
            self.files.save(asdict(self.spent))
        if self._report is not None and self._main:
            self._report(row)

    def evaluate(self) -> dict[str, float]:
        """Returns what `evaluate` measures now; costs nothing of the budget, nor of the seconds in ``timing.jsonl``."""
        begun = time.monotonic()
        with self._generating():
            found = {} if self._evaluate is None else self._evaluate(self.agent)
        self._began += time.monotonic() - begun
        return found

    def _pass_marks(self) -> None:
        begun, now = time.monotonic(), self.spent.sampled_tokens
        for mark in self._marks:
            if self._at_mark is not None and self._marked < mark <= now:
                self._at_mark(mark)
        self._marked = now
        self._began += time.monotonic() - begun

    @property
    def _rank(self) -> int:
        return int(self.trainer.accelerator.process_index)

    @property
    def _world(self) -> int:
        return int(self.trainer.accelerator.num_processes)

    def _due(self, every: int) -> bool:
        return every > 0 and self.spent.updates % every == 0

    def _generating(self) -> _Evaluating:
        return _Evaluating(self.agent.model)

    def _count(self, steps: Sequence[Step]) -> None:
        self.spent.sampled_tokens += sum(len(step.action.token_ids) for step in steps)
        self.spent.judge_calls += 0 if self.venv.engine.judge is None else len(steps)


class _Chosen:
    """Some of the questions of a task source."""

    def __init__(self, tasks: Any, order: Sequence[int]) -> None:
        self._tasks, self._order = tasks, order
        self.corpus, self.split = tasks.corpus, tasks.split
        self.tools, self.max_steps = tasks.tools, tasks.max_steps

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> Any:
        return self._tasks[self._order[index]]


class _Evaluating:
    """Puts a model into evaluation mode for a while (no dropout while it generates)."""

    def __init__(self, model: Any) -> None:
        self._model, self._training = model, model.training

    def __enter__(self) -> None:
        self._model.eval()

    def __exit__(self, *_: object) -> None:
        self._model.train(self._training)


def _reseeded(state: State, seed: int, update: int, sample: int) -> State:
    """Returns the state with a seed of its own, so that the samples at it differ."""
    return State(
        state.task, state.settings, state.turns, state.steps,
        episode_seed(seed, f"{state.seed}/{update}", sample), state.chars,
    )  # fmt: skip


def _counts(spent: Spent) -> dict[str, int]:
    return {field.name: getattr(spent, field.name) for field in fields(Spent) if field.name != "updates"}
