"""Checkpoints: no pickle, adapters alone, the newest whole one; resume is exact."""

import json
import random
import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the trainer needs torch")
pytest.importorskip("transformers", reason="the tests run a tiny Llama")
pytest.importorskip("accelerate", reason="the trainer stands on accelerate")

from safetensors.torch import load_file  # noqa: E402
from test_algos_reference import adapted  # noqa: E402
from test_algos_run import untrained  # noqa: E402
from test_algos_trainer import some_steps, tiny, weights  # noqa: E402
from test_algos_update import colours  # noqa: E402

from fakes import Evens  # noqa: E402
from swirl_env.algos.batch import TokenStep  # noqa: E402
from swirl_env.algos.checkpoint import is_whole, load_random, save_random, seal  # noqa: E402
from swirl_env.algos.run import Limits, Run  # noqa: E402
from swirl_env.algos.swirl import Swirl  # noqa: E402
from swirl_env.algos.train_config import TrainConfig  # noqa: E402
from swirl_env.algos.trainer import Trainer  # noqa: E402
from swirl_env.errors import StoreError  # noqa: E402

POLICIES = {"full": tiny, "bfloat16": lambda: tiny().bfloat16(), "lora": adapted, "lora with dropout": lambda: adapted(0.3)}


@pytest.mark.parametrize("name", POLICIES)
def test_training_goes_on_bit_for_bit(name, tmp_path):
    config = TrainConfig(lr=1e-2, warmup=2, schedule="cosine", updates=6, kl=0.1)
    torch.manual_seed(0)
    straight = Trainer(POLICIES[name](), config)
    for u in range(3):
        straight.update(*some_steps(u))
    straight.save(tmp_path / "at")
    rows = [straight.update(*some_steps(u)) for u in range(3, 6)]
    torch.manual_seed(0)
    resumed = Trainer(POLICIES[name](), config)
    torch.manual_seed(5)  # whatever was drawn meanwhile
    resumed.load(tmp_path / "at")
    assert [resumed.update(*some_steps(u)) for u in range(3, 6)] == rows
    assert torch.equal(weights(straight.model), weights(resumed.model))


def test_no_file_of_a_checkpoint_is_a_pickle(tmp_path):
    trainer = Trainer(tiny(), TrainConfig(lr=1e-2))
    trainer.update(*some_steps(0))
    trainer.save(tmp_path)
    for file in tmp_path.iterdir():
        assert file.suffix in (".safetensors", ".json"), file
        if file.suffix == ".json":
            json.loads(file.read_text())
        else:
            load_file(file)  # its header is JSON, its body numbers


def test_nothing_in_a_checkpoint_is_unpickled(tmp_path, monkeypatch):
    trainer = Trainer(tiny(), TrainConfig(lr=1e-2))
    trainer.update(*some_steps(0))
    trainer.save(tmp_path)

    def refuse(*args, **kwargs):
        raise AssertionError("unpickled")

    for place in ("pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load"):
        monkeypatch.setattr(place, refuse)
    Trainer(tiny(), TrainConfig(lr=1e-2)).load(tmp_path)


