"""What the study of the embedded policy runs: arms with their candidates for hyper-parameters, settings, seeds, budgets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from swirl_env.algos.embedded import WORDS, get_setting
from swirl_env.algos.warm_start import WarmStart
from swirl_env.benchmarks.compare import Arm
from swirl_env.config.overrides import overrides
from swirl_env.store.filters import FILTERS

RATES = (3e-4, 1e-3)
"""Learning rates that are tried for every arm."""
SEARCHED = (("main", 5), ("sparse", 5))
"""Settings and warm starts of the search; the test runs have other warm starts."""
SEARCH_EPISODES = 200
EXTRAS = "main"
"""Setting of the runs with noisy judges and with differently filtered demonstrations."""
NOISES = (0.1, 0.3)
"""Chances that the judge's label is swapped."""
DEMONSTRATIONS = 2_048
"""Episodes of the noisy expert a seed and setting."""

Options = Mapping[str, Any]
"""Options of ``swirl train``, by name or by section."""


@dataclass(frozen=True)
class Candidate:
    """An arm of the study: an algorithm, and three variants of what else matters to it; with two rates, six trials."""

    name: str
    about: str
    algo: Options
    variants: tuple[Options, ...]
    uses: str = "own"
    """``own`` rollouts alone, or ``demonstrations`` too: then it has seen what the others have not."""
    step_wise: bool = True
    """Whether rewards of single steps reach it."""

    def trials(self) -> list[dict[str, Any]]:
        """Returns the configurations that the search chooses from."""
        return [{"trainer.lr": rate, **_of_algo(variant)} for rate in RATES for variant in self.variants]


def _of_algo(options: Options) -> dict[str, Any]:
    return {key if "." in key or key == "updates" else f"algo.{key}": value for key, value in options.items()}


