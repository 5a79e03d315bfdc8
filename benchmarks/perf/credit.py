"""What an update costs by credit rule: every algorithm on the same episodes, sampled before the clock starts."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from swirl_env.benchmarks.perf.timing import Report, Row, row

EPISODES, SAMPLES = 64, 8
"""Episodes of an update, and how many of them are on one question."""
REPEATS = 7
BASELINE = "reinforce"
PLAIN = ("grpo", "return_to_go", "mt_grpo", "mt_grpo_unbiased", "gigpo", "hgpo")
"""Rules that need nothing but the episodes: these have the bar."""
MORE = {
    "igpo": "reads the gold answer in every state",
    "trace": "reads it under the first policy",
    "turn_ppo": "with a critic",
    "implicit_prm": "with a reward model, trained and read twice",
    "vine": "branches given",
    "tree_grpo": "branches given; every leaf is trained whole",
    "slate": "siblings given",
    "step_dpo": "siblings given; a pair per state is trained, under two models read",
}
"""Rules that read or train more; what that is."""
OPTIONS: dict[str, dict[str, Any]] = {
    "vine": {"samples": 2},
    "tree_grpo": {"trees": SAMPLES // 2, "nodes": 1},
    "slate": {"samples": 2},
    "step_dpo": {"samples": 2},
}


def credit(size: int = EPISODES) -> Report:
    """Measures an update of the embedded policy on scripted episodes of the main setting, from rollouts to new weights.

    Args:
        size: episodes of an update.
    """
    given = _Given(size)
    times: dict[str, list[int]] = {name: [] for name in (BASELINE, *PLAIN, *MORE)}
    with tempfile.TemporaryDirectory() as folder:
        paths = (Path(folder) / str(i) for i in itertools.count())
        for turn in range(1 + (REPEATS if size == EPISODES else 1)):
            for name, into in times.items():
                spent = given.update(name, next(paths))
                if turn:
                    into.append(spent)
    rows = [row(f"{BASELINE}, {size} episodes", times[BASELINE], "ms")]
    rows += [_row(name, "the episodes alone", times, bar=1.15) for name in PLAIN]
    rows += [_row(name, about, times) for name, about in MORE.items()]
    steps = sum(len(t.steps) for t in given.trajectories)
    return Report("credit", f"embedded policy, {steps} steps of scripted episodes, {SAMPLES} per question", tuple(rows))


def _row(name: str, about: str, times: dict[str, list[int]], bar: float | None = None) -> Row:
    cost = statistics.median(times[name]) / statistics.median(times[BASELINE])
    fields: dict[str, Any] = {"baseline": f"({BASELINE})", "ratio": 1 / cost}
    if bar is not None:
        fields |= {"bar": f"at most {bar} x {BASELINE}", "met": cost <= bar}
    return row(f"{name} ({about}): {cost:.2f} x", times[name], "ms", **fields)


class _Given:
    """A policy, and episodes for it that need not be sampled."""

    def __init__(self, size: int) -> None:
        from swirl_env.agents.scripted import ScriptedAgent
        from swirl_env.agents.transformers import TransformersAgent
        from swirl_env.algos.embedded import SETTINGS, build_model, build_tokenizer
        from swirl_env.algos.train_config import TrainConfig
        from swirl_env.algos.trainer import Trainer
        from swirl_env.episodes.rollout import collect

        self.engine = SETTINGS["main"].engine("test")
        tokenizer: Any = build_tokenizer()
        model: Any = build_model(len(tokenizer), 0)
        self.agent = TransformersAgent(model, tokenizer=tokenizer, device="cpu")
        self.trainer = Trainer(model, TrainConfig(lr=1e-4))
        self.trainer.logprobs([], reference=True)  # the copy of the first policy is made before any update
        demos = collect(ScriptedAgent(noise=0.4, reasoning=False), self.engine, size, samples=min(SAMPLES, size))
        # Every second episode counts as right: no rule finds steps that it need not train.
        self.trajectories = [self._as_sampled(t, i % 2 == 0) for i, t in enumerate(demos)]

    def _as_sampled(self, trajectory: Any, correct: bool) -> Any:
        """Returns an episode as if the policy had sampled it, its actions with their token ids, and graded as told."""
        from swirl_env.episodes.transcript import subtrajectories
        from swirl_env.types import Outcome

        renderer = self.agent.renderer
        steps = []
        for step, sub in zip(trajectory.steps, subtrajectories(trajectory), strict=True):
            ids = {"token_ids": renderer.text_ids(step.action.text), "prompt_ids": renderer.ids(sub.state)}
            steps.append(msgspec.structs.replace(step, action=msgspec.structs.replace(step.action, **ids)))
        outcome = Outcome(trajectory.outcome.answer, correct, float(correct))
        return msgspec.structs.replace(trajectory, steps=tuple(steps), outcome=outcome)

    def update(self, name: str, folder: Path) -> int:
        """Returns the nanoseconds of one update of an algorithm, from its rollouts on."""
        from swirl_env.algos.run import Limits, Run
        from swirl_env.registry import make

        given, clock = self, time.perf_counter_ns
        spent = [0, 0]

        class Fixed(Run):
            """Samples nothing: rollouts, branches and siblings are there already."""

            def rollouts(self, questions: int, samples: int = 1) -> list[Any]:
                spent[0] = clock()
                return list(given.trajectories)

            def branch(self, states: Sequence[Any], samples: int, *, judge: bool = True) -> list[list[Any]]:
                several = itertools.cycle(given.trajectories)
                return [list(itertools.islice(several, samples)) for _ in states]

            def resample(self, states: Sequence[Any], samples: int) -> list[list[Any]]:
                steps = [step for t in given.trajectories for step in t.steps]
                others = itertools.cycle(steps[1:] + steps[:1])
                return [[_at(step, next(others)) for _ in range(samples)] for step in steps]

            def update(self, *args: Any, **kwargs: Any) -> None:
                super().update(*args, **kwargs)
                spent[1] = clock()

            def finish(self) -> None:
                """An update without any advantage costs time too."""

        run = Fixed(self.agent, self.engine, self.trainer, folder, Limits(updates=1))
        algo: Any = make("algo", name, **OPTIONS.get(name, {}))
        algo.train(run)
        return spent[1] - spent[0]


def _at(step: Any, other: Any) -> Any:
    """Returns another step's action and verdict as if it had been sampled in the state of `step`."""
    action = msgspec.structs.replace(other.action, prompt_ids=step.action.prompt_ids)
    return msgspec.structs.replace(other, action=action)
