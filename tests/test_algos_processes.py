"""Two processes over gloo: unequal shares never deadlock, and figures and weights are those of one process."""

import os
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the trainer needs torch")
pytest.importorskip("transformers", reason="the tests run tiny models")
pytest.importorskip("accelerate", reason="the launcher is accelerate's")
pytest.importorskip("peft", reason="LoRA comes from peft")

from two_processes import launched, run_group  # noqa: E402

SCRIPT = """
import sys; sys.path.insert(0, sys.argv[1])
import json, torch, transformers
from accelerate import Accelerator
from swirl_env.algos.measure import Measure
from swirl_env.algos.train_config import TrainConfig
from swirl_env.algos.trainer import Trainer
from test_algos_layouts import text_and_images
from test_algos_reference import adapted
from test_algos_run import engine, untrained
from test_algos_trainer import some_steps, tiny, weights

accelerator = Accelerator(cpu=True)
rank, world = accelerator.process_index, accelerator.num_processes

def updates(model, config, several):
    trainer = Trainer(model, config, accelerator)
    for u in range(several):
        steps, gain, valid = some_steps(u)
        # All but the last episode with the first process: many micro-batches there, one or none here.
        last = steps[-1].episode
        mine = [i for i, s in enumerate(steps) if world == 1 or (s.episode == last) == (rank == 1)]
        metrics = trainer.update([steps[i] for i in mine], [gain[i] for i in mine], [valid[i] for i in mine])
    logprobs = trainer.logprobs(some_steps(0)[0] if rank == 0 else [])  # one process scores alone
    trainer.scorer = trainer.bare
    accelerator.free_memory()
    return metrics, logprobs

results = {}
for name, model, config in (
    ("lora", adapted(), TrainConfig(lr=1e-2, kl=0.5, micro_tokens=20)),
    ("full", tiny(), TrainConfig(lr=1e-2, kl=0.5, micro_tokens=20)),
    ("images", text_and_images(), TrainConfig(lr=1e-2, micro_tokens=20)),
):
    metrics, _ = updates(model, config, 3)
    results[name] = metrics
    torch.save(weights(model), f"{sys.argv[2]}/{name}-{rank}.pt")
torch.manual_seed(0)
model, agent = untrained()
measure = Measure([engine()], 10, 5, 4, accelerator)
results["measure"] = {how: found.to_dict() for how, found in measure.full(agent).items()}
with open(f"{sys.argv[2]}/results-{rank}.json", "w") as file:
    json.dump(results, file)
accelerator.end_training()
"""


@pytest.mark.slow
def test_unequal_shares_end_as_one_process_does(tmp_path):
    (one,), (alone,) = launched(tmp_path / "one", 1, SCRIPT)
    two, both = launched(tmp_path / "two", 2, SCRIPT)
    assert two[0]["measure"] == two[1]["measure"] == one["measure"]
    for results, tensors in zip(two, both, strict=True):
        for name in ("lora", "full", "images"):
            torch.testing.assert_close(tensors[name], alone[name], atol=1e-5, rtol=0, msg=name)
            for key, value in one[name].items():
                assert results[name][key] == pytest.approx(value, rel=1e-3, abs=1e-5), (name, key)
            assert results[name]["stepped"] == 1


FSDP = """
import sys; sys.path.insert(0, sys.argv[1])
from accelerate import Accelerator
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from swirl_env.algos.train_config import TrainConfig
from swirl_env.algos.trainer import Trainer
from swirl_env.errors import ConfigError
from test_algos_trainer import tiny
accelerator, model = Accelerator(cpu=True), tiny()
if sys.argv[3] == "fully_shard":
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
try:
    Trainer(model, TrainConfig(), accelerator)
except ConfigError as error:
    open(f"{sys.argv[2]}/{accelerator.process_index}", "w").write(str(error))
accelerator.end_training()
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["fully_shard", "FSDP"])
def test_split_weights_are_refused_in_every_process(way, tmp_path):
    (tmp_path / "script.py").write_text(FSDP)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    env |= {} if way == "fully_shard" else {f"ACCELERATE_USE_{way}": "true"}
    words = [tmp_path / "script.py", Path(__file__).parent, tmp_path, way]
    for rank, (_, _, err) in enumerate(run_group(words, 2, env, 200)):
        message = (tmp_path / str(rank)).read_text() if (tmp_path / str(rank)).is_file() else err[-2000:]
        assert "is asked for, which splits the weights" in message
