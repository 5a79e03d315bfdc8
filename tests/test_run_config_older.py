"""Training runs from before an option existed: they have ended as they had, and the option's usual value may be named."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs torch")

from msgspec.structs import replace
from omegaconf import OmegaConf

from swirl_env.config.arguments import compose_stage, read_arguments
from swirl_env.config.options import read
from swirl_env.errors import ConfigError
from swirl_env.stages import runs
from swirl_env.stages.run_config import to_config, to_yaml
from swirl_env.stages.run_yaml import write_yaml
from swirl_env.stages.train import _has_ended
from swirl_env.stages.train_options import TrainOptions

NEWER = ["stored_prompts", "keep_rollouts", "server", "rollouts"]
"""Options that runs of the first release do not have."""


def options_of(out, *argv):
    config = compose_stage("train", read_arguments([*argv, f"out={out}"]))
    return read("train", TrainOptions, OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]))


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    return options_of(tmp_path_factory.mktemp("runs") / "run")


def older(options, lacks, nested=()):
    """Returns the configuration of a run that lacks options, written into its folder."""
    config = {key: value for key, value in to_config(options).items() if key not in lacks}
    for section, key in nested:
        del config[section][key]
    path = Path(options.out)
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.yaml").write_text(write_yaml(config))
    return path


@pytest.mark.parametrize("lacks", [[], ["stored_prompts"], NEWER])
def test_a_run_that_has_ended_stays_so_whatever_options_come_later(usual, tmp_path, lacks):
    options = replace(usual, out=str(tmp_path / "run"), resume=True)
    path = older(options, lacks, [("eval", "also"), ("model", "date")] if lacks else [])
    assert not _has_ended(options)  # nothing is there but the configuration
    (path / "policy").mkdir()
    (path / "evaluation.json").write_text(json.dumps({"before": None, "spent": {}}))
    assert _has_ended(options)
    assert not _has_ended(replace(options, updates=7)) and not _has_ended(replace(options, seed=1))


@pytest.mark.parametrize(
    ("lacks", "nested", "key", "now", "says"),
    [
        ("stored_prompts", None, "stored_prompts", {"stored_prompts": "own"}, "stored_prompts was logged, now own"),
        ("keep_rollouts", None, "keep_rollouts", {"keep_rollouts": "last"}, "keep_rollouts was all, now last"),
        ("server", None, "server.every", {"every": 3}, "server.every was 1, now 3"),
        (None, ("eval", "also"), "eval.also", {"also": ["main"]}, "eval.also was [], now ['main']"),
    ],
)
def test_the_usual_value_of_a_later_option_may_be_named_and_no_other(usual, tmp_path, lacks, nested, key, now, says):
    options = replace(usual, out=str(tmp_path / "run"), resume=True)
    path = older(options, [lacks], [nested] if nested else [])
    assert to_config(runs.settle(options, [key])) == to_config(options)
    section = key.partition(".")[0]
    changed = replace(options, **(now if section == key else {section: replace(getattr(options, section), **now)}))
    with pytest.raises(ConfigError) as error:
        runs.settle(changed, [key])
    assert says in str(error.value) and str(path) in str(error.value)
    (path / "config.yaml").write_text(to_yaml(changed))
    assert to_config(runs.settle(options, ["updates"])) == to_config(changed)
