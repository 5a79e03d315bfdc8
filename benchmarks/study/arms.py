"""What the study of the embedded policy runs: arms with the options that are tried, settings, seeds, budgets, conditions."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from swirl_env.algos.embedded import WORDS, get_setting
from swirl_env.algos.warm_start import WarmStart, cached_folder
from swirl_env.benchmarks.compare import Arm
from swirl_env.benchmarks.study.conditions import CONDITIONS, Condition
from swirl_env.config.overrides import overrides
from swirl_env.registry import load

RATES = (3e-4, 1e-3)
"""Learning rates that are tried for every arm, at the full budget."""
GUARDS: tuple[Mapping[str, Any], ...] = ({"trainer.entropy": 0.01}, {"trainer.kl": 0.01})
"""What is tried on every arm against a policy that collapses: an entropy bonus, and a KL to the warm start."""
SEARCHED = ("main", 5)
"""Setting and warm start of the search; the test runs have other warm starts."""
SEARCH_EPISODES = 200
DEMONSTRATIONS = 2_048
"""Episodes of the noisy expert per seed and setting."""

SIZES = ("episodes_per_update", "questions_per_update", "states_per_update", "questions")
"""Options of algorithms that say how much an update or a round takes."""
Options = Mapping[str, Any]
"""Options of ``swirl train``, by name or by section."""


@dataclass(frozen=True)
class Candidate:
    """An arm of the study: an algorithm, and variants of what else matters to it."""

    name: str
    about: str
    algo: Options
    variants: tuple[Options, ...]
    """The first is where the search begins."""
    sees: str
    """What it is told about an episode: only arms that see the same have equal information."""
    uses: str = "own"
    """``own`` rollouts alone, or ``demonstrations`` too: then it has seen what the others have not."""
    judge: Options = field(default_factory=dict)
    """The judge, if not ``rules``."""
    guarded: bool = True
    """Whether the guards are tried on it."""

    def rates(self) -> list[dict[str, Any]]:
        """Returns the first trials: the learning rates."""
        return [{"trainer.lr": rate, **of_algo(self.variants[0])} for rate in RATES]

    def variations(self, rate: float) -> list[dict[str, Any]]:
        """Returns the second trials, at the better of the rates: the other variants, and the guards."""
        others = [{"trainer.lr": rate, **of_algo(variant)} for variant in self.variants[1:]]
        guards = GUARDS if self.guarded else ()
        return others + [{"trainer.lr": rate, **of_algo(self.variants[0]), **guard} for guard in guards]


def of_algo(options: Options) -> dict[str, Any]:
    """Returns options of an algorithm as keys of ``swirl train``."""
    return {key if "." in key or key == "updates" else f"algo.{key}": value for key, value in options.items()}


def _batches(*sizes: int) -> tuple[Options, ...]:
    return tuple({"episodes_per_update": n} for n in sizes)


def _groups(*sizes: tuple[int, int]) -> tuple[Options, ...]:
    return tuple({"questions_per_update": questions, "samples": n} for questions, n in sizes)


OUTCOME, JUDGE, BOTH, GOLD = "outcome", "judge", "judge + outcome", "gold answer + outcome"
CANDIDATES = (
    Candidate("reinforce", "the outcome, leave-one-out", {"name": "reinforce"}, _batches(16, 8, 32), OUTCOME),
    Candidate("grpo", "the outcome, normalised within a question", {"name": "grpo"}, _groups((4, 8), (2, 16), (8, 8)), OUTCOME),
    Candidate(
        "episode_reward",
        "mean step reward + weight x outcome as one number per episode: the control for information",
        {"name": "episode_reward"},
        ({"outcome_weight": 5.0}, {"outcome_weight": 2.0}, {"episodes_per_update": 32}),
        BOTH,
    ),
    Candidate(
        "step_outcome",
        "each step its own reward (gamma 0), the outcome added to the last of a right answer",
        {"name": "return_to_go", "gamma": 0.0, "baseline": "none"},
        ({"outcome_weight": 5.0}, {"outcome_weight": 10.0}, {"outcome_weight": 5.0, "baseline": "position"}),
        BOTH,
    ),
    Candidate(
        "return_outcome",
        "the rewards that remain, the outcome among them, minus the mean of the others at the same step",
        {"name": "return_to_go", "baseline": "position"},
        ({"gamma": 0.9, "outcome_weight": 5.0}, {"gamma": 1.0, "outcome_weight": 5.0}, {"gamma": 0.9, "outcome_weight": 10.0}),
        BOTH,
    ),
    Candidate(
        "return_to_go",
        "step rewards alone",
        {"name": "return_to_go", "baseline": "none"},
        ({"gamma": 0.0}, {"gamma": 0.5}, {"gamma": 1.0, "baseline": "position"}),
        JUDGE,
    ),
    Candidate(
        "swirl",
        "the paper's: actions resampled at frozen states, process filter, KL, several rounds of own rollouts",
        {"name": "swirl", "rounds": 0, "states_per_update": 16},
        (
            {"questions": 256, "updates_per_round": 40, "trainer.kl": 0.01},
            {"questions": 1024, "updates_per_round": 160, "trainer.kl": 0.01},
            {"questions": 256, "updates_per_round": 40, "filter": "none", "trainer.kl": 0.01},
        ),
        JUDGE,
        guarded=False,
    ),
    Candidate(
        "swirl_logged",
        "logged actions of own rollouts weighted by their step rewards, in rounds, no filter",
        {"name": "swirl", "actions": "logged", "filter": "none", "rounds": 0},
        tuple({"questions": q, "updates_per_round": u} for q, u in ((128, 10), (64, 8), (64, 5))),
        JUDGE,
    ),
    Candidate(
        "rft",
        "SFT on own rollouts whose steps are all GOOD, in rounds",
        {"name": "rft"},
        tuple({"questions": q, "updates_per_round": u} for q, u in ((128, 10), (64, 5), (256, 20))),
        JUDGE,
    ),
    Candidate(
        "mt_grpo",
        "MT-GRPO as published: a turn's reward on that turn alone, next to the outcome",
        {"name": "mt_grpo"},
        ({"weight": 1.0}, {"weight": 0.3}, {"samples": 16, "questions_per_update": 2}),
        BOTH,
    ),
    Candidate(
        "mt_grpo_unbiased",
        "the whole remaining return minus the other episodes' mean",
        {"name": "mt_grpo_unbiased"},
        ({"weight": 1.0}, {"weight": 0.3}, {"samples": 16, "questions_per_update": 2}),
        BOTH,
    ),
    Candidate("gigpo", "episodes, and steps that share a state", {"name": "gigpo"}, _groups((4, 8), (2, 16), (8, 8)), OUTCOME),
    Candidate("hgpo", "groups that share ever more history", {"name": "hgpo"}, _groups((4, 8), (2, 16), (8, 8)), OUTCOME),
    Candidate(
        "turn_ppo",
        "GAE over turns with a learned value, outcome and step rewards",
        {"name": "turn_ppo", "reward_weight": 1.0},
        ({"episodes_per_update": 16}, {"reward_weight": 0.2}, {"episodes_per_update": 32}),
        BOTH,
    ),
    Candidate(
        "igpo",
        "change of the gold answer's probability under the policy",
        {"name": "igpo"},
        _groups((4, 8), (2, 16), (8, 8)),
        GOLD,
    ),
    Candidate(
        "trace",
        "change of the gold answer's log-probability under the warm start",
        {"name": "trace"},
        _groups((4, 8), (2, 16), (8, 8)),
        GOLD,
    ),
    Candidate(
        "evidence",
        "step_outcome with the gain of new gold evidence in place of the rules",
        {"name": "return_to_go", "gamma": 0.0, "baseline": "none"},
        ({"outcome_weight": 5.0}, {"outcome_weight": 10.0}, {"outcome_weight": 5.0, "baseline": "position"}),
        "gold evidence + outcome",
        judge={"name": "evidence"},
    ),
    Candidate(
        "vine",
        "values of states by Monte Carlo branches",
        {"name": "vine"},
        ({"samples": 4}, {"samples": 9}, {"samples": 4, "episodes_per_update": 16}),
        OUTCOME,
    ),
    Candidate(
        "tree_grpo",
        "branches of a tree, normalised within and between trees",
        {"name": "tree_grpo"},
        ({"questions_per_update": 4}, {"questions_per_update": 2, "trees": 4}, {"nodes": 4}),
        OUTCOME,
    ),
    Candidate(
        "slate",
        "siblings: actions drawn at every state of fresh episodes",
        {"name": "slate"},
        ({"samples": 4}, {"samples": 8}, {"samples": 4, "scale": False}),
        JUDGE,
    ),
    Candidate(
        "step_dpo",
        "the best against the worst action at a state",
        {"name": "step_dpo"},
        ({"beta": 0.1}, {"beta": 0.5}, {"samples": 8}),
        JUDGE,
        guarded=False,
    ),
    Candidate(
        "implicit_prm",
        "log-ratio of a model trained on outcomes next to the policy",
        {"name": "implicit_prm"},
        (
            {"rule": "istar", "objective": "preference", "prm_lr": 1e-4},
            {"rule": "prime", "prm_lr": 1e-4},
            {"rule": "prime", "prm_lr": 1e-5},
        ),
        OUTCOME,
    ),
    Candidate(
        "swirl_demo",
        "resampled actions at states of demonstrations, process filter",
        {"name": "swirl", "states": "stored", "filter": "process"},
        ({"states_per_update": 32}, {"states_per_update": 64}, {"states_per_update": 32, "group": "mix"}),
        JUDGE,
        uses="demonstrations",
    ),
    Candidate(
        "rft_demo",
        "SFT on demonstrations, process filter",
        {"name": "rft", "states": "stored", "filter": "process"},
        ({"updates": 200}, {"updates": 400}),
        JUDGE,
        uses="demonstrations",
        guarded=False,
    ),
)
"""The arms, in the order of the tables."""
CONDITIONED = ("reinforce", "episode_reward", "step_outcome", "return_to_go", "rft", "swirl_logged", "mt_grpo_unbiased")
"""Arms that are run under other conditions too."""
CONDITION_SETTING = "main"
EVERY_ARM = "main"
"""Setting of every arm; the others are for the arms of `CORE`, which saves 13 million tokens."""
CORE = (
    *("reinforce", "grpo", "episode_reward", "step_outcome", "return_outcome", "return_to_go"),
    *("swirl", "swirl_logged", "rft", "mt_grpo_unbiased", "turn_ppo"),
)
"""Outcomes, the control for information, and the step-wise arms that the first study left open."""


@dataclass(frozen=True)
class Policy:
    """The policy of all arms, by the size of its warm start."""

    start: WarmStart = field(default_factory=WarmStart)
    common: Options = field(default_factory=dict)
    """What else all runs have, as keys of ``swirl train``."""
    batch: int = 1
    """Factor on the episodes, questions and states of an update or a round."""

    def folder(self, setting: str, seed: int) -> str:
        """Returns the folder of a warm start, whether it has been trained or not."""
        return str(cached_folder(get_setting(setting), seed, self.start))


@dataclass(frozen=True)
class Study:
    """Where and how much."""

    out: Path
    seeds: tuple[int, ...]
    settings: tuple[str, ...]
    budgets: tuple[int, ...]
    """Sampled tokens, rising; the last is where runs end."""
    episodes: int
    names: tuple[str, ...]
    """Arms that take part."""
    policy: Policy = field(default_factory=Policy)

    @property
    def candidates(self) -> list[Candidate]:
        """The arms that take part."""
        return [one for one in CANDIDATES if one.name in self.names]

    def candidates_in(self, setting: str) -> list[Candidate]:
        """Returns the arms that are run in a setting."""
        return [one for one in self.candidates if setting == EVERY_ARM or one.name in CORE]

    def demonstrations(self, setting: str, seed: int) -> Path:
        """Returns the run folder of the expert's episodes."""
        return self.out / "demonstrations" / f"{setting}-{seed}"

    def arm(self, part: str, label: str, one: Candidate, options: Options, setting: str, seed: int, **more: Any) -> Arm:
        """Returns one training run.

        Args:
            part: folder under `out`.
            label: what the run is called there, without its seed.
            one: the arm.
            options: the hyper-parameters, as keys of ``swirl train``.
            setting: the embedded task.
            seed: of warm start, questions and sampling.
            **more: what else differs, as keys of ``swirl train`` with ``__`` for dots.
        """
        algo = dict(one.algo)
        head = f"algo={algo.pop('name')}"
        config: dict[str, Any] = {"setting": setting, "seed": seed, "budget": self.budgets[-1], "model.batch_size": 64}
        config |= {"warm_start": seed} if self.policy == Policy() else {"policy": self.policy.folder(setting, seed)}
        config |= {"eval.episodes": self.episodes, "keep_rollouts": "last", **of_algo(algo), **self.policy.common, **options}
        config |= _sizes(one.algo["name"], config, self.policy.batch)
        judge = dict(one.judge)
        if "name" in judge:
            config["judge"] = judge.pop("name")
            config |= {f"judge.{key}": value for key, value in judge.items()}
        config |= {key.replace("__", "."): value for key, value in more.items()}
        if one.uses == "demonstrations":
            config["stored"] = [str(self.demonstrations(setting, seed))]
        if "updates" in config:  # trains on what is stored and samples nothing
            config["budget"] = None
        rater = config.pop("judge", None)
        arguments = [head, *([] if rater is None else [f"judge={rater}"]), *overrides(config)]
        return Arm(label, seed, self.out / part / f"{label}-{seed}", tuple(arguments), config["budget"] or 0)

    def trial(self, one: Candidate, options: Options) -> Arm:
        """Returns the run of one trial, on validation worlds."""
        setting, seed = SEARCHED
        parts = [f"{key.rpartition('.')[2]}={value:g}" if isinstance(value, float) else f"{key.rpartition('.')[2]}={value}"
                 for key, value in sorted(options.items())]  # fmt: skip
        more = {"eval__split": "validation", "eval__before": False, "eval__episodes": SEARCH_EPISODES}
        return self.arm("search", f"{one.name}-{'-'.join(parts)}", one, options, setting, seed, **more)

    def main(self, setting: str, chosen: Mapping[str, Options]) -> Iterator[Arm]:
        """Yields the runs of a setting."""
        part, candidates = f"main-{setting}", self.candidates_in(setting)
        first = candidates[0].name
        for seed in self.seeds:
            for one in candidates:
                more = {"eval__at": list(self.budgets[:-1]), "eval__before": one.name == first}
                arm = self.arm(part, one.name, one, chosen[one.name], setting, seed, **more)
                yield replace(arm, start=self.out / part / f"{first}-{seed}")

    def conditions(self, chosen: Mapping[str, Options]) -> Iterator[Arm]:
        """Yields the runs under other conditions, at half of the budget."""
        for seed in self.seeds:
            for one in self.candidates:
                for condition in CONDITIONS if one.name in CONDITIONED else ():
                    yield self.under(condition, one, chosen[one.name], seed)

    def under(self, condition: Condition, one: Candidate, options: Options, seed: int) -> Arm:
        """Returns one run under a condition."""
        more = {"budget": self.budgets[(len(self.budgets) - 1) // 2], "eval__before": False}
        more |= {f"judge__{key}" if key != "name" else "judge": value for key, value in condition.judge(seed).items()}
        return self.arm("conditions", f"{one.name}-{condition.name}", one, options, CONDITION_SETTING, seed, **more)


def _sizes(algo: str, config: Options, factor: int) -> dict[str, int]:
    """Returns how much an update takes, `factor` times what the configuration says or the algorithm does by itself."""
    if factor == 1:
        return {}
    own = inspect.signature(load("algo", algo)).parameters
    sizes = [size for size in SIZES if size in own]
    return {f"algo.{size}": factor * int(config.get(f"algo.{size}", own[size].default)) for size in sizes}


def demonstrate(study: Study, setting_name: str, seed: int) -> list[list[str]]:
    """Returns the commands that make demonstrations: episodes of the noisy expert in the run's training world, and selections."""
    setting, kinds = get_setting(setting_name), list(WarmStart().kinds)
    folder = str(study.demonstrations(setting_name, seed))
    tasks = setting.tasks("train", seed)
    task = {"split": "train", "size": len(tasks), "documents": setting.train_documents, "min_hops": setting.min_hops}
    task |= {"max_hops": setting.max_hops, "comparisons": 0, "values": False, "words": WORDS, "seed": seed}
    options: dict[str, Any] = {
        "task": task,
        "agent": {"noise": setting.noise, "kinds": kinds, "reasoning": False, "seed": 1_000 + seed},
    }
    options |= {"prompt": "question", "max_steps": setting.max_steps, "n": DEMONSTRATIONS, "seed": 1_000 + seed}
    options |= {"tool.search.top_k": setting.top_k, "out": folder, "resume": True}
    generate = ["generate", "task=atlas", "agent=scripted", *overrides(options)]
    return [generate, ["filter", f"out={folder}", "equal=true"]]
