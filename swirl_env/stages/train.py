"""``swirl train``: a policy, an algorithm, a budget; a run folder with the trained policy and what it is worth.

    config.yaml  environment.json  metrics.jsonl  timing.jsonl  checkpoints/  rollouts/  policy/  evaluation.json

Killed at any moment it goes on with ``resume=true`` and ends with the same weights and metrics. Several processes
(``accelerate launch``, ``torchrun``) share the rollouts and the updates; the first one prints and writes.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import msgspec
import torch
from accelerate import Accelerator
from accelerate.utils import LoggerType, broadcast_object_list
from omegaconf import DictConfig

from swirl_env.agents.transformers import TransformersAgent
from swirl_env.agents.transformers.load import quiet
from swirl_env.algos.distribution import check_launcher, shut_down
from swirl_env.algos.measure import Measure
from swirl_env.algos.run import Algorithm, Limits, Run
from swirl_env.algos.train_config import TrainConfig
from swirl_env.algos.trainer import Trainer
from swirl_env.algos.warm_start import one_thread
from swirl_env.config.options import keys_to_resume, read
from swirl_env.errors import Interrupted, MissingExtra, unknown_name
from swirl_env.evaluate import Evaluation
from swirl_env.registry import make
from swirl_env.stages import evaluations, folders, runs, tables
from swirl_env.stages.next_command import next_command
from swirl_env.stages.policy import evaluation_engines, make_policy, training_engine
from swirl_env.stages.progress import progress
from swirl_env.stages.run_config import read_config, resume_command, to_config
from swirl_env.stages.stored import load_stored
from swirl_env.stages.train_options import TrainOptions, checked
from swirl_env.store.lines import WriterLock, make_folder

ONE_PROCESS = (
    "swirl: accelerate launch was asked for several processes, but started one: on CPUs it starts more under MPI alone. "
    "To train with N: accelerate launch --multi_gpu --num_processes N -m swirl_env.cli train ... (on CPUs too)"
)
"""What a run says that was meant for more."""

Results = dict[str, Any]
"""What a training run measured, as its evaluation.json holds it."""


def main(config: DictConfig) -> float | None:
    """Runs the stage; returns the figure that ``objective`` names, if the policy was evaluated."""
    options = read("train", TrainOptions, config)
    evaluations.check_objective(options.objective, "greedy")
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
    same = options.resume and read_config(path) == to_config(options)
    return same and "spent" in folders.training_results(path) and (path / "policy").is_dir()


def _report_ended(options: TrainOptions, first: bool) -> Results:
    if not first:
        return {}
    print(f"{options.out} has ended already; larger limits (budget=, updates=) go on with it")
    print(f"next: {next_command(options)}")
    return folders.training_results(Path(options.out))


def accelerator_of(options: TrainOptions) -> Accelerator:
    """Returns accelerate's part of the run: devices, processes, precision, trackers."""
    known = sorted(str(kind) for kind in LoggerType if kind != LoggerType.ALL)
    for name in options.trackers:
        if name not in known:
            raise unknown_name("tracker", name, known)
        if importlib.util.find_spec(name) is None and not (name == "tensorboard" and importlib.util.find_spec("tensorboardX")):
            raise MissingExtra(f"trackers=[{name}] needs the package {name!r}. Install it with: pip install {name}")
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
    agent = make_policy(options, accelerator)
    trainer = Trainer(agent.model, _config(options), accelerator)
    with _writing(options) if first else nullcontext(), _reporting(options, accelerator) as report:
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
            keep=options.keep_rollouts,
        )
        algorithm.train(run)
        run.finish()
        after = _full(measure, agent)
        if first:
            save_policy(agent, path / "policy")
            results |= {"after": after, "spent": dataclasses.asdict(run.spent)}
            runs.write_json(path / "evaluation.json", results)
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


@contextmanager
def _reporting(options: TrainOptions, accelerator: Accelerator) -> Iterator[Callable[[Results], None] | None]:
    """Yields the function that shows each update's metrics: in the progress bar and in the trackers."""
    if not accelerator.is_main_process:
        yield None
        return
    if options.trackers:
        accelerator.init_trackers("swirl", config={"algo": str(options.algo["name"]), "seed": options.seed})
    by_tokens = options.budget is not None and options.updates is None
    total = int((options.budget if by_tokens else options.updates) or 0)
    done = 0
    with progress(f"train {options.algo['name']}", total) as advance:

        def report(row: Results) -> None:
            nonlocal done
            now = min(total, int(row["sampled_tokens" if by_tokens else "update"]))
            shown = {key: row[key] for key in ("success", "reward", "eval_success") if key in row}
            advance(now - done, "  ".join(f"{key} {value:.3f}" for key, value in shown.items()))
            done = now
            if options.trackers:
                accelerator.log({key: value for key, value in row.items() if key != "update"}, step=int(row["update"]))

        yield report


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
