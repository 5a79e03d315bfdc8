"""What an algorithm works with: rollouts of the current policy, judged actions, updates, and their cost.

A run lives in a folder: ``metrics.jsonl`` (one line per update), ``timing.jsonl``, ``checkpoints/``, ``rollouts/``. Everything
drawn at random follows from the run's seed and the number of the update, so a killed run that continues from its last
checkpoint ends with the same weights and the same metrics.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from swirl_env.agents.transformers import TransformersAgent
from swirl_env.algos.algorithm_state import S
from swirl_env.algos.batch import TokenStep
from swirl_env.algos.budget import Limits as Limits
from swirl_env.algos.budget import Spent as Spent
from swirl_env.algos.evaluations import Evaluate, Evaluations
from swirl_env.algos.idle import Idleness, check_acted
from swirl_env.algos.kept import Keep, Kept
from swirl_env.algos.objective import Loss, of_global_batch
from swirl_env.algos.processes import Processes
from swirl_env.algos.ranges import check_count
from swirl_env.algos.run_files import RunFiles
from swirl_env.algos.run_logs import METRICS, TIMING
from swirl_env.algos.sampler import Sampler, Servers, check_ratios
from swirl_env.algos.sampling import branch_episodes, sample_actions, sample_episodes
from swirl_env.algos.trainer import Trainer
from swirl_env.episodes.engine import Engine
from swirl_env.errors import ConfigError, TrainingError
from swirl_env.seeding import episode_seed
from swirl_env.store import Store
from swirl_env.types import State, Step, Trajectory

T = TypeVar("T")


class Algorithm(Protocol):
    """A way to train a policy; its options are its constructor's."""

    def train(self, run: Run) -> None:
        """Trains until ``run.done``."""
        ...


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
        watch: called with each episode that this process has played, when it ends.
        keep: which episodes of its rollouts the run keeps in its folder, see `Kept`; branches are never kept.
        servers: sample in place of `agent`, with weights that are sent to them; evaluations are by `agent`.
        refresh_every: updates between two times that the servers get the present weights.

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
        watch: Callable[[Trajectory], None] | None = None,
        keep: Keep = "all",
        servers: Servers | None = None,
        refresh_every: int = 1,
    ) -> None:
        check_ratios(agent, trainer)
        precision = trainer.accelerator.mixed_precision
        if agent.precision is None and precision in ("bf16", "fp16"):
            agent.precision = precision  # rollouts and training see one policy
        self.agent, self.engine, self.trainer, self.slots = agent, engine, trainer, slots
        self.folder, self.limits, self.seed = Path(folder), limits, seed
        self.stored = list(stored)
        self.spent = Spent()
        self._save_every = save_every
        self._report, self._watch, self._block = report, watch, 1
        self._began = time.monotonic()
        self.processes = Processes(trainer.accelerator)
        """The processes that share the run."""
        self._sampler = Sampler(agent, servers, refresh_every, self.processes)
        self._branched = 0
        self._looping = self._unsaved = self._random_restored = False
        trainer.seed = seed
        self.files = RunFiles(self.folder, trainer)
        self._kept = Kept(self.folder, keep if self.processes.main else "none")
        counters = self.files.load() if resume else None
        if counters is None:
            self.files.begin()
        else:
            self.spent = Spent(**counters)
        self._evaluations = Evaluations(agent, evaluate, eval_every, evaluate_at, eval_at_tokens, self.spent.sampled_tokens)
        self.ended = ""
        """Why the run ended before its limit; empty if it did not."""
        self._idleness = Idleness(engine.judge)

    @property
    def done(self) -> bool:
        """Whether a limit has been reached."""
        return self.limits.reached(self.spent, self._block)

    def updates(self, until: int | None = None, block: int = 1) -> Iterator[int]:
        """Yields the numbers of the updates to come, from where the run stands, until a limit or update `until`.

        Args:
            until: where to stop, limits aside.
            block: updates that belong together: tokens sampled for all of them are trained on before the run ends for want
                of more.
        """
        self._block = block
        if not self._random_restored:  # what the algorithm has set up since the checkpoint was read may have drawn from them
            self.files.restore_random()
            self._random_restored = True
        while not self.done and (until is None or self.spent.updates < until):
            number = self.spent.updates
            self._looping = True
            yield number
            self._looping = False
            self._save()
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
            TrainingError: if no update changed the policy, with the reason; or if its weights are not finite any more.
        """
        self._looping = False
        self._refuse_infinite_weights()
        self._save()
        self._kept.close()
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
        first, tasks = self.spent.questions, self.engine.tasks
        if questions > len(tasks):
            raise ConfigError(f"{questions} questions were asked for at a time, but there are only {len(tasks)}.")
        order = [(first + i) % len(tasks) for i in range(questions)]
        seed = episode_seed(self.seed, f"rollouts/{self.spent.updates}", first)
        actor = self._sampler.actor(self.spent.updates)
        trajectories = sample_episodes(actor, self.engine, self.processes, order, samples, self.slots, seed, self._watch)
        self.spent.questions = first + questions
        self._kept.add(trajectories, self.spent.episodes, self.spent.updates)
        self._count_episodes([(t, 0) for t in trajectories])
        return trajectories

    def branch(self, states: Sequence[State], samples: int, *, judge: bool = True) -> list[list[Trajectory]]:
        """Returns fresh episodes of the current policy that go on from states: for each state, `samples` whole trajectories.

        The first ``len(state.steps)`` steps of each are those of its state; only the ones after them are sampled, judged and
        counted. Each episode has a seed of its own, other ones at every update and every call. Each process plays its share;
        all get all. One that ends with ``ended="error"`` could not act.

        Args:
            states: where to begin, such as the states of stored trajectories (`episodes.transcript.subtrajectories`).
            samples: episodes per state.
            judge: whether the fresh steps are judged; if not they are unscored, and cost no judge calls.

        Raises:
            ConfigError: for states at which no episode can go on. Sessions of tools with state are forked if they are open in
                `engine`; states that have used a session which is not open any more are refused.
        """
        check_count(1, samples=samples)
        if not states:
            return []
        engine = self.engine if judge else self.engine.without_judge()
        purpose = f"branch/{self.spent.updates}/{self._branched}"
        self._branched += 1
        actor = self._sampler.actor(self.spent.updates)
        groups = branch_episodes(actor, engine, self.processes, states, samples, self.slots, self.seed, purpose)
        fresh = [(t, len(state.steps)) for state, group in zip(states, groups, strict=True) for t in group]
        self._count_episodes(fresh, judged=judge)
        return groups

    def load_or_generate(self, name: str, start: int, generate: Callable[[], list[Trajectory]]) -> list[Trajectory]:
        """Returns the trajectories generated before update `start`: stored ones if the run was resumed after it.

        Args:
            name: their folder in the run's ``rounds`` folder.
            start: the update before which they are generated.
            generate: generates them with the weights of that moment.
        """
        folder = self.folder / "rounds" / name
        if self.spent.updates > start:
            older = self.folder / "rollouts" / name  # where earlier versions wrote it
            return list(Store(folder if folder.is_dir() or not older.is_dir() else older, "r"))
        trajectories = generate()
        if self.processes.main:
            shutil.rmtree(folder, ignore_errors=True)
            with Store(folder) as store:
                for trajectory in trajectories:
                    store.append(trajectory)
        return trajectories

    def resample(self, states: Sequence[State], samples: int) -> list[list[Step]]:
        """Returns judged actions of the current policy at frozen states: for each state, `samples` steps.

        Steps of an action that failed (a state that the model cannot hold) have unscored verdicts and no tokens.
        """
        updates = self.spent.updates
        groups = sample_actions(
            self._sampler.actor(updates), self.engine, self.processes, states, samples, self.seed, updates
        )  # fmt: skip
        steps = [step for group in groups for step in group]
        self._count(steps)
        if steps:
            long = self.agent.max_context if any(s.action.error == "length" for s in steps) else 0
            check_acted([s.action for s in steps], self.spent.updates + 1, too_long=long)
        return groups

    def logprobs(
        self, steps: Sequence[TokenStep], *, reference: bool = False, branches: bool = False, trainer: Trainer | None = None
    ) -> list[tuple[float, ...]]:
        """Returns log pi of each step's tokens, without dropout and without gradient.

        Each process scores its share; all get all.

        Args:
            steps: N steps of the global batch, those of an episode together.
            reference: score under the policy that training began with (or the trainer's own reference) instead of the present
                one. Without ``trainer.kl`` the first call has to come before the first update.
            branches: whether the steps of an episode branch off one another; what they share is then computed once if the model
                allows it.
            trainer: whose model scores; None takes the policy's.
        """
        scorer = trainer or self.trainer
        return self._shared(steps, lambda mine: scorer.logprobs(mine, reference=reference, branches=branches))

    def features(self, steps: Sequence[TokenStep]) -> Tensor:
        """Returns the policy's last hidden state at the end of each step's prompt, [N, H] in float32 on the CPU.

        That is what the policy knows of the state before it acts: the input of a critic's head. Without dropout and gradient;
        each process computes its share, and all get all.

        Args:
            steps: N steps of the global batch, those of an episode together.
        """
        rows = self._shared(steps, lambda mine: self.trainer.features(mine))
        return torch.stack(rows) if rows else torch.zeros(0, self.trainer.bare.config.hidden_size)

    def _shared(self, steps: Sequence[TokenStep], work: Callable[[list[TokenStep]], Sequence[T]]) -> list[T]:
        """Returns what `work` gives for each step, those of an episode done by one process, since they share forward passes."""
        mine = self._mine(steps)
        results = list(zip(mine, work([steps[i] for i in mine]), strict=True))
        return [result for _, result in sorted(self.processes.concatenate(results), key=lambda pair: pair[0])]

    def _mine(self, steps: Sequence[TokenStep]) -> list[int]:
        return [i for i, step in enumerate(steps) if step.episode % self.processes.world == self.processes.rank]

    def register(self, name: str, thing: S) -> S:
        """Returns `thing` after putting its state into this and all later checkpoints, and back from the one resumed from.

        For what an algorithm learns or collects apart from the policy: critics, reward models, buffers. Call it at the
        beginning of `train`. The state has to be equal in all processes; the first one writes it.

        Args:
            name: names its files: lower-case letters, digits and ``_``.
            thing: has `state_dict` and `load_state_dict`; a module or optimizer of torch, a `Trainer`, or an object of your own
                (see `swirl_env.algos.algorithm_state`).

        Raises:
            ConfigError: for a name that is taken or cannot be one.
            StoreError: if the run was resumed from a checkpoint without a state of this name, or that does not fit.
        """
        self.files.register(name, thing)
        return thing

    def fit(
        self,
        trainer: Trainer,
        steps: Sequence[TokenStep],
        advantages: ArrayLike,
        valid: ArrayLike,
        count: float | None = None,
        *,
        loss: Loss | None = None,
    ) -> dict[str, float]:
        """Returns the figures of one update of another model than the policy, each process training on its share.

        It is no update of the run: only its tokens are counted. Register `trainer`, so that checkpoints hold its weights.

        Args:
            trainer: of the other model, with the accelerator of the run.
            steps: N steps of the global batch, those of an episode together.
            advantages: [N].
            valid: [N] bool.
            count: what the loss is divided by; None takes the valid steps.
            loss: see `update`.
        """
        measured = self._train(trainer, steps, advantages, valid, count, loss)
        self.spent.trained_tokens += int(measured["tokens"])
        return measured

    def _train(
        self,
        trainer: Trainer,
        steps: Sequence[TokenStep],
        advantages: ArrayLike,
        valid: ArrayLike,
        count: float | None,
        loss: Loss | None,
    ) -> dict[str, float]:
        gain, usable = np.asarray(advantages, dtype=np.float64), np.asarray(valid, dtype=np.bool_)
        mine = self._mine(steps)
        indexed = None if loss is None else of_global_batch(loss, np.array(mine, dtype=np.int64))
        return trainer.update([steps[i] for i in mine], gain[mine], usable[mine], count, loss=indexed)

    def update(
        self,
        steps: Sequence[TokenStep],
        advantages: ArrayLike,
        valid: ArrayLike,
        *,
        count: float | None = None,
        loss: Loss | None = None,
        **metrics: float,
    ) -> None:
        """Makes one update and writes its metrics.

        Args:
            steps: N steps of the global batch, those of an episode together; each process trains on its share.
            advantages: [N].
            valid: [N] bool.
            count: what the loss is divided by; None takes the valid steps.
            loss: takes the place of the configured policy loss (see `swirl_env.algos.objective.Loss`); KL and entropy bonus are
                added to it as configured. It gets every valid step, whatever its advantage.
            **metrics: extra metrics to log.

        Raises:
            ConfigError: if `loss` returns no number, or figures under names that the trainer logs itself.
            TrainingError: if no step had a usable reward, `MOST_UNUSABLE` times in a row.
        """
        gain, usable = np.asarray(advantages, dtype=np.float64), self.trainer.usable(steps, valid)
        if (staleness := self._sampler.staleness(self.spent.updates)) is not None:
            metrics["staleness"] = float(staleness)
        measured = self._train(self.trainer, steps, gain, usable, count, loss)
        self.spent.trained_tokens += int(measured.pop("tokens"))
        # With a KL there are steps without any advantage; they teach nothing.
        signal = bool(gain[usable].any()) or (loss is not None and bool(usable.any()))
        stepped, skipped = int(measured.pop("stepped") * signal), int(measured.pop("skipped"))
        self.spent.optimizer_steps += stepped
        self.spent.skipped_updates += skipped
        self.spent.updates += 1
        self._branched = 0
        metrics["unusable_steps"] = float((~usable).sum())
        counts = {name: value for name, value in asdict(self.spent).items() if name != "updates"}
        row: dict[str, float | None] = {"update": self.spent.updates, **measured, **metrics, **counts}
        row |= self._evaluations.after_update(self.spent.updates, last=self.done)
        row = {key: value if value is not None and math.isfinite(value) else None for key, value in row.items()}
        self.files.write(METRICS, row)
        seconds = time.monotonic() - self._began - self._evaluations.seconds
        self.files.write(TIMING, {"update": self.spent.updates, "seconds": round(seconds, 3)})
        self._evaluations.at_tokens(self.spent.sampled_tokens)
        self._unsaved = self._unsaved or (self._save_every > 0 and self.spent.updates % self._save_every == 0)
        if not self._looping:
            self._save()
        if self._report is not None and self.processes.main:
            self._report({key: value for key, value in row.items() if value is not None})
        cut_off = bool(np.any(valid)) and not usable.any()
        self._idleness.note(stepped=stepped > 0, skipped=skipped > 0, usable=bool(usable.any() or count), cut_off=cut_off)

    def _save(self) -> None:
        """Writes a checkpoint if one is due.

        In the loop of `updates` that is when the algorithm comes back for the next update: what it did after this one, to a
        critic say, belongs into the checkpoint too.
        """
        if self._unsaved:
            self._refuse_infinite_weights()
            self._unsaved = False
            self.files.save(asdict(self.spent))

    def _refuse_infinite_weights(self) -> None:
        """Refuses to keep weights that an update has made infinite: no later run could do anything with them."""
        trained = (weights for weights in self.agent.model.parameters() if weights.requires_grad)
        if not all(bool(torch.isfinite(weights).all()) for weights in trained):
            raise TrainingError(
                f"The weights of the policy are not finite any more after {self.spent.updates} updates, and were not saved: "
                f"trainer.lr is too high for these rewards. Begin again with a lower one."
            )

    def _count(self, steps: Sequence[Step], *, judged: bool = True) -> None:
        self._idleness.read(steps)
        self.spent.sampled_tokens += sum(len(step.action.token_ids) for step in steps)
        self.spent.judge_calls += len(steps) if judged and self.engine.judge is not None else 0

    def _count_episodes(self, episodes: Sequence[tuple[Trajectory, int]], *, judged: bool = True) -> None:
        """Counts episodes, each with how many of its first steps it did not sample itself."""
        self.spent.episodes += len(episodes)
        self._count([step for t, old in episodes for step in t.steps[old:]], judged=judged)
        finished = [(t, old) for t, old in episodes if t.ended != "error"]
        long = self.agent.max_context if any(t.ended == "length" for t, _ in finished) else 0
        acted = [step.action for t, old in finished for step in t.steps[old:]]
        check_acted(acted, self.spent.updates + 1, too_long=long)
