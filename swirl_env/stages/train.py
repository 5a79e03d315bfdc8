"""``swirl train``: a policy, an algorithm, a budget; a run folder with the trained policy and what it is worth.

    config.yaml  environment.json  metrics.jsonl  timing.jsonl  checkpoints/  rollouts/  policy/  evaluation.json

Killed at any moment it goes on with ``resume=true`` and ends with the same weights and metrics. Several processes
(``accelerate launch``, ``torchrun``) share the rollouts and the updates; the first one prints and writes.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import msgspec
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from omegaconf import DictConfig

from swirl_env.agents.transformers import TransformersAgent
from swirl_env.agents.transformers.load import quiet
from swirl_env.algos.distribution import check_launcher, shut_down
from swirl_env.algos.measure import Measure
from swirl_env.algos.run import Algorithm, Limits, Run
from swirl_env.algos.stored_ids import check_stored_ids, under_own_prompts
from swirl_env.algos.train_config import TrainConfig
from swirl_env.algos.trainer import Trainer
from swirl_env.algos.warm_start import one_thread
from swirl_env.config.options import keys_to_resume, read
from swirl_env.config.overrides import command_line_keys
from swirl_env.errors import Interrupted
from swirl_env.evaluate import Evaluation
from swirl_env.registry import make
from swirl_env.stages import evaluations, folders, runs, tables
from swirl_env.stages.live import Live
from swirl_env.stages.next_command import next_command
from swirl_env.stages.policy import evaluation_engines, further_engines, make_policy, servers_of, training_engine
from swirl_env.stages.progress import Advance, progress
from swirl_env.stages.run_config import flat, read_config, resume_command, to_config, with_new_options
from swirl_env.stages.stored import load_stored
from swirl_env.stages.tracking import Tracking, check_trackers
from swirl_env.stages.train_options import TrainOptions, checked
from swirl_env.store.lines import WriterLock, make_folder
from swirl_env.types import Trajectory

ONE_PROCESS = (
    "swirl: accelerate launch was asked for several processes, but started one: on CPUs it starts more under MPI alone. "
    "To train with N: accelerate launch --multi_gpu --num_processes N -m swirl_env.cli train ... (on CPUs too)"
)
"""What a run says that was meant for more."""

RECENT = 256
"""Episodes over which the progress bar takes its shares."""

Results = dict[str, Any]
"""What a training run measured, as its evaluation.json holds it."""


def main(config: DictConfig) -> float | None:
    """Runs the stage; returns the figure that ``objective`` names, if the policy was evaluated."""
    options = read("train", TrainOptions, config)
    evaluations.check_objective(options.objective, "greedy")
    folders.check_resumable(options, command_line_keys())
    accelerator = accelerator_of(options)
    options = checked(runs.settle(_same_folder(options, accelerator), keys_to_resume()))
    accelerator.wait_for_everyone()  # every process has looked at the folder before the first one writes to it
    try:
        if _has_ended(options):
            results = _report_ended(options, accelerator.is_main_process)
        elif options.policy == "embedded":
            with one_thread():
                results = train(options, accelerator)
        else:
            results = train(options, accelerator)
    except KeyboardInterrupt:
        raise Interrupted(f"To go on from the last checkpoint: {resume_command('train', options)}") from None
    finally:
        shut_down(accelerator)
    after = results.get("after")
    return evaluations.objective_value(options.objective, _evaluations(after) if after else {}) if results else None


def _has_ended(options: TrainOptions) -> bool:
    """Whether a resumed run has nothing left to do: a sweep that is gone on with leaves such runs as they are."""
    path = Path(options.out)
    stored = read_config(path) if options.resume else None
    asked = to_config(options)
    same = stored is not None and flat(with_new_options(stored, asked)) == flat(asked)
    return same and "spent" in folders.training_results(path) and (path / "policy").is_dir()


def _report_ended(options: TrainOptions, first: bool) -> Results:
    if not first:
        return {}
    print(f"{options.out} has ended already; larger limits (budget=, updates=) go on with it")
    print(f"next: {next_command(options)}")
    return folders.training_results(Path(options.out))


def accelerator_of(options: TrainOptions) -> Accelerator:
    """Returns accelerate's part of the run: devices, processes, precision, trackers."""
    check_trackers(options.trackers)
    check_launcher()
    on_cpu = options.model.device == "cpu" or options.policy == "embedded" or not torch.accelerator.is_available()
    accelerator = Accelerator(
        cpu=on_cpu, mixed_precision=options.precision, log_with=cast(Any, options.trackers or None), project_dir=options.out
    )  # fmt: skip
    if accelerator.num_processes == 1 and _meant_for_several():
        print(ONE_PROCESS, file=sys.stderr)
    return accelerator


