"""What is run with the 0.5B model: stages as words of the command line, and the evaluations that belong on the page."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from swirl_env.benchmarks.qwen.prompts import PROMPTS
from swirl_env.benchmarks.small_model.report import BASE, WARM, Row


@dataclass(frozen=True, slots=True)
class Stage:
    """One command."""

    name: str
    words: tuple[str, ...]
    """What follows ``swirl``."""
    row: Row | None = None
    """The evaluation that it makes; None for other stages."""
    needs: tuple[str, ...] = ()
    """Names of the stages whose folders it reads."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A set of questions, and which of them are for what; no question is in two of the three parts."""

    words: tuple[str, ...]
    own: tuple[str, ...]
    """Questions on which the base model's own rollouts are drawn, for the warm start."""
    train: tuple[str, ...]
    """Questions of the arms."""
    test: tuple[str, ...]
    """Held-out questions: the first of a split."""


def settings(options: argparse.Namespace) -> dict[str, Setting]:
    """Returns the question sets by name. Of HotpotQA's training questions only 100 come with their passages."""
    gsm8k = ("task=gsm8k", "task.planned=true", "max_steps=4")
    hotpotqa = ("task=hotpotqa", "tool.search.top_k=2", "max_steps=5")
    later = ("task.split=train", f"task.skip={options.own}")
    rest = ("task.split=dev500", f"task.skip={options.held_out}")
    return {
        "gsm8k": Setting(gsm8k, ("task.split=train",), later, ("task.split=test",)),
        "hotpotqa": Setting(hotpotqa, ("task.split=train100",), rest, ("task.split=dev500",)),
    }


SETS = ("gsm8k", "hotpotqa")
OWN_AT_MOST = {"gsm8k": 7_000, "hotpotqa": 100}
WARM_SHARE = {"hotpotqa": 8, "gsm8k": 1}
"""Sets of the warm start in their order -> by what its updates are divided: as many passes over the five rollouts that are right
on HotpotQA as over the 38 on GSM8K. HotpotQA comes first, as four updates on it after GSM8K left 4 % right there, of 20."""
WARM_ORDER = tuple(WARM_SHARE)
WITHOUT_SHOTS = 4
"""How many times more states are generated together once the worked conversations, most of a state, are not read any more."""
_SWIRL = ("algo=swirl", "algo.rounds=1", "algo.questions=80", "algo.filter=process", "algo.states_per_update=8")
"""A third of the budget is for the round of own rollouts, the rest for actions resampled at their states."""
ARMS: dict[str, tuple[str, ...]] = {
    "swirl, rules": (*_SWIRL, "judge=rules"),
    "swirl, llm": (*_SWIRL, "judge=llm", "judge.agent={llm}"),
    "swirl, likelihood": (*_SWIRL, "judge=likelihood", "judge.model={model}"),
    "rft": (
        "algo=rft",
        "algo.filter=outcome",
        "algo.questions=80",
        "algo.episodes_per_update=8",
        "algo.updates_per_round=6",
        "judge=rules",
    ),
    "grpo": ("algo=grpo", "algo.questions_per_update=8", "algo.samples=4", "judge=rules"),
    "step_outcome": (
        "algo=return_to_go",
        "algo.gamma=0",
        "algo.outcome_weight=2",
        "algo.episodes_per_update=32",
        "judge=rules",
    ),
}
"""Arm -> what makes it. All begin at the warm start, with the same budget of sampled tokens, and make some eight updates."""
JUDGES = {judge: ARMS[f"swirl, {judge}"][len(_SWIRL) :] for judge in ("likelihood", "llm")}
"""Judges by the 0.5B model itself that are compared with the rules, step by step."""


def plan(options: argparse.Namespace) -> Iterator[Stage]:
    """Yields the stages in their order: the base model first, the arms last."""
    for name in SETS:
        yield _evaluation(options, BASE, name)
    for judge, words in JUDGES.items():
        folder = Path(options.out, "eval", _folder(BASE, "gsm8k"))
        judging = ("judge", *_filled(options, words), f"out={folder}", "batch=16")
        yield Stage(judging_name(judge), judging, needs=(evaluation_name(BASE, "gsm8k"),))
    for name in SETS:
        yield _own_rollouts(options, name)
    yield from (_warm_start(options, name) for name in WARM_ORDER)
    for name in SETS:
        yield _evaluation(options, WARM, name)
    for name in SETS:
        for arm in ARMS:
            yield _arm(options, arm, name)
            for test in SETS:
                yield _evaluation(options, f"{arm} on {name}", test)


