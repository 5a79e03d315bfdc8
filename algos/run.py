"""What an algorithm works with: rollouts of the current policy, judged actions, updates, and their cost.

A run lives in a folder: ``metrics.jsonl`` (one line per update), ``timing.jsonl``, ``checkpoints/``. Everything drawn at random
follows from the run's seed and the number of the update, so a killed run that continues from its last checkpoint ends with the
same weights and the same metrics.
"""

from __future__ import annotations

import math
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
from swirl_env.algos.idle import Idleness, check_acted
from swirl_env.algos.measure import generating
from swirl_env.algos.ranges import check_count
from swirl_env.algos.run_files import RunFiles
from swirl_env.algos.run_logs import METRICS, TIMING
from swirl_env.algos.subset import Subset
from swirl_env.algos.trainer import Trainer
from swirl_env.episodes.engine import Engine
from swirl_env.episodes.rollout import collect
from swirl_env.errors import ConfigError
from swirl_env.protocols import needs_results
from swirl_env.seeding import episode_seed
from swirl_env.store import Store
from swirl_env.types import State, Step, Trajectory

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
    optimizer_steps: int = 0
    """Updates that taught the policy something; one whose advantages are all 0 does not."""
    skipped_updates: int = 0
    """Updates left out because loss or gradient was not finite."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a run ends: at whichever comes first; 0 for no limit."""

    sampled_tokens: int = 0
    updates: int = 0

    def __post_init__(self) -> None:
        check_count(0, sampled_tokens=self.sampled_tokens, updates=self.updates)
        if not self.sampled_tokens and not self.updates:
            raise ConfigError("Nothing would end the run: limit the sampled tokens or the updates.")


