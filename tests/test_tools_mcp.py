"""The `mcp` tool against a real server, in a process of its own."""

import gc
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp")

from fakes import SumTasks
from swirl_env.contract import assert_contract
from swirl_env.env import build_engine
from swirl_env.errors import ConfigError, UnknownName
from swirl_env.registry import make_tool
from swirl_env.tools.mcp import Mcp
from swirl_env.tools.mcp.connection import ServerUnavailable
from swirl_env.types import Action, Task
from swirl_env.vector import ToolVectorEnv

SERVER = str(Path(__file__).with_name("mcp_server.py"))
COMMAND = (sys.executable, SERVER)
TASK = Task("t", "How many?")

pytestmark = pytest.mark.slow


def tool_of(*names: str, **options: Any) -> Mcp:
    return Mcp(command=COMMAND, tools=names or None, **options)


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def gone(pid: int) -> bool:
    """Whether a process ends within ten seconds."""
    for _ in range(200):
        if not running(pid):
            return True
        time.sleep(0.05)
    return False


def test_one_tool_takes_its_own_arguments() -> None:
    tool = tool_of("add")
    assert (tool.tag, tool.description) == ("add", "Adds two whole numbers.")
    assert set(tool.parameters["properties"]) == {"a", "b"} and set(tool.parameters["required"]) == {"a", "b"}
    results = tool.run([{"a": 2, "b": 40}, {"a": "x", "b": 1}, {"a": 1}])
    assert (results[0].text, results[0].error) == ("42", None)
    assert [result.error for result in results[1:]] == ["invalid", "invalid"]
    assert '"a"' in results[1].text and '"b"' in results[2].text


def test_several_tools_share_the_session_of_an_episode() -> None:
    tool = tool_of("add", "note")
    assert tool.tag == "mcp" and "- note: Writes a note" in tool.description
    assert tool.parameters["properties"]["tool"]["enum"] == ["add", "note"]
    session = tool.open(TASK, 0)
    calls = [("note", {"text": "one"}), ("add", {"a": 1, "b": 1}), ("note", {"text": "two"})]
    assert [session.run([{"tool": name, "arguments": arguments}])[0].text for name, arguments in calls] == [
        "one",
        "2",
        "one | two",
    ]
    mistakes = [
        {"tool": "end", "arguments": {}},
        {"tool": "add", "arguments": [1]},
        {"tool": "add", "arguments": {"a": 1}},
        "add",
    ]
    assert [result.error for result in session.run(mistakes)] == ["invalid"] * 4
    session.close()


def test_parallel_episodes_never_share_state() -> None:
    tool = tool_of("note")
    one, other = tool.open(TASK, 0), tool.open(TASK, 0)
    texts = [session.run([{"text": text}])[0].text for session, text in [(one, "a"), (other, "b"), (one, "c"), (other, "d")]]
    assert texts == ["a", "b", "a | c", "b | d"]
    one.close()
    assert other.run([{"text": "e"}])[0].text == "b | d | e"
    other.close()
    assert other.run([{"text": "f"}])[0].error == "unavailable"
    assert [result.text for result in tool.run([{"text": "g"}, {"text": "h"}])] == ["g", "h"]


def test_a_server_that_is_killed_gives_unavailable_and_the_next_episode_a_new_one() -> None:
    tool = tool_of("process", "note", "end")
    session = tool.open(TASK, 0)
    pid = int(session.run([{"tool": "process", "arguments": {}}])[0].text)
    assert session.run([{"tool": "note", "arguments": {"text": "a"}}])[0].text == "a"
    os.kill(pid, signal.SIGKILL)
    for _ in range(2):
        assert session.run([{"tool": "note", "arguments": {"text": "b"}}])[0].error == "unavailable"
    session.close()
    assert gone(pid)
    following = tool.open(TASK, 1)
    assert following.run([{"tool": "note", "arguments": {"text": "c"}}])[0].text == "c"
    assert following.run([{"tool": "end", "arguments": {}}])[0].error == "unavailable", "the server dies within the call"
    following.close()


