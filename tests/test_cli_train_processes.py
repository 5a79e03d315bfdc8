"""``swirl train`` under accelerate's launcher: two processes train as one does, and nothing but its own words is printed."""

import os
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("accelerate", reason="the launcher is accelerate's")

from safetensors.torch import load_file  # noqa: E402

import forked  # noqa: E402
from swirl_env.algos.embedded import SETTINGS, build_model, build_tokenizer  # noqa: E402
from swirl_env.algos.warm_start import WarmStart, fingerprint, save  # noqa: E402
from two_processes import run_group  # noqa: E402

RUN = ["train", "algo=return_to_go", "algo.episodes_per_update=4", "setting=easy", "max_steps=2", "updates=3"]
RUN += ["judge=fakes:Evens", "model.max_new_tokens=8", "slots=4", "eval.episodes=0", "save_every=2"]
LAUNCH = ["-m", "accelerate.commands.launch", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache with the warm start of a setting: one that was never trained."""
    root = tmp_path_factory.mktemp("cache")
    tokenizer = build_tokenizer()
    folder = root / "warm-starts" / f"easy-0-{fingerprint(SETTINGS['easy'], 0, WarmStart())}"
    save(build_model(len(tokenizer), 0), tokenizer, folder)
    return root


def launch(folder, cache, *how):
    """Runs the stage in a folder under accelerate's launcher; returns what it printed, but for the progress of a slow machine."""
    command = [*LAUNCH, *how, "-m", "swirl_env.cli", *RUN, "out=run"]
    given = {"SWIRL_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    folder.mkdir()
    done = forked.run(command, cwd=folder, env={**os.environ, **given}, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines(), words_of(done.stderr)


def words_of(err):
    return [line for line in err.splitlines() if not line.startswith("train return_to_go: ")]


def sharded(folder, cache):
    """Runs the stage in two processes with what is split between them; returns what both printed."""
    folder.mkdir()
    env = {**os.environ, "SWIRL_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    words = ["-m", "swirl_env.cli", *RUN, "trainer.shard=true", f"out={folder / 'run'}"]
    ends = run_group(words, 2, {**env, "ACCELERATE_USE_CPU": "true"}, 240)
    assert [code for code, _, _ in ends] == [0, 0], ends
    out = "".join(out for _, out, _ in ends).replace(f"{folder}/", "")
    return out.splitlines(), words_of("".join(err for _, _, err in ends))


@pytest.mark.slow
def test_two_processes_train_to_the_weights_of_one(cache, tmp_path):
    one = launch(tmp_path / "one", cache, "--cpu", "--num_processes", "2")  # one process, then: there is no MPI here
    two = launch(tmp_path / "two", cache, "--multi_gpu", "--num_processes", "2", "--main_process_port", "0")
    split = sharded(tmp_path / "split", cache)
    start, alone, both, parted = (
        load_file(folder / "model.safetensors")
        for folder in (*cache.glob("warm-starts/*[!k]"), *(tmp_path / f"{way}/run/policy" for way in ("one", "two", "split")))
    )
    for name, weight in alone.items():
        torch.testing.assert_close(both[name], weight, atol=1e-5, rtol=0, msg=name)
        torch.testing.assert_close(parted[name], weight, atol=1e-5, rtol=0, msg=name)
    assert max((weight - start[name]).abs().max() for name, weight in alone.items()) > 1e-3  # training did something
    # One warning where two processes were asked for and one came; of checkpoints and the like not a word, from anyone.
    assert len(one[1]) == 1 and "--multi_gpu --num_processes N" in one[1][0]
    assert two[1] == split[1] == []
    assert one[0] == two[0] == split[0] and one[0][-1].startswith("next: swirl eval trained=run")