def test_a_checkpoint_of_adapters_holds_the_adapters_alone(tmp_path):
    model = adapted()
    trainer = Trainer(model, TrainConfig(lr=1e-2))
    trainer.update(*some_steps(0))
    trainer.save(tmp_path)
    names = set(load_file(tmp_path / "policy.safetensors"))
    assert names == {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert all("lora_" in name for name in names)
    adapters = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    size = sum(file.stat().st_size for file in tmp_path.glob("[po]*.safetensors"))
    assert size < 3 * 4 * adapters + 20_000  # weights and two moments of them, and names


def test_a_checkpoint_of_another_policy_is_refused(tmp_path):
    Trainer(adapted(), TrainConfig(lr=1e-2)).save(tmp_path / "a")
    with pytest.raises(StoreError, match="a checkpoint of another policy"):
        Trainer(tiny(), TrainConfig(lr=1e-2)).load(tmp_path / "a")


def test_random_states_come_back(tmp_path):
    random.gauss(0, 1)
    np.random.normal()  # leaves a second number for the next call
    save_random(tmp_path, 0)
    drawn = [random.random(), random.gauss(0, 1), np.random.normal(), np.random.rand(), torch.rand(3).tolist()]
    load_random(tmp_path, 0)
    assert drawn == [random.random(), random.gauss(0, 1), np.random.normal(), np.random.rand(), torch.rand(3).tolist()]
    load_random(tmp_path, 1)  # a run that goes on with more processes


DAMAGE = {
    "an empty file": lambda folder: (folder / "policy.safetensors").write_bytes(b""),
    "a missing file": lambda folder: (folder / "trainer.json").unlink(),
    "a flipped byte": lambda folder: flip(folder / "optimizer.safetensors"),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "a torn manifest": lambda folder: (folder / "manifest.json").write_text('{"policy.saf'),
}


def flip(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of six updates with checkpoints after the fourth and the sixth, and its weights."""
    folder = tmp_path_factory.mktemp("run")
    run = started(folder, Limits(updates=6))
    algorithm().train(run)
    return folder, weights(run.agent.model)


def started(folder, limits, **kwargs):

    torch.manual_seed(0)
    model, agent = untrained()
    trainer = Trainer(model, TrainConfig(lr=1e-2))
    return Run(agent, colours(Evens()), trainer, folder, limits, slots=8, seed=1, save_every=2, **kwargs)


def algorithm():
    return Swirl(questions=8, filter="none", states_per_update=8, updates_per_round=3, rounds=0)


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_newest_whole_checkpoint_is_used(damage, finished, tmp_path, caplog):
    folder, expected = tmp_path / "run", finished[1]
    shutil.copytree(finished[0], folder)
    newest = folder / "checkpoints/00000006"
    assert is_whole(newest)
    DAMAGE[damage](newest)
    assert not is_whole(newest)
    run = started(folder, Limits(updates=6), resume=True)
    assert run.spent.updates == 4 and "is damaged; going on from" in caplog.text
    algorithm().train(run)
    assert torch.equal(weights(run.agent.model), expected)
    assert (folder / "metrics.jsonl").read_text() == (finished[0] / "metrics.jsonl").read_text()


def test_a_run_whose_checkpoints_are_all_damaged_is_refused_and_left_as_it_is(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    for checkpoint in (folder / "checkpoints").iterdir():
        DAMAGE["an empty file"](checkpoint)
    before = (folder / "metrics.jsonl").read_bytes()
    with pytest.raises(StoreError, match=r"No checkpoint in .* is whole"):
        started(folder, Limits(updates=6), resume=True)
    assert (folder / "metrics.jsonl").read_bytes() == before and len(list((folder / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize(("left", "lost"), [(None, 6), (0, 6), (4, 2), (6, 0)])
def test_rows_of_the_metrics_that_are_gone_are_told_when_a_run_goes_on(left, lost, finished, tmp_path, caplog):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    metrics = folder / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.unlink() if left is None else metrics.write_text("".join(lines[:left]))
    assert started(folder, Limits(updates=6), resume=True).spent.updates == 6
    told = f"metrics.jsonl lacks {lost} of the 6 updates before the checkpoint"
    assert (told in caplog.text) is (lost > 0) and ("metrics.jsonl lacks" in caplog.text) is (lost > 0)


def test_a_manifest_that_points_elsewhere_is_not_followed(tmp_path):
    (tmp_path / "at").mkdir()
    (tmp_path / "secret").write_text("{}")
    (tmp_path / "at/trainer.json").write_text("{}")
    seal(tmp_path / "at")
    entries = json.loads((tmp_path / "at/manifest.json").read_text())
    (tmp_path / "at/manifest.json").write_text(json.dumps({**entries, "../secret": entries["trainer.json"]}))
    assert not is_whole(tmp_path / "at")


def test_rows_of_a_log_are_json_whatever_the_figures(tmp_path):
    run = started(tmp_path, Limits(updates=3))
    for figure in (float("nan"), float("inf"), 1.0):
        run.update([TokenStep((1, 2), (3,))], [1.0], [True], figure=figure)
    rows = [json.loads(line, parse_constant=pytest.fail) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["figure"] for row in rows] == [None, None, 1.0]