def test_closing_a_session_ends_its_server() -> None:
    session = tool_of("process").open(TASK, 0)
    pid = int(session.run([{}])[0].text)
    assert running(pid)
    session.close()
    session.close()
    assert gone(pid)
    tool_of("process").open(TASK, 0).close()  # one that was never used


def test_errors_of_the_tool_timeouts_and_long_results_have_their_kinds() -> None:
    tool = tool_of("fail", "wait", "long", "add", timeout=4.0, max_chars=100)
    session = tool.open(TASK, 0)

    def call(name: str, **arguments: Any) -> Any:
        return session.run([{"tool": name, "arguments": arguments}])[0]

    failure = call("fail", reason="no such city")
    assert failure.error == "invalid" and "no such city" in failure.text
    assert call("long", n=101).error == "limit" and call("long", n=100).text == "x" * 100
    assert call("wait", seconds=60).error == "timeout"
    assert call("add", a=1, b=2).text == "3"
    session.close()


def test_secrets_are_named_and_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWIRL_TEST_SECRET", "s3cr3t")
    tool = tool_of("secret", env=["SWIRL_TEST_SECRET"])
    assert tool.run([{}])[0].text == "s3cr3t"
    assert "s3cr3t" not in repr(tool._address) + tool.fingerprint + tool.description
    assert tool_of("secret").run([{}])[0].text == "none", "nothing else of the environment is handed on"
    with pytest.raises(ConfigError, match=r"'SWIRL_NO_SUCH'.* is not set"):
        tool_of("secret", env=["SWIRL_NO_SUCH"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ConfigError, "command=.* or by url="),
        ({"command": ["x"], "url": "http://x"}, ConfigError, "one of them"),
        ({"command": []}, ConfigError, "names a program"),
        ({"url": "ftp://x"}, ConfigError, "begins with http"),
        ({"command": COMMAND, "headers": {"A": "B"}}, ConfigError, "servers with a url"),
        ({"command": COMMAND, "tools": ["ad"]}, UnknownName, "Did you mean 'add'"),
        ({"command": ["/no/such/program"]}, ServerUnavailable, "cannot be used"),
        ({"command": [sys.executable, "-c", "pass"], "startup_timeout": 20}, ServerUnavailable, "cannot be used"),
        ({"url": "http://127.0.0.1:9/mcp"}, ServerUnavailable, "cannot be used"),
    ],
)
def test_mistakes_get_one_sentence(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        make_tool({"name": "mcp", **options})
    assert "\n" not in str(caught.value)


@pytest.fixture
def http_server() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([*COMMAND, "http", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}/mcp", server
    server.kill()
    server.wait()


def test_a_server_over_http(http_server: tuple[str, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    url, server = http_server
    monkeypatch.setenv("SWIRL_TEST_SECRET", "s3cr3t")
    tool = Mcp(url=url, tools=["add"], timeout=10, headers={"Authorization": "SWIRL_TEST_SECRET"})
    session = tool.open(TASK, 0)
    assert session.run([{"a": 1, "b": 2}])[0].text == "3"
    server.kill()
    server.wait()
    assert session.run([{"a": 1, "b": 2}])[0].error == "unavailable"
    session.close()


def test_an_episode_goes_on_when_the_server_is_killed_and_parallel_ones_are_apart() -> None:
    venv = ToolVectorEnv(SumTasks(), 2, tools=[tool_of("process", "note")], judge=None, max_steps=4)

    def act(*texts: str) -> list[str]:
        calls = [
            '{"tool": "process", "arguments": {}}' if text == "pid" else json.dumps({"tool": "note", "arguments": {"text": text}})
            for text in texts
        ]
        observations, *_, ended, _ = venv.step([f"<mcp>{call}</mcp>" for call in calls])
        assert not any(ended)
        return [text.rpartition("-> ")[2] for text in observations]

    venv.reset(seed=0)
    assert act("a", "b") == ["a", "b"]
    first, second = map(int, act("pid", "pid"))
    assert first != second
    os.kill(first, signal.SIGKILL)
    lost, kept = act("c", "d")
    assert lost.startswith("error (unavailable): ") and kept == "b | d"
    _, _, terminated, _, _ = venv.step(["<answer>1</answer>", "<answer>2</answer>"])
    assert all(terminated)
    assert gone(second), "the session of an episode that is over is closed"
    venv.close()


def test_a_shared_session_serves_all_episodes_and_is_opened_again_when_lost() -> None:
    tool = make_tool({"name": "mcp", "command": COMMAND, "tools": ["note", "process"], "shared": True})
    sessions = [tool.open(TASK, seed) for seed in range(3)]  # type: ignore[attr-defined]

    def call(session: Any, name: str, **arguments: Any) -> Any:
        (result,) = session.run([{"tool": name, "arguments": arguments}])
        return result

    pids = {call(session, "process").text for session in sessions}
    assert len(pids) == 1 and call(sessions[0].fork(), "process").text in pids
    sessions[0].close()
    assert call(sessions[0], "process").error == "unavailable" and call(sessions[1], "process").error is None
    (pid,) = map(int, pids)
    os.kill(pid, signal.SIGKILL)
    assert call(sessions[1], "process").error == "unavailable", "what it knew of this episode is lost"
    assert call(sessions[1], "process").error == "unavailable"
    fresh = tool.open(TASK, 9)  # type: ignore[attr-defined]
    again = int(call(fresh, "process").text)
    assert again != pid
    del tool, sessions, fresh
    gc.collect()
    assert gone(again), "the server ends with the tool"


def test_episodes_with_a_shared_session_branch() -> None:
    options: dict[str, Any] = {"command": COMMAND, "tools": ["add"]}
    for shared in (True, False):
        engine = build_engine(SumTasks(1), tools=[{"name": "mcp", "shared": shared, **options}], judge=None, max_steps=4)
        state = engine.begin(engine.tasks[0])
        (moved,) = engine.step([state], [Action('<add>{"a": 1, "b": 2}</add>')])
        if shared:
            (twin,) = engine.fork([moved.state])
            (end,) = engine.step([twin], [Action('<add>{"a": 3, "b": 4}</add>')])
            assert end.step is not None and end.step.result is not None and end.step.result.text == "7"
        else:
            with pytest.raises(ConfigError, match="cannot fork"):
                engine.fork([moved.state])
        engine.abandon([moved.state])


def test_the_contract_holds(http_server: tuple[str, subprocess.Popen[bytes]]) -> None:
    assert_contract("tool", Mcp(url=http_server[0], tools=["add"]))


@pytest.mark.skipif(importlib.util.find_spec("mcp_server_time") is None, reason="needs the package mcp-server-time")
def test_a_server_from_the_package_index() -> None:
    command = [sys.executable, "-m", "mcp_server_time", "--local-timezone=Etc/UTC"]
    tool = make_tool({"name": "mcp", "command": command, "tools": ["convert_time"]})
    query = {"source_timezone": "Asia/Tokyo", "time": "12:00", "target_timezone": "Etc/UTC"}
    right, wrong = tool.run([query, {**query, "source_timezone": "Nowhere/City"}])  # type: ignore[list-item]
    assert right.error is None and "T03:00:00+00:00" in right.text
    assert wrong.error == "invalid"
    venv = ToolVectorEnv(SumTasks(), 1, tools=[{"name": "mcp", "command": command}], judge=None, max_steps=3)
    venv.reset(seed=0)
    call = json.dumps({"tool": "convert_time", "arguments": query})
    observations, *_ = venv.step([f"<mcp>{call}</mcp>"])
    assert "T03:00:00+00:00" in observations[0]
    venv.close()