_LOGGED = {"name": "swirl", "actions": "logged", "filter": "none", "rounds": 0}
_STORED = {"states": "stored", "filter": "process"}
_BATCHES = tuple({"episodes_per_update": n} for n in (8, 16, 32))
_STATES = tuple({"states_per_update": n} for n in (32, 64, 128))
CANDIDATES = (
    Candidate(
        "swirl",
        "resampled actions at the states of one round of own rollouts, process filter: the paper's method",
        {"name": "swirl", "rounds": 1, "states_per_update": 16},
        ({"questions": 256}, {"questions": 512}, {"questions": 512, "baseline": "none"}),
    ),
    Candidate(
        "swirl_mix",
        "the same in rounds, the logged action in each group",
        {"name": "swirl", "group": "mix", "rounds": 0, "states_per_update": 16},
        (
            {"questions": 128, "updates_per_round": 20},
            {"questions": 256, "updates_per_round": 40},
            {"questions": 128, "updates_per_round": 20, "filter": "none"},
        ),
    ),
    Candidate(
        "swirl_logged",
        "logged actions of own rollouts weighted by their step rewards, in rounds, no filter",
        _LOGGED,
        tuple({"questions": q, "updates_per_round": u} for q, u in ((64, 5), (64, 8), (128, 10))),
    ),
    Candidate(
        "return_to_go",
        "step rewards of fresh rollouts, discounted (gamma 0: each step its own)",
        {"name": "return_to_go"},
        ({"gamma": 0.0, "baseline": "none"}, {"gamma": 0.5, "baseline": "none"}, {"gamma": 1.0, "baseline": "position"}),
    ),
    Candidate(
        "step_outcome",
        "`return_to_go` with gamma 0, the outcome added to the reward of a right answer",
        {"name": "return_to_go", "gamma": 0.0, "baseline": "none"},
        tuple({"outcome_weight": w} for w in (2.0, 5.0, 10.0)),
    ),
    Candidate(
        "rft",
        "SFT on own rollouts whose steps are all GOOD, in rounds",
        {"name": "rft"},
        tuple({"questions": q, "updates_per_round": u} for q, u in ((64, 5), (128, 10), (256, 20))),
    ),
    Candidate("reinforce", "outcome only", {"name": "reinforce"}, _BATCHES, step_wise=False),
    Candidate(
        "grpo",
        "outcome only, normalised within the rollouts of a question",
        {"name": "grpo"},
        tuple({"questions_per_update": q, "samples": n} for q, n in ((2, 8), (4, 4), (4, 8))),
        step_wise=False,
    ),
    Candidate(
        "swirl_demo", "resampled actions at states of demonstrations", {"name": "swirl", **_STORED}, _STATES, "demonstrations"
    ),
    Candidate(
        "swirl_demo_mix",
        "the same, the demonstrated action in each group",
        {"name": "swirl", "group": "mix", **_STORED},
        _STATES,
        "demonstrations",
    ),
    Candidate(
        "rft_demo",
        "SFT on demonstrations",
        {"name": "rft", **_STORED},
        ({"updates": 100}, {"updates": 200}, {"updates": 400}),
        "demonstrations",
    ),
)
"""The arms, in the order of the tables."""
NOISY = ("swirl", "swirl_logged", "return_to_go", "step_outcome", "rft")
"""Arms that are run with noisy judges too."""
FILTERED = ("swirl_demo", "rft_demo")
"""Arms whose demonstrations are filtered in every way."""


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

    @property
    def candidates(self) -> list[Candidate]:
        """The arms that take part."""
        return [one for one in CANDIDATES if one.name in self.names]

    def demonstrations(self, setting: str, seed: int) -> Path:
        """Returns the run folder of the expert's episodes."""
        return self.out / "demonstrations" / f"{setting}-{seed}"

    def arm(self, part: str, label: str, one: Candidate, chosen: Options, setting: str, seed: int, **more: Any) -> Arm:
        """Returns one training run.

        Args:
            part: folder under `out`.
            label: what the run is called there, its seed aside.
            one: the arm.
            chosen: the hyper-parameters, as keys of ``swirl train``.
            setting: the embedded task.
            seed: of warm start, questions and sampling.
            **more: what else differs, as keys of ``swirl train`` with ``__`` for dots.
        """
        algo = dict(one.algo)
        head = f"algo={algo.pop('name')}"
        config: dict[str, Any] = {
            "setting": setting,
            "warm_start": seed,
            "seed": seed,
            "budget": self.budgets[-1],
            "model.batch_size": 64,
        }
        config |= {"eval.episodes": self.episodes, **_of_algo(algo), **chosen}
        config |= {key.replace("__", "."): value for key, value in more.items()}
        if one.uses == "demonstrations":
            config["stored"] = [str(self.demonstrations(setting, seed))]
        if "updates" in config:  # trains on what is stored and samples nothing
            config["budget"] = None
        judge = config.pop("judge", None)
        arguments = [head, *([] if judge is None else [f"judge={judge}"]), *overrides(config)]
        return Arm(label, seed, self.out / part / f"{label}-{seed}", tuple(arguments), config["budget"] or 0)

    def search(self, one: Candidate) -> list[list[Arm]]:
        """Returns the runs of an arm's search on validation worlds, a list a trial."""
        given = {"budget": self.budgets[len(self.budgets) // 2], "eval__split": "validation"}
        given |= {"eval__before": False, "eval__episodes": SEARCH_EPISODES}
        return [
            [self.arm("search", f"{one.name}-{i}-{setting}", one, trial, setting, seed, **given) for setting, seed in SEARCHED]
            for i, trial in enumerate(one.trials())
        ]

    def main(self, setting: str, chosen: Mapping[str, Options]) -> Iterator[Arm]:
        """Yields the runs of a setting."""
        part, first = f"main-{setting}", self.candidates[0].name
        for seed in self.seeds:
            for one in self.candidates:
                given = {"eval__at": list(self.budgets[:-1]), "eval__before": one.name == first}
                arm = self.arm(part, one.name, one, chosen[one.name], setting, seed, **given)
                yield replace(arm, start=self.out / part / f"{first}-{seed}")

    def noise(self, chosen: Mapping[str, Options]) -> Iterator[Arm]:
        """Yields the runs with noisy judges."""
        for seed in self.seeds:
            for one in self.candidates:
                for flip in NOISES if one.name in NOISY else ():
                    given = {"judge": "noisy", "judge__flip": flip, "judge__seed": seed, **self._short()}
                    yield self.arm("noise", f"{one.name}-{flip}", one, chosen[one.name], EXTRAS, seed, **given)

    def filters(self, chosen: Mapping[str, Options]) -> Iterator[Arm]:
        """Yields the runs on demonstrations that every filter chose equally many of."""
        for seed in self.seeds:
            for one in self.candidates:
                for name in FILTERS if one.name in FILTERED else ():
                    given = {"selection": name, "algo__filter": "none", **self._short()}
                    yield self.arm("filters", f"{one.name}-{name}", one, chosen[one.name], EXTRAS, seed, **given)

    def _short(self) -> dict[str, Any]:
        return {"budget": self.budgets[len(self.budgets) // 2], "eval__before": False}


def demonstrate(study: Study, setting_name: str, seed: int) -> list[list[str]]:
    """Returns the commands that make demonstrations: episodes of the noisy expert in the run's training world, and selections."""
    setting, kinds = get_setting(setting_name), list(WarmStart().kinds)
    folder = str(study.demonstrations(setting_name, seed))
    tasks = setting.tasks("train", seed)
    task = {"split": "train", "size": len(tasks), "documents": setting.train_documents, "min_hops": setting.min_hops}
    task |= {"max_hops": setting.max_hops, "comparisons": 0, "values": False, "words": WORDS, "seed": seed}
    given: dict[str, Any] = {
        "task": task,
        "agent": {"noise": setting.noise, "kinds": kinds, "reasoning": False, "seed": 1_000 + seed},
    }
    given |= {"prompt": "question", "max_steps": setting.max_steps, "n": DEMONSTRATIONS, "seed": 1_000 + seed}
    given |= {"tool.search.top_k": setting.top_k, "out": folder, "resume": True}
    generate = ["generate", "task=atlas", "agent=scripted", *overrides(given)]
    return [generate, ["filter", f"out={folder}", "equal=true"]]