def _meant_for_several() -> bool:
    """Returns whether accelerate was asked for several processes and left them to an MPI that is not there.

    Its launcher then gives the one process that it starts the address of a group, but no place in it.
    """
    launched = "ACCELERATE_USE_CPU" in os.environ and "MASTER_ADDR" in os.environ
    return launched and not {"WORLD_SIZE", "LOCAL_RANK", "RANK"} & set(os.environ)


def _same_folder(options: TrainOptions, accelerator: Accelerator) -> TrainOptions:
    """Returns the options with the folder of the first process: a default name holds the time, and clocks differ."""
    if accelerator.num_processes == 1:
        return options
    return msgspec.structs.replace(options, out=broadcast_object_list([options.out])[0])


def train(options: TrainOptions, accelerator: Accelerator) -> Results:
    """Trains, evaluates and writes; whatever is wrong with the options is raised before anything is written.

    Returns:
        What evaluation.json holds; empty in all processes but the first.
    """
    path, first = Path(options.out), accelerator.is_main_process
    algorithm: Algorithm = make("algo", options.algo)
    engine = training_engine(options)
    stored = load_stored(options, engine)
    measure = Measure(evaluation_engines(options), options.eval.episodes, options.eval.quick, options.slots, accelerator)
    further = {
        name: Measure(engines, options.eval.episodes, options.eval.quick, options.slots, accelerator)
        for name, engines in further_engines(options).items()
    }
    agent = make_policy(options, accelerator)
    if options.stored_prompts == "own":
        stored = under_own_prompts(stored, agent.renderer)
    check_stored_ids(stored, agent.renderer)
    trainer = Trainer(agent.model, _config(options), accelerator)
    tracking = Tracking(options, accelerator)
    with _writing(options) if first else nullcontext(), _watching(options, first) as watch:

        def report(row: Results) -> None:
            if watch is not None:
                watch.update(row)
            tracking.log(row)

        results = _begun(options, measure, agent, first)
        run = Run(
            agent,
            engine,
            trainer,
            path,
            Limits(options.budget or 0, options.updates or 0),
            slots=options.slots,
            seed=options.seed,
            stored=stored,
            evaluate=measure if measure.engines and options.eval.every else None,
            eval_every=options.eval.every,
            eval_at_tokens=options.eval.at if measure.engines else (),
            evaluate_at=lambda tokens: _record_at(path, results, tokens, measure.run(agent, measure.episodes, 1.0), run, first),
            save_every=options.save_every,
            resume=options.resume,
            report=report,
            watch=None if watch is None else watch.episode,
            keep=options.keep_rollouts,
            servers=servers_of(options, agent),
            refresh_every=options.server.every,
        )
        tracking.begin(run.spent.updates)
        algorithm.train(run)
        run.finish()
        after = _full(measure, agent)
        also = {name: _full(one, agent) for name, one in further.items()}
        if first:
            save_policy(agent, path / "policy")
            results |= {"after": after, "also": also, "spent": dataclasses.asdict(run.spent)}
            runs.write_json(path / "evaluation.json", results)
            tracking.log_evaluations(_evaluations(after) if after else {})
    if first:
        _report_results(options, run, results)
    accelerator.wait_for_everyone()
    return results if first else {}


@contextmanager
def _writing(options: TrainOptions) -> Iterator[None]:
    """Keeps other processes from writing to the run meanwhile: takes the lock, then compares and writes the configuration."""
    lock = WriterLock(make_folder(Path(options.out)) / ".lock")
    try:
        runs.claim(options)
        yield
    finally:
        lock.release()


def _begun(options: TrainOptions, measure: Measure, agent: TransformersAgent, first: bool) -> Results:
    """Returns the evaluation of the policy before the first update, and writes it; a resumed run keeps the one it has."""
    file = Path(options.out) / "evaluation.json"
    results: Results
    (results,) = broadcast_object_list([folders.training_results(Path(options.out)) if first else {}])
    if "before" not in results:  # every process evaluates, or none does
        results = {"before": _full(measure, agent) if options.eval.before else None, "at": {}}
        if first:
            runs.write_json(file, results)
    return {"before": results["before"], "at": results.get("at", {})}


