"""verifiers, OpenEnv and Inspect run the exported AtlasLedger with their own runners: rewards are ours, step by step."""

import importlib.util
import json
import os
import re
import socket
import subprocess
import time
import urllib.request
from types import SimpleNamespace

import pytest
from conftest import ROOT

from commands import page_commands
from peer_model import ScriptedModel, scripted_episodes
from peer_venv import environment_of, install_package, own_python, peer_python, run_peer, run_script

pytestmark = [pytest.mark.peers, pytest.mark.slow]
HEADING = "Make the package and run it"
SPARING = '''

def sparing(step: SubTrajectory) -> Verdict:
    """Judges as the rules do, and has no opinion on searches that bring something."""
    (verdict,) = RULES.judge([step])
    return Verdict.unscored() if isinstance(step.call, ToolCall) and step.call.tool == SEARCH and verdict.reward else verdict


RULES = make_judge("rules")
'''


@pytest.fixture
def export(swirl, tmp_path, request):
    """The package of a peer as its page makes it, with a judge that leaves steps unscored and few steps; its command."""
    kind = request.param
    new, install, command = page_commands(f"{kind}.md", HEADING)
    assert new[:2] == ["swirl", "new-export"] and install == ["pip", "install", "-e", "my_env"]
    assert swirl(*new[1:])[0] == 0
    source = tmp_path / "my_env" / "my_env" / "engine.py"
    head = "from swirl_env import make_judge\nfrom swirl_env.types import SEARCH, SubTrajectory, ToolCall, Verdict\n"
    text = source.read_text().replace("from swirl_env.env", head + "from swirl_env.env")
    text = text.replace("\n\nTASK", SPARING + "TASK").replace('judge="rules"', "judge=sparing, max_steps=4")
    source.write_text(text)
    install_package(tmp_path / "my_env", tmp_path / "site")
    spec = importlib.util.spec_from_file_location("exported_engine", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return SimpleNamespace(engine=module.make_engine(), command=command, site=tmp_path / "site", folder=tmp_path)


def check(seen, episodes):
    """Compares {task id: rewards per message} with our own loop's."""
    ours = {own.task.id: [step.verdict.reward for step in own.steps] for own in episodes.values()}
    assert seen == ours and len(ours) == 8
    rewards = [reward for own in ours.values() for reward in own]
    assert None in rewards and 0.0 in rewards and 1.0 in rewards
    assert {own.ended for own in episodes.values()} == {"answered", "budget"}


def with_values(command, **values):
    return [values.get(word, word) for word in command]


@pytest.mark.parametrize("export", ["verifiers"], indirect=True)
def test_verifiers_runs_the_taskset(export):
    python = own_python("verifiers", "verifiers>=0.4,<0.5", "uv")
    # verifiers' loop ends at a message without a call, so that a malformed one would end the episode early.
    episodes = scripted_episodes(export.engine, kinds=["wrong_entity", "repeat", "premature"])
    variables = {"HOME": str(python.parent.parent), "MODEL_KEY": "x", "UV_CACHE_DIR": str(python.parent.parent / "uv")}
    environment = environment_of(python, export.site, **variables)
    with ScriptedModel(export.engine, episodes) as model:
        command = with_values(export.command, MODEL="scripted", URL=model.url)
        quiet = ["--no-rich", "--client.api-key-var", "MODEL_KEY", "-o", "out", "--run.name", "run"]
        run_script(python, [*command, *quiet], env=environment, cwd=export.folder)
    lines = (export.folder / "out" / "run" / "traces.jsonl").read_text().splitlines()
    traces = [trace for line in lines for trace in (lambda record: record.get("traces", [record]))(json.loads(line))]
    check({trace["task"]["data"]["id"]: trace["info"]["turn_rewards"] for trace in traces}, episodes)
    own = {trajectory.task.id: trajectory for trajectory in episodes.values()}
    for trace in traces:
        ours = own[trace["task"]["data"]["id"]]
        assert trace["ok"] and trace["rewards"]["outcome"]["score"] == float(ours.outcome.correct)
        assert [step["status"] for step in trace["info"]["swirl"]["steps"]] == [step.verdict.status for step in ours.steps]
        assert trace["info"]["swirl"]["ended"] == ours.ended


@pytest.mark.parametrize("export", ["inspect"], indirect=True)
def test_inspect_runs_the_task(export):
    python = own_python("inspect", "inspect-ai>=0.3.285,<0.4", "openai")
    episodes = scripted_episodes(export.engine)
    environment = environment_of(python, export.site)
    with ScriptedModel(export.engine, episodes) as model:
        environment |= {"SCRIPTED_BASE_URL": model.url, "SCRIPTED_API_KEY": "x", "INSPECT_LOG_FORMAT": "json"}
        command = with_values(export.command, MODEL="openai-api/scripted/m")
        run_script(python, [*command, "--display", "none", "--log-dir", "logs"], env=environment, cwd=export.folder)
    (log,) = map(json.loads, (path.read_text() for path in (export.folder / "logs").glob("*.json")))
    scores = {sample["id"]: sample["scores"]["judged"] for sample in log["samples"]}
    check({task_id: score["metadata"]["turn_rewards"] for task_id, score in scores.items()}, episodes)
    for ours in episodes.values():
        score = scores[ours.task.id]
        assert score["value"] == float(ours.outcome.correct) and score.get("answer") == ours.outcome.answer
        assert [step["critique"] for step in score["metadata"]["steps"]] == [step.verdict.critique for step in ours.steps]
    assert "malformed" in {step["kind"] for score in scores.values() for step in score["metadata"]["steps"]}


@pytest.mark.parametrize("export", ["inspect"], indirect=True)
def test_inspect_scores_nan_with_a_reason_without_a_gold_answer_and_runs_its_own_agents(export):
    python = own_python("inspect", "inspect-ai>=0.3.285,<0.4", "openai")
    command = [os.path.relpath(ROOT / "tests" / "peer_inspect.py", python.parent), str(ROOT / "docs" / "inspect.md"), "logs"]
    environment = environment_of(python, export.site)
    seen = json.loads(run_script(python, command, env=environment, cwd=export.folder).splitlines()[-1])
    assert seen["nan"] and seen["reason"] == "scoring_failed" and seen["explanation"] == "The question has no gold answer."
    assert seen["turns"] == [None, None, None] and seen["answer"] == "much" and seen["unscored"] == 1
    assert seen["roles"] == ["user", "assistant", "tool", "assistant", "user", "assistant", "tool"]
    assert [step["kind"] for step in seen["react"]] == ["call", "malformed", "answer"]
    assert seen["thinking"] == [None, 1.0, 0.5] and seen["as_text"] == [1.0, 0.5]
    assert seen["shown"][0] == "42" and "query" in seen["shown"][1]


@pytest.mark.parametrize("export", ["openenv"], indirect=True)
def test_openenv_serves_eight_sessions_at_once(export):
    python = own_python("openenv", "openenv>=0.10,<0.11")
    episodes = scripted_episodes(export.engine)
    environment = environment_of(python, export.site)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    url = f"http://127.0.0.1:{port}"
    words = with_values(export.command, **{"8000": port})
    server = subprocess.Popen([python, python.parent / words[0], *words[1:]], env=environment, cwd=export.folder)
    try:
        wait_for(server, f"{url}/health")
        (page,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "openenv.md").read_text(), re.DOTALL)
        asked = [{"task_id": own.task.id, "actions": [step.action.text for step in own.steps]} for own in episodes.values()]
        given = {"url": url, "episodes": asked, "page": page.replace("http://127.0.0.1:8000", url)}
        script = [os.path.relpath(ROOT / "tests" / "peer_openenv.py", python.parent)]
        out = run_script(python, script, env=environment, cwd=export.folder, input=json.dumps(given))
    finally:
        server.terminate()
        server.wait()
    seen = json.loads(out.splitlines()[-1])
    played = dict(zip((one["task_id"] for one in asked), seen["played"], strict=True))
    check({task_id: one["rewards"] for task_id, one in played.items()}, episodes)
    for prompt, ours in episodes.items():
        one = played[ours.task.id]
        assert one["prompt"] == prompt and one["texts"] == [step.observation for step in ours.steps]
        assert one["done"] == [False] * (len(ours.steps) - 1) + [True] and one["state"] == one["rewards"]
        assert (one["ended"], one["correct"]) == (ours.ended, ours.outcome.correct)
        assert one["verdict"]["critique"] == ours.steps[-1].verdict.critique and "Call reset before step" in one["after"]
    assert "Question:" in seen["printed"] and "salary -> " in seen["printed"]


def wait_for(server, address):
    for _ in range(600):
        assert server.poll() is None, "the server ended"
        try:
            return urllib.request.urlopen(address, timeout=5).close()
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server does not answer")


def test_tinkers_rollouts_reward_the_recipe_as_ours(tmp_path):
    needs = ("tinker>=0.38", "chz", "blobfile", "termcolor", "distro", "orjson", "zstandard", "sniffio")
    python = peer_python("tinker-cookbook-0.6", "tinker-cookbook>=0.6,<0.7", *needs)
    seen = json.loads(run_peer(python, "peer_tinker.py", str(ROOT / "docs" / "recipes.md")))
    assert len(seen["ours"]) == 8 and seen["theirs"] == seen["ours"]
    assert seen["unscored"] == seen["missing"] and sum(seen["missing"]) > 0
    assert seen["failed"] == "The judge failed: away"


def test_the_recipe_for_nemo_gym_is_python():
    *_, code = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "recipes.md").read_text(), re.DOTALL)
    assert "GymnasiumServer" in code and compile(code, "recipes.md", "exec")
