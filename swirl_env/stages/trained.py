"""``trained=RUN``: the policy of a training run as the agent, in the setting that it was trained in.

The word stands for those that `next_command` lists: the agent with its limits, held-out questions, tools, judge, prompt. What
the command line sets itself goes before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from swirl_env.config.arguments import Arguments, read_arguments
from swirl_env.config.overrides import command, override, readable
from swirl_env.errors import ConfigError, StoreError
from swirl_env.stages import folders
from swirl_env.stages.run_config import check_code, code_words, read_config, to_options

KEY = "trained"
STAGES = ("generate", "eval")
"""Stages that take it."""


def expand_trained(stage: str, argv: Sequence[str]) -> list[str]:
    """Returns the arguments of a stage with ``trained=RUN`` written out.

    Raises:
        StoreError: if RUN is no training run, or has not ended.
        ConfigError: if several runs are named, or one that names code which the command line does not.
    """
    if stage not in STAGES or not any(word.startswith(f"{KEY}=") for word in argv):
        return list(argv)
    arguments = read_arguments(argv)
    mine = [word for word in arguments.parsed() if word.key_or_group == KEY]
    others = [word for word in arguments.overrides if word.partition("=")[0] != KEY]
    if len(mine) != 1 or mine[0].is_sweep_override():
        raise ConfigError(f"{KEY}= names one training run; for several, run the command once for each.")
    value = mine[0].value()
    if value is None:
        return Arguments(tuple(others), arguments.flags, arguments.multirun, arguments.help).for_hydra()
    words = _words(Path(str(value)), others, arguments.keys())
    return Arguments((*words, *others), arguments.flags, arguments.multirun, arguments.help).for_hydra()


def _words(path: Path, others: Sequence[str], keys: set[str]) -> list[str]:
    """Returns the arguments that a training run stands for, without those that the command line replaces."""
    if folders.kind_of(path) != "training":
        nearby = [folder for folder in (path.parent, path.parent.parent) if folders.kind_of(folder) == "training"]
        near = folders.nearest_run(path)
        nearby += [near] if near is not None and folders.kind_of(near) == "training" else []
        hint = f" Did you mean {KEY}={nearby[0]}?" if nearby else ""
        raise StoreError(f"{KEY}={path}: expected the folder of a training run, with its config.yaml and policy/.{hint}")
    if not (path / "policy").is_dir():
        again = command("train", override("out", str(path)), "resume=true", *code_words(read_config(path) or {}))
        raise StoreError(f"{path} has no policy/ yet: the run has not ended. Go on with it: {again}")
    config = read_config(path) or {}
    check_code(path, {key: value for key, value in config.items() if key not in {*keys, "algo"}}, others)
    from swirl_env.stages.next_command import setting_words  # loads PyTorch
    from swirl_env.stages.train_options import TrainOptions

    free = {"out": str(path), "resume": False, "save_every": 0, "trackers": [], "objective": None}
    words = [readable(word) for word in setting_words(to_options(path, {**config, **free}, TrainOptions))]
    replaced = {word.partition("=")[0] for word in words if "." not in word.partition("=")[0] and word not in others} & keys
    if "task" in replaced:
        replaced.add("tool")  # another task brings tools of its own
    return [word for word in words if (key := word.partition("=")[0]) not in keys and key.partition(".")[0] not in replaced]
