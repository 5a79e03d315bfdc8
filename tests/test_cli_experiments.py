"""Presets of experiments, and the training part of the benchmark with tasks, judges, tools and policies of one's own."""

import json
from importlib import resources
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from hydra.core.override_parser.overrides_parser import OverridesParser  # noqa: E402
from hydra.types import RunMode  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402

from commands import error_of  # noqa: E402
from swirl_env.benchmarks import compare  # noqa: E402
from swirl_env.config.arguments import compose_stage, read_arguments  # noqa: E402
from swirl_env.config.hydra_plugins import register  # noqa: E402
from swirl_env.config.options import BenchOptions, read  # noqa: E402
from swirl_env.registry import make  # noqa: E402
from swirl_env.stages.train_options import TrainOptions, checked  # noqa: E402
from weak import put_warm_starts  # noqa: E402

PRESETS = sorted(path.name.removesuffix(".yaml") for path in resources.files("swirl_env.conf").joinpath("experiment").iterdir())
JUDGE = "judge=fakes:Evens"
TINY = ["updates=1", "budget=null", "eval.episodes=4", "eval.before=false", "slots=8", "warm_start=0"]


@pytest.fixture(scope="module", autouse=True)
def plugins():
    register()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SWIRL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    put_warm_starts(tmp_path / "cache", "easy", "main", "sparse")


def composed(stage, *argv):
    config = compose_stage(stage, read_arguments(argv))
    return config.hydra, OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def test_the_presets_are_those_of_the_papers_tables():
    assert PRESETS == ["credit", "data_size", "filters", "judges", "transfer"]


@pytest.mark.parametrize("name", PRESETS)
def test_every_cell_of_a_preset_is_a_run_that_could_begin(name):
    hydra, _ = composed("train", f"+experiment={name}")
    assert hydra.mode == RunMode.MULTIRUN
    swept = OverridesParser.create().parse_overrides([f"{key}={values}" for key, values in hydra.sweeper.params.items()])
    assert [word.key_or_group for word in swept][-1] == "seed" and all(word.is_sweep_override() for word in swept)
    for word in swept:
        for value in word.sweep_string_iterator():
            _, config = composed("train", f"+experiment={name}", f"{word.get_key_element()}={value}", "out=x")
            options = checked(read("train", TrainOptions, config))
            assert options.policy == "embedded" and options.warm_start == options.seed
            make("algo", options.algo)


@pytest.mark.slow
def test_a_preset_is_a_sweep_without_being_asked_and_the_command_line_goes_before_it(swirl, cache):
    code, out, err = swirl(
        "train", "+experiment=data_size", "algo.questions=4,8", "algo.filter=none", "seed=0,1", JUDGE, *TINY, "out=s"
    )
    assert code == 0 and "4 runs in s" in out, err
    assert {path.name for path in Path("s").iterdir()} - {"multirun.yaml"} == {
        f"algo.questions={questions},seed={seed}" for questions in (4, 8) for seed in (0, 1)
    }


@pytest.mark.slow
def test_transfer_measures_every_policy_in_every_setting(swirl, cache):
    few = ["algo.questions=4", "algo.filter=none", "seed=0", "setting=easy,main", JUDGE]
    code, out, err = swirl("train", "+experiment=transfer", *few, *TINY, "out=s")
    assert code == 0, err
    also = json.loads(Path("s/setting=easy/evaluation.json").read_text())["also"]
    assert set(also) == {"easy", "main", "sparse"} and also["main"]["sampled"]["episodes"] == 4
    rows = [line for line in out[out.index("2 runs in s") :].splitlines() if "setting=" in line and not line.startswith("next")]
    assert len(rows) == 2
    after = json.loads(Path("s/setting=easy/evaluation.json").read_text())["after"]
    assert also["easy"]["greedy"]["accuracy"]["value"] == after["greedy"]["accuracy"]["value"]


def test_a_further_setting_that_is_none_is_refused_before_anything_is_trained(swirl):
    assert "No setting named 'esy'" in error_of(swirl("train", "eval.also=[esy]", "out=x"))
    assert "eval.also names settings" in error_of(swirl("train", "eval.also=[easy]", "task=atlas", "policy=gpt2", "out=x"))
    assert not Path("x").exists()


OWN = ["task=fakes:SumTasks", "task.n=3", "tool=[fakes:EchoTool]", "judge=noisy", "judge.flip=0.25", "policy=folder/model"]


def test_the_training_part_of_the_benchmark_passes_on_what_is_its_users_own():
    argv = ["part=training", *OWN, "split=test", "+common.lora.rank=4", "+common.model.template=plain", "algos=[grpo]", "out=b"]
    options = read("bench", BenchOptions, composed("bench", *argv)[1])
    (arm,) = compare.arms(options)
    _, config = composed("train", *arm.overrides, f"out={arm.folder}")
    train = checked(read("train", TrainOptions, config))
    assert train.task == {"name": "fakes:SumTasks", "n": 3} and list(train.tool) == ["EchoTool"]
    assert train.judge["name"] == "noisy" and train.judge["flip"] == 0.25 and train.policy == "folder/model"
    assert (train.lora.rank, train.model.template, train.eval.split) == (4, "plain", "test")
    assert train.algo["name"] == "grpo" and train.algo["samples"] == 8 and train.budget == options.budget


def test_arms_go_before_what_is_common_to_all():
    argv = ["part=training", "+common.trainer.lr=0.5", "+common.trainer.kl=0.1", "algos=[rft,swirl]", "out=b"]
    options = read("bench", BenchOptions, composed("bench", *argv)[1])
    for arm in compare.arms(options):
        _, config = composed("train", *arm.overrides, f"out={arm.folder}")
        train = checked(read("train", TrainOptions, config))
        assert train.trainer.kl == 0.1 and train.trainer.lr == options.arms[arm.name]["trainer"]["lr"] != 0.5
        assert train.judge["name"] == "rules" and train.task is None


def test_a_comparison_without_held_out_questions_is_refused(swirl):
    assert "split=..." in error_of(swirl("bench", "part=training", *OWN, "algos=[grpo]", "out=b"))
    assert not Path("b").exists()


def test_the_defaults_are_those_of_training():
    options = read("bench", BenchOptions, composed("bench", "out=b")[1])
    assert options.policy == "embedded" and options.task is None and options.judge["name"] == "rules"
