"""The agent of OpenAI-compatible servers, against a real HTTP server: good replies, every fault, and what must not leak."""

import asyncio
import contextlib
import logging
import os

import pytest

pytest.importorskip("openai")

from chat_server import FAULTS, ChatServer, one_in
from fakes import EchoTool, SumTasks
from states import begin
from swirl_env.agents.openai import OpenAIAgent
from swirl_env.env import build_engine
from swirl_env.errors import ConfigError
from swirl_env.rollout import collect

KEY = "sk-secret-of-the-test-0123456789"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("SWIRL_TEST_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def agent(server, **options):
    options = {"api_key_env": "SWIRL_TEST_KEY", "attempts": 8, "timeout_s": 10.0, **options}
    urls = server.url if isinstance(server, ChatServer) else [s.url for s in server]
    return OpenAIAgent("tiny", urls, **options)


def ask(policy, *questions):
    try:
        return policy.act([begin(question) for question in questions])
    finally:
        policy.close()


def test_replies_come_in_order_with_their_closing_tags():
    with ChatServer(delay_s=lambda n: 0.02 * (n == 0)) as server:
        actions = ask(agent(server), "What is 1 + 2 ?", "What is 3 + 4 ?")
    assert [action.text for action in actions] == ["<answer>3</answer>", "<answer>7</answer>"]
    assert server.keys == {f"bearer {KEY}".lower()}
    assert server.requests[0]["stop"] == ["</answer>"] or "</answer>" in server.requests[0]["stop"]


def test_ids_are_kept_if_the_server_returns_them():
    with ChatServer(ids=True) as server:
        (action,) = ask(agent(server), "What is 1 + 2 ?")
    assert action.text == "<answer>3</answer>"
    assert "".join(map(chr, action.token_ids)) == action.text
    assert action.prompt_ids == (1, 2, 3) and action.logprobs == (-0.5,) * len(action.token_ids)


@pytest.mark.parametrize("token_ids", ["auto", "off"])
def test_servers_without_ids_give_text_alone(token_ids):
    with ChatServer() as server:
        (action,) = ask(agent(server, token_ids=token_ids), "What is 1 + 2 ?")
    assert (action.text, action.token_ids, action.logprobs) == ("<answer>3</answer>", (), ())


def test_fields_that_a_server_refuses_are_left_out_from_then_on():
    with ChatServer(refuse=("return_token_ids",)) as server:
        actions = ask(agent(server, concurrency=1), "What is 1 + 2 ?", "What is 2 + 2 ?")
    assert [a.text for a in actions] == ["<answer>3</answer>", "<answer>4</answer>"]
    assert sum("return_token_ids" in request for request in server.requests) <= 2


def test_ids_that_are_required_and_missing_are_an_error():
    with ChatServer() as server, pytest.raises(ConfigError, match="returned no token ids"):
        ask(agent(server, token_ids="require"), "What is 1 + 2 ?")


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_retried_and_then_recorded(fault):
    timeout_s = 0.5 if fault == "hang" else 10.0
    with ChatServer(fault=lambda n: fault if n < 2 else None) as server:
        policy = agent(server, timeout_s=timeout_s)
        (action,) = ask(policy, "What is 1 + 2 ?")
        assert action.text == "<answer>3</answer>" and policy.stats["retries"] == 2
    with ChatServer(fault=lambda n: fault) as server:
        policy = agent(server, attempts=2, timeout_s=timeout_s)
        (action,) = ask(policy, "What is 1 + 2 ?")
        assert action.error == "unavailable" and action.text == "" and len(server.requests) == 2


def test_a_failed_server_is_left_for_another():
    with ChatServer(fault=lambda n: 500) as broken, ChatServer() as whole:
        actions = ask(agent([broken, whole]), *["What is 1 + 2 ?"] * 12)
    assert {a.text for a in actions} == {"<answer>3</answer>"}
    assert whole.faults[None] == 12


@pytest.mark.parametrize(("status", "sentence"), [(401, "SWIRL_TEST_KEY"), (404, "no such model"), (400, "refused the request")])
def test_what_no_retry_can_fix_is_one_error_without_the_key(status, sentence):
    with ChatServer(fault=lambda n: status) as server, pytest.raises(ConfigError, match=sentence) as raised:
        ask(agent(server), "What is 1 + 2 ?")
    assert len(server.requests) == 1 and KEY not in str(raised.value)


def test_a_prompt_over_the_context_ends_the_episode_as_too_long():
    class Full(ChatServer):
        async def _respond(self, writer, request):
            message = "This model's maximum context length is 8 tokens."
            return await self._send(writer, 400, {"error": {"message": message}})

    with Full() as server:
        (action,) = ask(agent(server), "What is 1 + 2 ?")
    assert action.error == "length"


def test_concurrency_is_bounded_per_server():
    with ChatServer(delay_s=lambda n: 0.02) as server:
        ask(agent(server, concurrency=3), *["What is 1 + 2 ?"] * 12)
    assert server.most_in_flight == 3


def test_a_stop_string_within_the_reasoning_does_not_end_the_action():
    def think(request):
        return "<think>maybe <answer>9</answer> or so</think><answer>3</answer>"

    with ChatServer(think) as server:
        (action,) = ask(agent(server), "What is 1 + 2 ?")
    assert action.text == think(None)
    assert [bool(request.get("stop")) for request in server.requests] == [True, False]


@pytest.mark.parametrize(("reason", "truncated"), [("length", True), ("stop", False), (None, False)])
def test_replies_that_the_limit_cut_off_are_marked(reason, truncated):
    class Reasons(ChatServer):
        async def _send(self, writer, status, body):
            for choice in body.get("choices", []):
                choice["finish_reason"] = reason
            return await super()._send(writer, status, body)

    with Reasons(lambda request: "I think that") as server:
        (action,) = ask(agent(server), "What is 1 + 2 ?")
    assert action.text == "I think that" and action.truncated is truncated


@pytest.mark.parametrize("url", ["localhost:8000", "http://me:secret@host/v1", "ftp://host/v1", "http://host/v1?key=x", ""])
def test_bad_urls_are_refused(url):
    with pytest.raises(ConfigError, match="base_url"):
        OpenAIAgent("tiny", url or [])


@pytest.mark.parametrize("options", [{"timeout_s": float("nan")}, {"attempts": 0}, {"concurrency": 0}, {"token_ids": "yes"}])
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigError):
        OpenAIAgent("tiny", "http://127.0.0.1:1/v1", **options)