def unfinished(stages: Sequence[Stage], measured: Container[str]) -> set[str]:
    """Returns the names of the stages that are still wanted: those that measure and are not `measured`, and what those need."""
    wanted: set[str] = set()
    for stage in reversed(stages):
        measures = stage.words[0] in ("eval", "judge") and stage.name not in measured
        if measures or stage.name in wanted:
            wanted.update((stage.name, *stage.needs))
    return wanted


def rows_of(options: argparse.Namespace) -> list[Row]:
    """Returns all evaluations, done or not, in their order."""
    return [stage.row for stage in plan(options) if stage.row is not None]


def write_prompts(options: argparse.Namespace) -> None:
    """Writes system messages and shots to files that the commands name."""
    folder = Path(options.out, "prompts")
    folder.mkdir(parents=True, exist_ok=True)
    for name, prompt in PROMPTS.items():
        (folder / f"{name}.txt").write_text(f"{prompt.system}\n", encoding="utf-8")
        shots = json.dumps(prompt.messages(), indent=1, ensure_ascii=False)
        (folder / f"{name}.json").write_text(f"{shots}\n", encoding="utf-8")


def _shown(options: argparse.Namespace, name: str, group: Literal["agent", "model"], shots: bool = False) -> tuple[str, ...]:
    """Returns the options that show an agent, or a model in training, the prompt of a set.

    Worked conversations are for the base model alone. The others learn to do without: reading them is most of an episode's work.
    """
    file = Path(options.out, "prompts", name)
    return (f"{group}.system={file}.txt", *((f"{group}.shots={file}.json",) if shots else ()))


def _setting(options: argparse.Namespace, name: str, part: Literal["own", "train", "test"]) -> tuple[str, ...]:
    questions = settings(options)[name]
    return (*questions.words, *getattr(questions, part), "format=native", "prompt=question")


def _agent(options: argparse.Namespace, name: str, temperature: float, adapter: Path | None) -> tuple[str, ...]:
    more = () if adapter is None else (f"agent.adapter={adapter}",)
    base = (
        "agent=transformers",
        f"agent.model={options.model}",
        f"agent.dtype={options.dtype}",
        f"agent.device={options.device}",
        *_shown(options, name, "agent", shots=adapter is None),
    )
    how = (f"agent.temperature={temperature:g}", f"agent.max_new_tokens={options.max_new_tokens}")
    times = _times(adapter)
    room = (f"agent.batch_size={times * options.batch_size}", f"agent.prefix_cache={times * options.prefix_cache}")
    return (*base, *how, *room, *more)


def _times(adapter: Path | None) -> int:
    """Returns how many times more states are generated together than with worked conversations."""
    return 1 if adapter is None else WITHOUT_SHOTS


def _evaluation(options: argparse.Namespace, policy: str, name: str) -> Stage:
    folder = _folder(policy, name)
    adapter = None if policy == BASE else _policy_folder(Path(options.out), policy) / "policy"
    words = ("eval", *_setting(options, name, "test"), *_agent(options, name, 0.0, adapter), f"n={options.held_out}")
    row = Row(policy, name, 0.0, f"eval/{folder}")
    needs = () if policy == BASE else (_warm_name(WARM_ORDER[-1]),) if policy == WARM else (policy,)
    slots = _times(adapter) * options.batch_size
    out = (f"slots={slots}", *_out(options, "eval", folder))
    return Stage(evaluation_name(policy, name), (*words, *out), row, needs)


def _own_rollouts(options: argparse.Namespace, name: str) -> Stage:
    words = ("generate", *_setting(options, name, "own"), *_agent(options, name, 1.0, None), "judge=rules")
    n = min(options.own, OWN_AT_MOST[name]) * options.samples
    many = (f"n={n}", f"samples={options.samples}", f"slots={options.batch_size}")
    return Stage(_own_name(name), (*words, *many, *_out(options, "own", name)))