def _record_at(path: Path, results: Results, tokens: int, evaluation: Evaluation, run: Run, first: bool) -> None:
    """Stores the evaluation after a number of sampled tokens; a run resumed before it makes the same again."""
    results["at"][str(tokens)] = {"sampled": evaluation.to_dict(), "spent": dataclasses.asdict(run.spent)}
    if first:
        runs.write_json(path / "evaluation.json", results)


def _config(options: TrainOptions) -> TrainConfig:
    return dataclasses.replace(options.trainer, updates=options.updates or 0)


def _full(measure: Measure, agent: TransformersAgent) -> Results | None:
    if not (measure.engines and measure.episodes):
        return None
    return {how: evaluation.to_dict() for how, evaluation in measure.full(agent).items()}


class _Watch:
    """Shows in a progress bar how training goes, from episode to episode and from update to update.

    Args:
        options: of the run.
        advance: moves the bar.
        total: its length: the budget of tokens, or of updates if there is none.
    """

    def __init__(self, options: TrainOptions, advance: Advance, total: int) -> None:
        self._advance, self._total = advance, total
        self._unit = "sampled_tokens" if _by_tokens(options) else "update"
        self._live = Live(recent=RECENT)
        self._done = 0
        self._figures = ""

    def episode(self, trajectory: Trajectory) -> None:
        """Takes note of an episode that has ended."""
        before = self._live.tokens
        self._live.add(trajectory)
        self._show(self._done + (self._live.tokens - before if self._unit == "sampled_tokens" else 0))

    def update(self, row: Results) -> None:
        """Takes note of an update."""
        shown = {key: row[key] for key in ("reward", "eval_success") if key in row}
        skipped = int(row.get("skipped_updates", 0))
        notes = [f"{key} {value:.3f}" for key, value in shown.items()] + [f"{skipped} updates skipped"] * (skipped > 0)
        self._figures = "  ".join(notes)
        self._show(int(row[self._unit]))

    def _show(self, done: int) -> None:
        done = min(done, self._total)
        self._advance(done - self._done, f"{self._live}  {self._figures}".strip())
        self._done = done


def _by_tokens(options: TrainOptions) -> bool:
    return options.budget is not None and options.updates is None


@contextmanager
def _watching(options: TrainOptions, first: bool) -> Iterator[_Watch | None]:
    """Yields what shows the progress of a run; None in all processes but the first."""
    if not first:
        yield None
        return
    total = int((options.budget if _by_tokens(options) else options.updates) or 0)
    with progress(f"train {options.algo['name']}", total) as advance:
        yield _Watch(options, advance, total)


def save_policy(agent: TransformersAgent, folder: Path) -> None:
    """Writes the policy as an ordinary checkpoint (of its adapters if it has any), with its tokenizer."""
    aside = folder.with_name(f".{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    with quiet():
        agent.model.save_pretrained(aside)
        agent.renderer.tokenizer.save_pretrained(aside)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(aside, folder)


def _report_results(options: TrainOptions, run: Run, results: Results) -> None:
    """Prints the results of the run, where they are, and what to run next."""
    path, spent = Path(options.out), run.spent
    if results["after"] is None:
        print("no evaluation: name held-out questions, eval.split=..., and eval.episodes above 0")
    else:
        rows = [{"policy": when, **_cells(results[when])} for when in ("before", "after") if results[when]]
        rows += [{"policy": f"after, {name}", **_cells(measured)} for name, measured in results["also"].items()]
        tables.show(rows, f"{path}, held-out questions, {options.eval.episodes} episodes each")
    if not run.done:
        print(f"ended after {spent.updates} updates, before the limit: {run.ended}")
    print(
        f"{spent.updates:,} updates, {spent.sampled_tokens:,} sampled and {spent.trained_tokens:,} trained tokens, "
        f"{spent.judge_calls:,} judge calls"
    )
    print(f"results are in {path}: policy/ (a checkpoint of transformers), evaluation.json, metrics.jsonl")
    print(f"next: {next_command(options)}")


def _cells(measured: Results) -> dict[str, str]:
    return tables.policy_cells(*_evaluations(measured).values())


def _evaluations(measured: Results) -> dict[str, Evaluation]:
    return {how: msgspec.convert(measured[how], Evaluation) for how in ("sampled", "greedy")}
