"""``swirl bench`` killed or terminated: its training processes end with it, and the same folder is gone on with."""

import os
import signal
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("matplotlib", reason="the curves need matplotlib")

from commands import finish, started  # noqa: E402
from swirl_env.algos.embedded import SETTINGS, build_model, build_tokenizer  # noqa: E402
from swirl_env.algos.warm_start import WarmStart, fingerprint, save  # noqa: E402

pytestmark = pytest.mark.slow
FEW = ["part=training", "algos=[return_to_go]", "setting=easy", "budget=100000", "episodes=4", "seeds=[0]", "out=b"]


def at_work(folder):
    """Returns the processes whose working directory is a folder; those that have ended and wait to be reaped do not count."""
    processes = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            ended = path.joinpath("stat").read_text().rpartition(")")[2].split()[0] in "ZX"
            if not ended and os.readlink(path / "cwd") == str(folder):
                processes.append(int(path.name))
        except OSError:
            continue
    return processes


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="looks for the processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])  # SIGTERM is made an interrupt for every command
def test_training_processes_end_with_the_benchmark(tmp_path, number):
    tokenizer = build_tokenizer()
    name = f"easy-0-{fingerprint(SETTINGS['easy'], 0, WarmStart())}"
    save(build_model(len(tokenizer), 0), tokenizer, tmp_path / "cache/warm-starts" / name)
    env = {**os.environ, "SWIRL_CACHE_DIR": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    process = started(tmp_path, "bench", *FEW, env=env)
    while not any(tmp_path.glob("b/train-*/evaluation.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    assert len(at_work(tmp_path)) >= 2
    process.send_signal(number)
    code, _, err = finish(process)
    until = time.monotonic() + 120
    while at_work(tmp_path) and time.monotonic() < until:
        time.sleep(0.05)
    assert not at_work(tmp_path)
    assert code == {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130}[number]
    assert number == signal.SIGKILL or "To go on: swirl bench part=training" in err