class Run:
    """One training run.

    Args:
        agent: the policy as an agent; it generates with the very weights that `trainer` updates.
        engine: questions, tools and judge of the rollouts.
        trainer: makes the updates.
        folder: where metrics and checkpoints go.
        limits: when to stop.
        slots: episodes in flight at once.
        seed: seed of everything drawn at random.
        stored: trajectories to train on apart from own rollouts (demonstrations, say).
        evaluate: measures the policy; called every `eval_every` updates and at the end, in every process.
        eval_every: updates between evaluations; 0 for the end alone.
        eval_at_tokens: evaluate after these many sampled tokens: `evaluate_at` is called after the update that reaches each.
        evaluate_at: called with the number of tokens, in every process; its time is left out of ``timing.jsonl``.
        save_every: updates between checkpoints; 0 for none.
        resume: continue from the last checkpoint in the folder, if there is one.
        report: called with each update's metrics, in the main process (for a progress bar, a tracker).

    Raises:
        ConfigError: if the policy samples from another distribution than the loss compares it with.
    """

    def __init__(
        self,
        agent: TransformersAgent,
        engine: Engine,
        trainer: Trainer,
        folder: Path,
        limits: Limits,
        *,
        slots: int = 64,
        seed: int = 0,
        stored: Sequence[Trajectory] = (),
        evaluate: Evaluate | None = None,
        eval_every: int = 0,
        eval_at_tokens: Sequence[int] = (),
        evaluate_at: Callable[[int], None] | None = None,
        save_every: int = 0,
        resume: bool = False,
        report: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        _check_ratios(agent, trainer)
        precision = trainer.accelerator.mixed_precision
        if agent.precision is None and precision in ("bf16", "fp16"):
            agent.precision = precision  # rollouts and training see one policy
        self.agent, self.engine, self.trainer, self.slots = agent, engine, trainer, slots
        self.folder, self.limits, self.seed = Path(folder), limits, seed
        self.stored = list(stored)
        self.spent = Spent()
        self._evaluate, self._eval_every, self._save_every = evaluate, eval_every, save_every
        self._eval_at_tokens, self._evaluate_at = sorted(eval_at_tokens), evaluate_at
        self._report, self._block = report, 1
        self._began = time.monotonic()
        self._main = trainer.accelerator.is_main_process
        self.files = RunFiles(self.folder, trainer)
        counters = self.files.load() if resume else None
        if counters is None:
            self.files.begin()
        else:
            self.spent = Spent(**counters)
        self._evaluated_at = self.spent.sampled_tokens
        self.ended = ""
        """Why the run ended before its limit; empty if it did not."""
        self._idleness = Idleness(engine.judge)

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
                self.stop("the algorithm made no update")
                return
        if self.done:
            self.finish()

    def stop(self, reason: str) -> None:
        """Ends the run before its limit, as there is nothing more to train on.

        Raises:
            TrainingError: if nothing was trained on at all.
        """
        self.ended = reason
        self.finish()

    def finish(self) -> None:
        """Checks that the run has trained on something; whoever calls an algorithm's `train` calls this after it.

        Raises:
            TrainingError: if no update changed the policy, with the reason.
        """
        spent = self.spent
        if not spent.optimizer_steps:
            cost = f"{spent.updates:,} updates, {spent.sampled_tokens:,} sampled tokens, {spent.judge_calls:,} judge calls"
            raise self._idleness.error(self.ended, cost)

    def rng(self, *what: int) -> np.random.Generator:
        """Returns a generator for a purpose, the same whenever the run comes back to it."""
        return np.random.default_rng([self.seed, *what])

    def rollouts(self, questions: int, samples: int = 1) -> list[Trajectory]:
        """Returns finished episodes of the current policy on the next questions, `samples` of each.

        Each process runs its share; all get all. The questions come in order and start over when they run out.
        """
        engine, first = self.engine, self.spent.questions
        tasks = engine.tasks
        if questions > len(tasks):
            raise ConfigError(f"{questions} questions were asked for at a time, but there are only {len(tasks)}.")
        order = [(first + i) % len(tasks) for i in range(questions)]
        share = Subset(tasks, order[self._rank :: self._world])
        seed = episode_seed(self.seed, f"rollouts/{self.spent.updates}", first)
        with generating(self.agent):
            mine = list(
                collect(
                    self.agent,
                    engine.with_tasks(share),
                    len(share) * samples,
                    self.slots,
                    seed,
                    samples=samples,
                    name=self.agent.name,
                )
            )
        trajectories: list[Trajectory] = gather_object(mine) if self._world > 1 else mine
        place = {tasks[i].id: n for n, i in enumerate(order)}
        trajectories.sort(key=lambda t: (place[t.task.id], t.sample))
        self.spent.questions = first + questions
        self.spent.episodes += len(trajectories)
        self._count([step for t in trajectories for step in t.steps])
        finished = [t for t in trajectories if t.ended != "error"]
        long = self.agent.max_context if any(t.ended == "length" for t in finished) else 0
        acted = [step.action for t in finished for step in t.steps]
        check_acted(acted, self.spent.updates + 1, too_long=long)
        return trajectories

    def load_or_generate(self, name: str, start: int, generate: Callable[[], list[Trajectory]]) -> list[Trajectory]:
        """Returns the trajectories generated before update `start`: stored ones if the run was resumed after it.

        Args:
            name: their folder in the run's ``rollouts`` folder.
            start: the update before which they are generated.
            generate: generates them with the weights of that moment.
        """
        folder = self.folder / "rollouts" / name
        if self.spent.updates > start:
            return list(Store(folder, "r"))
        trajectories = generate()
        if self._main:
            shutil.rmtree(folder, ignore_errors=True)
            with Store(folder) as store:
                for trajectory in trajectories:
                    store.append(trajectory)
        return trajectories

    def resample(self, states: Sequence[State], samples: int) -> list[list[Step]]:
        """Returns judged actions of the current policy at frozen states: for each state, `samples` steps.

        Steps of an action that failed (a state that the model cannot hold) have unscored verdicts and no tokens.
        """
        mine = range(self._rank, len(states), self._world)
        repeated = [_with_seed(states[i], self.seed, self.spent.updates, k) for i in mine for k in range(samples)]
        with generating(self.agent):
            actions = self.agent.act(repeated)
        tools = needs_results(self.engine.judge)
        steps = self.engine.rate(repeated, actions, tools=tools)
        pairs = [(i, steps[n * samples : (n + 1) * samples]) for n, i in enumerate(mine)]
        pairs = gather_object(pairs) if self._world > 1 else pairs
        groups = [group for _, group in sorted(pairs, key=lambda pair: pair[0])]
        steps = [step for group in groups for step in group]
        self._count(steps)
        if steps:
            long = self.agent.max_context if any(s.action.error == "length" for s in steps) else 0
            check_acted([s.action for s in steps], self.spent.updates + 1, too_long=long)
        return groups

    def update(
        self,
        steps: Sequence[TokenStep],
        advantages: ArrayLike,
        valid: ArrayLike,
        *,
        count: float | None = None,
        **metrics: float,
    ) -> None:
        """Makes one update and writes its metrics.

        Args:
            steps: N steps of the global batch, those of an episode together; each process trains on its share.
            advantages: [N].
            valid: [N] bool.
            count: what the loss is divided by; None takes the valid steps.
            **metrics: extra metrics to log.

        Raises:
            TrainingError: if no step had a usable reward, `MOST_UNUSABLE` times in a row.
        """
        gain, usable = np.asarray(advantages, dtype=np.float64), np.asarray(valid, dtype=np.bool_)
        mine = [i for i, step in enumerate(steps) if step.episode % self._world == self._rank]
        measured = self.trainer.update([steps[i] for i in mine], gain[mine], usable[mine], count)
        self.spent.trained_tokens += int(measured.pop("tokens"))
        signal = bool(gain[usable].any())  # with a KL there are steps without any advantage; they teach nothing
        stepped, skipped = int(measured.pop("stepped") * signal), int(measured.pop("skipped"))
        self.spent.optimizer_steps += stepped
        self.spent.skipped_updates += skipped
        self.spent.updates += 1
        metrics["unusable_steps"] = float((~usable).sum())
        row: dict[str, float | None] = {"update": self.spent.updates, **measured, **metrics, **_counts(self.spent)}
        if self._evaluate is not None and (self.done or self._due(self._eval_every)):
            row |= self.evaluate()
        row = {key: value if value is not None and math.isfinite(value) else None for key, value in row.items()}
        self.files.write(METRICS, row)
        self.files.write(TIMING, {"update": self.spent.updates, "seconds": round(time.monotonic() - self._began, 3)})
        self._evaluate_at_tokens()
        if self._due(self._save_every):
            self.files.save(asdict(self.spent))
        if self._report is not None and self._main:
            self._report({key: value for key, value in row.items() if value is not None})
        self._idleness.note(stepped=stepped > 0, skipped=skipped > 0, usable=bool(usable.any() or count))

    def evaluate(self) -> dict[str, float]:
        """Returns what `evaluate` measures now; costs nothing of the budget, nor of the seconds in ``timing.jsonl``."""
        start = time.monotonic()
        with generating(self.agent):
            figures = {} if self._evaluate is None else self._evaluate(self.agent)
        self._began += time.monotonic() - start
        return figures

    def _evaluate_at_tokens(self) -> None:
        start, now = time.monotonic(), self.spent.sampled_tokens
        for tokens in self._eval_at_tokens:
            if self._evaluate_at is not None and self._evaluated_at < tokens <= now:
                self._evaluate_at(tokens)
        self._evaluated_at = now
        self._began += time.monotonic() - start

    @property
    def _rank(self) -> int:
        return int(self.trainer.accelerator.process_index)

    @property
    def _world(self) -> int:
        return int(self.trainer.accelerator.num_processes)

    def _due(self, every: int) -> bool:
        return every > 0 and self.spent.updates % every == 0

    def _count(self, steps: Sequence[Step]) -> None:
        self._idleness.read(steps)
        self.spent.sampled_tokens += sum(len(step.action.token_ids) for step in steps)
        self.spent.judge_calls += 0 if self.engine.judge is None else len(steps)


def _with_seed(state: State, seed: int, update: int, sample: int) -> State:
    """Returns the state with a seed of its own, so that the samples at it differ."""
    return State(
        state.task, state.settings, state.turns, state.steps,
        episode_seed(seed, f"{state.seed}/{update}", sample), state.chars,
    )  # fmt: skip


def _counts(spent: Spent) -> dict[str, int]:
    return {field.name: getattr(spent, field.name) for field in fields(Spent) if field.name != "updates"}


def _check_ratios(agent: TransformersAgent, trainer: Trainer) -> None:
    """Refuses a loss of ratios pi / pi_behaviour whose two sides would be different distributions of the same policy."""
    if not trainer.config.needs_ratios:
        return
    loss = trainer.config.loss
    if agent.top_p < 1:
        raise ConfigError(f"{loss} needs ratios over all tokens; sampling with top_p={agent.top_p} cuts some off. Use top_p=1.")
    if agent.temperature != trainer.config.temperature:
        raise ConfigError(
            f"{loss} compares the policy with the distribution sampled from: the agent samples at temperature "
            f"{agent.temperature}, the trainer scores at {trainer.config.temperature}. Set both to the same."
        )