def _warm_start(options: argparse.Namespace, name: str) -> Stage:
    """Rejection: supervised fine-tuning on those of the base model's own rollouts whose answer is right.

    Without the worked conversations that they were drawn with. One set after the other, as each has tools of its own.
    """
    algo = ("algo=rft", "algo.states=stored", "algo.filter=outcome", "algo.episodes_per_update=8")
    stored = (f"stored=[{Path(options.out, 'own', name)}]", "stored_prompts=own", "trainer.lr=2e-4")
    until = (f"updates={math.ceil(options.warm_updates / WARM_SHARE[name])}", "budget=null")
    before = WARM_ORDER[: WARM_ORDER.index(name)]
    start = (f"model.adapter={_warm_folder(options, before[-1]) / 'policy'}",) if before else ()
    words = ("train", *_setting(options, name, "own"), *algo, *stored, *until, *_training(options, name), *start)
    out = (f"out={_warm_folder(options, name)}", "resume=true")
    return Stage(_warm_name(name), (*words, *out), needs=(_own_name(name), *map(_warm_name, before[-1:])))


def _warm_folder(options: argparse.Namespace, name: str) -> Path:
    """Returns the folder of the warm start on a set; the one on the last set is what arms begin with."""
    return _policy_folder(Path(options.out), WARM) if name == WARM_ORDER[-1] else Path(options.out, f"warm-{name}")


def _arm(options: argparse.Namespace, arm: str, name: str) -> Stage:
    folder = _policy_folder(Path(options.out), f"{arm} on {name}")
    what = (*_setting(options, name, "train"), *_filled(options, ARMS[arm]), *_training(options, name, WITHOUT_SHOTS))
    start = ("trainer.lr=2e-4", f"model.adapter={warm_policy(Path(options.out))}")
    until = (f"budget={options.budget}", f"out={folder}", "resume=true")
    return Stage(f"{arm} on {name}", ("train", *what, *start, *until), needs=(_warm_name(WARM_ORDER[-1]),))


def _training(options: argparse.Namespace, name: str, times: int = 1) -> tuple[str, ...]:
    model = (f"policy={options.model}", f"model.dtype={options.dtype}", f"model.device={options.device}")
    sampling = (f"model.max_new_tokens={options.max_new_tokens}", f"model.batch_size={times * options.batch_size}")
    memory = ("trainer.micro_tokens=4096", "trainer.tree=true", f"model.prefix_cache={times * options.prefix_cache}")
    return (
        *model,
        *_shown(options, name, "model"),
        *sampling,
        *memory,
        "lora.rank=16",
        "eval.episodes=0",
        "save_every=5",
        f"seed={options.seed}",
    )


def _filled(options: argparse.Namespace, words: tuple[str, ...]) -> tuple[str, ...]:
    llm = f"{{name: transformers, model: '{options.model}', dtype: {options.dtype}, temperature: 0, max_new_tokens: 96}}"
    return tuple(word.replace("{llm}", llm).replace("{model}", options.model) for word in words)


def warm_policy(out: Path) -> Path:
    """Returns the folder of the adapter that all arms begin with."""
    return _policy_folder(out, WARM) / "policy"


def _policy_folder(out: Path, policy: str) -> Path:
    return out / ("warm" if policy == WARM else policy.replace(", ", "-").replace(" on ", "-"))


def evaluation_name(policy: str, name: str) -> str:
    """Returns the name of the stage that tests a policy on a set."""
    return f"{policy}, tested on {name}"


def judging_name(judge: str) -> str:
    """Returns the name of a judge's stage."""
    return f"{judge} judges the base model"


def _own_name(name: str) -> str:
    return f"own rollouts on {name}"


def _warm_name(name: str) -> str:
    return f"{WARM} on {name}"


def _folder(policy: str, name: str) -> str:
    return f"{policy.replace(', ', '-').replace(' ', '-')}-on-{name}"


def _out(options: argparse.Namespace, *parts: str) -> tuple[str, ...]:
    return (f"out={Path(options.out, *parts)}", "resume=true")
