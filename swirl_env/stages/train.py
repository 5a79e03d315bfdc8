"""``swirl train``: a policy, an algorithm, a budget; a run folder with the trained policy and what it is worth.

    config.yaml  metrics.jsonl  timing.jsonl  checkpoints/  rollouts/  policy/  evaluation.json

Killed at any moment it goes on with ``resume=true`` and ends with the same weights and metrics. Several processes
(``accelerate launch``, ``torchrun``) share the rollouts and the updates; the first one prints and writes.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import msgspec
import torch
from accelerate import Accelerator
from accelerate.utils import LoggerType, broadcast_object_list
from omegaconf import DictConfig

from swirl_env.agents.transformers import TransformersAgent
from swirl_env.agents.transformers.load import quiet
from swirl_env.algos.embedded import MAX_NEW_TOKENS, WORDS, get_setting
from swirl_env.algos.measure import Measure
from swirl_env.algos.run import Algorithm, Limits, Run
from swirl_env.algos.trainer import TrainConfig, Trainer, shut_down
from swirl_env.algos.warm_start import one_thread
from swirl_env.config.options import episode_defaults, read
from swirl_env.config.overrides import choice, command, command_line_keys, overrides, tool_choices
from swirl_env.errors import ConfigError, Interrupted, MissingExtra, unknown_name
from swirl_env.evaluate import Evaluation
from swirl_env.registry import make
from swirl_env.stages import runs, tables
from swirl_env.stages.policy import evaluation_engines, make_policy, training_engine
from swirl_env.stages.progress import progress
from swirl_env.stages.run_config import resume_command
from swirl_env.stages.train_options import TrainOptions, checked
from swirl_env.store import Store
from swirl_env.store.lines import WriterLock, make_folder
from swirl_env.types import Trajectory

ONE_PROCESS = (
    "swirl: accelerate launch was asked for several processes, but started one: on CPUs it starts more under MPI alone. "
    "To train with N: accelerate launch --multi_gpu --num_processes N -m swirl_env.cli train ... (on CPUs too)"
)
"""What a run says that was meant for more."""


def main(config: DictConfig) -> None:
    """Runs the stage."""
    options = read("train", TrainOptions, config)
    accelerator = accelerator_of(options)
    options = checked(runs.settle(_same_folder(options, accelerator), command_line_keys()))
    accelerator.wait_for_everyone()  # every process has looked at the folder before the first one writes to it
    try:
        if options.policy == "embedded":
            with one_thread():
                train(options, accelerator)
        else:
            train(options, accelerator)
    except KeyboardInterrupt:
        raise Interrupted(f"To go on from the last checkpoint: {resume_command('train', options)}") from None
    finally:
        shut_down(accelerator)


def accelerator_of(options: TrainOptions) -> Accelerator:
    """Returns accelerate's part of the run: devices, processes, precision, trackers."""
    known = sorted(str(kind) for kind in LoggerType if kind != LoggerType.ALL)
    for name in options.trackers:
        if name not in known:
            raise unknown_name("tracker", name, known)
        if importlib.util.find_spec(name) is None and not (name == "tensorboard" and importlib.util.find_spec("tensorboardX")):
            raise MissingExtra(f"trackers=[{name}] needs the package {name!r}. Install it with: pip install {name}")
    on_cpu = options.model.device == "cpu" or options.policy == "embedded" or not torch.accelerator.is_available()
    accelerator = Accelerator(
        cpu=on_cpu, mixed_precision=options.precision, log_with=options.trackers or None, project_dir=options.out
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


def train(options: TrainOptions, accelerator: Accelerator) -> None:
    """Trains, evaluates and writes; whatever is wrong with the options comes out before anything is written."""
    path, first = Path(options.out), accelerator.is_main_process
    algorithm: Algorithm = make("algo", options.algo)
    engine, stored = training_engine(options), _stored(options)
    measure = Measure(evaluation_engines(options), options.eval.episodes, options.eval.quick, options.slots)
    agent = make_policy(options, accelerator)
    trainer = Trainer(agent.model, _config(options), accelerator)
    with _writing(options) if first else nullcontext(), _reporting(options, accelerator) as report:
        results = _begun(options, measure, agent) if first else {}
        run = Run(
            agent,
            engine,
            trainer,
            path,
            Limits(options.budget or 0, options.updates or 0),
            slots=options.slots,
            seed=options.seed,
            stored=stored,
            evaluate=measure if first and measure.engines and options.eval.every else None,
            eval_every=options.eval.every,
            eval_at_tokens=options.eval.at if first and measure.engines else (),
            evaluate_at=lambda tokens: _record_at(path, results, tokens, measure.run(agent, measure.episodes, 1.0), run),
            save_every=options.save_every,
            resume=options.resume,
            report=report,
        )
        algorithm.train(run)
        accelerator.wait_for_everyone()
        if first:
            save_policy(agent, path / "policy")
            results |= {"after": _full(measure, agent), "spent": dataclasses.asdict(run.spent)}
            runs.write_json(path / "evaluation.json", results)
    if first:
        _say(options, run, results)
    accelerator.wait_for_everyone()


@contextmanager
def _writing(options: TrainOptions) -> Iterator[None]:
    """Keeps other processes from writing to the run meanwhile: takes the lock, then compares and writes the configuration."""
    lock = WriterLock(make_folder(Path(options.out)) / ".lock")
    try:
        runs.claim(options)
        yield
    finally:
        lock.release()


def _begun(options: TrainOptions, measure: Measure, agent: TransformersAgent) -> dict[str, Any]:
    """Writes the evaluation of the policy before the first update; a resumed run keeps the one it has."""
    file = Path(options.out) / "evaluation.json"
    held: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    if "before" not in held:
        held = {"before": _full(measure, agent) if options.eval.before else None, "at": {}}
        runs.write_json(file, held)
    return {"before": held["before"], "at": held.get("at", {})}


def _record_at(path: Path, results: dict[str, Any], tokens: int, evaluation: Evaluation, run: Run) -> None:
    """Stores the evaluation after a number of sampled tokens; a run resumed before it makes the same again."""
    results["at"][str(tokens)] = {"sampled": evaluation.to_dict(), "spent": dataclasses.asdict(run.spent)}
    runs.write_json(path / "evaluation.json", results)


def _config(options: TrainOptions) -> TrainConfig:
    return dataclasses.replace(options.trainer, updates=options.updates or 0)


def _stored(options: TrainOptions) -> list[Trajectory]:
    """Returns the trajectories of the run folders in ``stored``."""
    for folder in options.stored:
        runs.config_of(folder)
    if not options.stored and options.algo.get("states") == "stored":
        raise ConfigError("algo.states=stored trains on stored trajectories: name their run folders, stored=[runs/demo].")
    stores = [Store(folder, "r") for folder in options.stored]
    if options.selection is None:
        return [trajectory for store in stores for trajectory in store]
    return [trajectory for store in stores for trajectory in store.select(options.selection)]


def _full(measure: Measure, agent: TransformersAgent) -> dict[str, Any] | None:
    if not (measure.engines and measure.episodes):
        return None
    return {how: found.to_dict() for how, found in measure.full(agent).items()}


@contextmanager
def _reporting(options: TrainOptions, accelerator: Accelerator) -> Iterator[Callable[[dict[str, Any]], None] | None]:
    """Gives what is told each update's metrics: the progress bar and the trackers."""
    if not accelerator.is_main_process:
        yield None
        return
    if options.trackers:
        accelerator.init_trackers("swirl", config={"algo": str(options.algo["name"]), "seed": options.seed})
    by_tokens = options.budget is not None and options.updates is None
    total = int((options.budget if by_tokens else options.updates) or 0)
    done = 0
    with progress(f"train {options.algo['name']}", total) as advance:

        def report(row: dict[str, Any]) -> None:
            nonlocal done
            now = min(total, int(row["sampled_tokens" if by_tokens else "update"]))
            shown = {key: row[key] for key in ("success", "reward", "eval_success") if key in row}
            advance(now - done, "  ".join(f"{key} {value:.3f}" for key, value in shown.items()))
            done = now
            if options.trackers:
                accelerator.log({key: value for key, value in row.items() if key != "update"}, step=int(row["update"]))

        yield report


def save_policy(agent: TransformersAgent, folder: Path) -> None:
    """Writes the policy as an ordinary checkpoint (of its adapters, where it has some), with its tokenizer."""
    aside = folder.with_name(f".{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    with quiet():
        agent.model.save_pretrained(aside)
        agent.renderer.tokenizer.save_pretrained(aside)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(aside, folder)


def _say(options: TrainOptions, run: Run, results: dict[str, Any]) -> None:
    """Prints what came of the run, where it is, and what to run next."""
    path, spent = Path(options.out), run.spent
    if results["after"] is None:
        print("no evaluation: name held-out questions, eval.split=..., and eval.episodes above 0")
    else:
        rows = [{"policy": when, **cells(results[when])} for when in ("before", "after") if results[when]]
        tables.show(rows, f"{path}, held-out questions, {options.eval.episodes} episodes each")
    if not run.done:
        print(f"ended after {spent.updates} updates, before the limit: no trajectory passed the filter, or no state had signal")
    print(
        f"{spent.updates:,} updates, {spent.sampled_tokens:,} sampled and {spent.trained_tokens:,} trained tokens, "
        f"{spent.judge_calls:,} judge calls"
    )
    print(f"results are in {path}: policy/ (a checkpoint of transformers), evaluation.json, metrics.jsonl")
    print(f"next: {next_command(options)}")


def cells(found: dict[str, Any]) -> dict[str, str]:
    """Returns the columns that stand for one evaluation, sampled and greedy."""
    sampled, greedy = (msgspec.convert(found[how], Evaluation) for how in ("sampled", "greedy"))
    return {
        "success %": tables.percent(sampled.accuracy),
        "95 % interval": tables.interval(sampled.accuracy),
        "greedy %": tables.percent(greedy.accuracy),
        "GOOD steps": tables.percent(sampled.process),
        "valid actions": tables.percent(sampled.valid_actions),
        "steps": tables.mean(sampled.steps),
    }


def next_command(options: TrainOptions) -> str:
    """Returns a command that runs the trained policy in the setting that it was trained in."""
    task = task_words(options)
    return command("generate", *choice("agent", policy_agent(options)), *task, *_episode_words(options))


def policy_agent(options: TrainOptions) -> dict[str, Any]:
    """Returns the trained policy as an agent of the command line, with the limits it was trained under."""
    section, small = options.model, options.task is None
    agent: dict[str, Any] = {"name": "transformers", "model": str(Path(options.out) / "policy")}
    if options.lora.rank or section.adapter:
        agent = {**agent, "model": options.policy, "adapter": agent["model"]}
    agent |= {"max_new_tokens": section.max_new_tokens or (MAX_NEW_TOKENS if small else 256)}
    agent |= {"batch_size": section.batch_size or (32 if small else 16), "template_options": section.template_options or None}
    same = ("dtype", "device", "template", "system", "max_context", "prefix_cache")
    return agent | {key: getattr(section, key) for key in same}


def task_words(options: TrainOptions) -> list[str]:
    """Returns the arguments that choose the held-out questions and the tools of a run."""
    if options.task is not None:
        split = {} if options.eval.split is None else {"split": options.eval.split}
        return [*choice("task", {**options.task, **split}), *tool_choices(options.tool)]
    setting = get_setting(options.setting)
    task = {"name": "atlas", "split": options.eval.split or "test", "min_hops": setting.min_hops, "max_hops": setting.max_hops}
    task |= {"documents": setting.test_documents, "comparisons": 0.0, "values": False, "words": WORDS}
    return [*choice("task", task), *tool_choices({"search": {"name": "search", "top_k": setting.top_k}})]


def _episode_words(options: TrainOptions) -> list[str]:
    """Returns the arguments that set how episodes are run, as far as they differ from the defaults."""
    usual, small = episode_defaults(), options.task is None
    settings = {key: getattr(options, key) for key in ("max_steps", "max_chars", "format", "history", "prompt")}
    if small:
        settings |= {"max_steps": options.max_steps or get_setting(options.setting).max_steps, "prompt": "question"}
    judge = choice("judge", options.judge)
    changed = {key: value for key, value in settings.items() if value != usual[key]}
    return [*overrides(changed), *([] if judge == choice("judge", usual["judge"]) else judge)]
