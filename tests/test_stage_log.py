"""The stages of a long benchmark end with the command that runs them."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from swirl_env.store import Store


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_the_stage_and_with_it_the_command(tmp_path, number):
    words = ["generate", "task=ledger", "agent=scripted", "n=200000", "samples=50", "out=run"]
    code = "import pathlib, sys; from swirl_env.benchmarks.stage_log import Log; "
    code += f"sys.exit(Log(pathlib.Path('stages.jsonl')).run('long', {words}, None))"
    driver = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, text=True, process_group=0)
    while not any((tmp_path / "run/trajectories").glob("*.jsonl")):
        assert driver.poll() is None
        time.sleep(0.05)
    if number == signal.SIGINT:
        os.killpg(driver.pid, number)  # as a terminal does
    else:
        driver.send_signal(number)
    _, said = driver.communicate(timeout=60)  # the pipe is closed when the stage has ended too
    assert "swirl: interrupted." in said and "To go on: swirl generate out=run resume=true" in said
    (row,) = map(json.loads, (tmp_path / "stages.jsonl").read_text().splitlines())
    assert row["code"] == driver.returncode == 128 + number
    Store(tmp_path / "run").close()  # nobody writes it any more