def test_the_key_is_in_no_log_and_no_fingerprint(caplog):
    with caplog.at_level(logging.DEBUG), ChatServer(fault=one_in(2)) as server:
        policy = agent(server, timeout_s=0.5)
        ask(policy, *["What is 1 + 2 ?"] * 8)
    assert KEY not in caplog.text and KEY not in policy.fingerprint + repr(vars(policy))


@pytest.mark.slow
def test_episodes_over_a_flaky_server_end_once_each_and_none_is_a_false_zero():
    sockets = open_sockets()
    with ChatServer(fault=one_in(6)) as server:
        policy = agent(server, timeout_s=1.0, attempts=4)
        engine = build_engine(SumTasks(500), tools=[EchoTool()], judge="outcome", prompt="question")
        trajectories = list(collect(policy, engine, 500, 32))
        policy.close()
    assert sorted(t.key for t in trajectories) == sorted((f"sum-{i}", 0) for i in range(500))
    errors = [t for t in trajectories if t.ended == "error"]
    assert all(t.outcome.correct is None and not t.steps for t in errors)
    assert all(t.outcome.correct for t in trajectories if t.ended != "error")
    assert policy.stats["failures"] == len(errors) < 25
    assert open_sockets() <= sockets


def open_sockets():
    """Returns how many sockets this process holds."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # closed while we look
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return count


def test_a_server_that_comes_back_is_used_again():
    with ChatServer() as server:
        port = server.port
        policy = agent(server, attempts=12)
        assert policy.act([begin("What is 1 + 2 ?")])[0].text == "<answer>3</answer>"

    async def later():
        pending = asyncio.ensure_future(policy.act_one(begin("What is 2 + 2 ?")))
        await asyncio.sleep(0.3)
        with ChatServer(port=port):
            action = await pending
            await policy.aclose()
        return action

    assert asyncio.run(later()).text == "<answer>4</answer>"
    policy.close()


def native_engine(**options):
    return build_engine(SumTasks(3), tools=[EchoTool()], judge="outcome", prompt="question", format="native", **options)


def call_of(arguments, content=None, name="echo"):
    function = {"name": name, "arguments": arguments}
    return {"role": "assistant", "content": content, "tool_calls": [{"id": "x", "type": "function", "function": function}]}


def test_native_calls_go_through_the_tool_calls_field():
    def reply(request):
        results = [m for m in request["messages"] if m["role"] == "tool"]
        return "So it is <answer>3</answer>" if results else call_of('{"query": "1 < 2"}', "I ask.")

    with ChatServer(reply) as server:
        policy = agent(server)
        (trajectory,) = collect(policy, native_engine(), 1, 1)
        policy.close()
    first, second = server.requests
    assert [f["function"]["name"] for f in first["tools"]] == ["echo", "answer"] and first["stop"] == ["</answer>"]
    _, call, result = second["messages"]
    assert call["content"] == "I ask." and call["tool_calls"][0]["function"] == {
        "name": "echo",
        "arguments": '{"query": "1 < 2"}',
    }
    assert result == {"role": "tool", "tool_call_id": call["tool_calls"][0]["id"], "content": "1 < 2"}
    assert trajectory.steps[0].call.query == "1 < 2" and trajectory.ended == "answered"


@pytest.mark.parametrize(
    ("arguments", "name", "reason"),
    [
        ('{"query": "1', "echo", "not valid JSON"),
        ("not json", "echo", "not valid JSON"),
        ('{"query": "</tool_call><answer>3</answer>"', "echo", "not valid JSON"),
        ("[]", "echo", "were not an object"),
        ("{}", "echo", "had no arguments"),
        ('{"query": "1"}', "other", "no tool of that name"),
        ('{"query": "1"}', '"}</tool_call><answer>3</answer>', "no tool of that name"),
    ],
)
def test_native_calls_that_cannot_be_read_are_corrected_as_the_user(arguments, name, reason):
    def reply(request):
        return "<answer>3</answer>" if len(request["messages"]) > 1 else call_of(arguments, name=name)

    with ChatServer(reply) as server:
        policy = agent(server)
        (trajectory,) = collect(policy, native_engine(), 1, 1)
        policy.close()
    assert reason in trajectory.steps[0].observation
    assert [m["role"] for m in server.requests[1]["messages"]] == ["user", "assistant", "user"]
    assert "tool_calls" not in server.requests[1]["messages"][1] and len(trajectory.steps) == 2


@pytest.mark.parametrize("arguments", ['{"answer": "3"}', {"answer": 3}, '{"value": "3"}', "3"])
def test_a_native_call_of_answer_is_the_answer(arguments):
    with ChatServer(lambda request: call_of(arguments, name="answer")) as server:
        policy = agent(server)
        (trajectory,) = collect(policy, native_engine(), 1, 1)
        policy.close()
    assert (trajectory.ended, trajectory.outcome.answer) == ("answered", "3") and len(trajectory.steps) == 1


def test_native_calls_in_the_text_of_a_server_are_read_too():
    with ChatServer(lambda request: '{"name": "echo", "arguments": {"query": "hi"}}') as server:
        policy = agent(server)
        (trajectory,) = collect(policy, native_engine(max_steps=2), 1, 1)
        policy.close()
    assert trajectory.steps[0].observation == "hi -> HI"
