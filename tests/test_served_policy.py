"""``rollouts=server``: ids and log-probabilities of a live server are those of the policy here, stale weights are corrected."""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("openai")
pytest.importorskip("peft")

import tiny_lm  # noqa: E402
from commands import error_of  # noqa: E402
from swirl_env.agents.transformers import TransformersAgent  # noqa: E402
from swirl_env.agents.transformers.served import Completion, ServedPolicy, check_completion, read_completion  # noqa: E402
from swirl_env.benchmarks.token_server import TokenServer  # noqa: E402
from swirl_env.env import build_engine  # noqa: E402
from swirl_env.episodes.rollout import collect  # noqa: E402
from swirl_env.errors import ConfigError  # noqa: E402
from swirl_env.store import Store  # noqa: E402
from swirl_env.types import Task  # noqa: E402

TASKS = [Task(f"q{i}", f"What is {i} + 1?", str(i + 1)) for i in range(6)]


@pytest.fixture
def folder(tmp_path):
    words = tiny_lm.tokenizer()
    torch.manual_seed(0)
    tiny_lm.llama(len(words)).save_pretrained(tmp_path / "model")
    words.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def server(folder):
    with TokenServer(str(folder)) as served:
        yield served


def local(folder, **options):
    return TransformersAgent(str(folder), device="cpu", max_new_tokens=12, **options)


def served_policy(policy, server, folder, refresh="vllm", urls=None, model=None):
    return ServedPolicy(policy, urls or [server.url], model or server.name, refresh, folder.parent / "weights", attempts=2)


def scores(model, action):
    """Log-probabilities of an action's ids by one plain forward pass."""
    ids = torch.tensor([[*action.prompt_ids, *action.token_ids]])
    with torch.no_grad():
        logp = model(input_ids=ids).logits[0].float().log_softmax(-1)
    first = len(action.prompt_ids) - 1
    return [float(logp[first + i, token]) for i, token in enumerate(action.token_ids)]


def episodes(policy, n=6):
    engine = build_engine(TASKS, tools=["calculator"], judge="outcome", prompt="question", max_steps=2)
    return sorted(collect(policy, engine, n, slots=3), key=lambda t: t.key)


def test_ids_and_logprobs_are_those_of_a_forward_pass_here(folder, server):
    policy = local(folder)
    actions = [step.action for t in episodes(served_policy(policy, server, folder)) for step in t.steps]
    assert len(actions) >= 6 and server.calls["/v1/completions"] >= 6
    for action in actions:
        assert action.token_ids and action.error is None
        assert action.logprobs == pytest.approx(scores(policy.model, action), abs=1e-4)
        assert policy.renderer.decode(action.token_ids) == action.text


def test_greedy_actions_are_those_of_the_local_agent(folder, server):
    policy = local(folder, temperature=0.0)
    pairs = zip(episodes(served_policy(policy, server, folder)), episodes(policy), strict=True)
    for there, here in pairs:
        assert [s.action.token_ids for s in there.steps] == [s.action.token_ids for s in here.steps]
        assert [s.action.truncated for s in there.steps] == [s.action.truncated for s in here.steps]
        assert there.outcome == here.outcome and there.ended == here.ended


@pytest.mark.parametrize(("refresh", "path"), [("vllm", "/collective_rpc"), ("sglang", "/update_weights_from_disk")])
def test_all_weights_reach_every_server(folder, refresh, path):
    with TokenServer(str(folder)) as one, TokenServer(str(folder)) as two:
        policy = local(folder)
        servers = served_policy(policy, one, folder, refresh, [one.url, two.url])
        with torch.no_grad():
            for weight in policy.model.parameters():
                weight.mul_(1.5)
        for server in (one, two):
            assert not torch.equal(next(server.model.parameters()), next(policy.model.parameters()))
        servers.refresh(3)
        for server in (one, two):
            assert server.calls[path] == 1 and not server.paused
            assert torch.equal(next(server.model.parameters()), next(policy.model.parameters()))
        episodes(servers)
        assert min(one.calls["/v1/completions"], two.calls["/v1/completions"]) > 0, "the load was not shared"
        servers.refresh(4)
        assert [p.name for p in (folder.parent / "weights").iterdir()] == ["weights-4"]


def test_an_adapter_is_loaded_by_name_and_again_in_its_place(folder, server):
    import peft

    policy = local(folder)
    policy.model = peft.get_peft_model(policy.model, peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    servers = served_policy(policy, server, folder, "lora", model="mine")
    for version in range(2):
        with torch.no_grad():
            for name, weight in policy.model.named_parameters():
                if "lora_B" in name:
                    weight.normal_(std=0.5)
        servers.refresh(version)
        for trajectory in episodes(servers, 3):
            for step in trajectory.steps:
                assert step.action.logprobs == pytest.approx(scores(policy.model, step.action), abs=1e-4)
    assert server.calls["/v1/load_lora_adapter"] == 2
    with pytest.raises(ConfigError, match=r"give lora\.rank="):
        served_policy(local(folder), server, folder, "lora")


def test_a_server_that_stops_inside_reasoning_is_asked_to_go_on(folder, server, monkeypatch):
    policy = local(folder, temperature=0.0)
    seen = []
    answer = server.answer

    def early(path, content):
        reply = answer(path, content)
        seen.append(content)
        if content.get("stop"):
            choice = reply["choices"][0]
            choice["token_ids"] = choice["token_ids"][:3]
            choice["logprobs"]["token_logprobs"] = choice["logprobs"]["token_logprobs"][:3]
            choice["finish_reason"] = "stop"
        return reply

    monkeypatch.setattr(server, "answer", early)
    there, here = episodes(served_policy(policy, server, folder), 2), episodes(policy, 2)
    assert [s.action.token_ids for t in there for s in t.steps] == [s.action.token_ids for t in here for s in t.steps]
    assert any(not content["stop"] for content in seen)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token_ids": None}, "no token ids"),
        ({"token_ids": [1, 2, 3]}, "no token ids with log-probabilities"),
        ({"logprobs": {"token_logprobs": [None, -1.0]}}, "no numbers"),
        ({"prompt_token_ids": [0, 5, 6]}, "another prompt"),
    ],
)
def test_replies_that_training_could_not_use_are_refused(change, message):
    choice = {"token_ids": [7, 8], "prompt_token_ids": [5, 6], "logprobs": {"token_logprobs": [-0.1, -0.2]}}
    check_completion(read_completion({"choices": [choice]}), [5, 6])
    with pytest.raises(ConfigError, match=message):
        check_completion(read_completion({"choices": [choice | change]}), [5, 6])


@pytest.mark.parametrize("content", [None, [], {}, {"choices": []}, {"choices": "x"}, {"choices": [{"token_ids": "x"}]}])
def test_what_is_no_completion_is_asked_for_again(content):
    with pytest.raises(ValueError, match="the reply"):
        read_completion(content)
    assert read_completion({"choices": [{}]}) == Completion(read_completion({"choices": [{}]}).choices)


def test_a_server_that_takes_no_weights_says_why(folder, server):
    servers = served_policy(local(folder), server, folder)
    servers._calls = lambda url, path: [(f"{server.url}/nowhere", {})]
    with pytest.raises(ConfigError, match=r"/v1/nowhere failed: HTTP 400 .*no route"):
        servers.refresh(0)


SERVER = ("rollouts=server", "server.refresh=vllm")
TRAIN = ("task=fakes:SumTasks", "tool=none", "prompt=question", "policy=model", "judge=fakes:Evens", "model.max_new_tokens=8")
SHORT = (
    "algo=return_to_go",
    "algo.episodes_per_update=4",
    "eval.episodes=0",
    "trainer.lr=0.01",
    "out=run",
    "trainer.importance_cap=2",
)


@pytest.mark.slow
@pytest.mark.parametrize(("every", "staleness"), [(1, [0, 0, 0, 0, 0, 0]), (5, [0, 1, 2, 3, 4, 0])])
def test_training_counts_the_staleness_of_its_rollouts_and_corrects_it(folder, server, swirl, every, staleness):
    words = (f"server.base_url={server.url}", f"server.model={server.name}", f"server.every={every}", "updates=6")
    code, out, err = swirl("train", *TRAIN, *SHORT, *SERVER, *words)
    assert code == 0, out + err
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [row["staleness"] for row in rows] == staleness
    assert server.calls["/collective_rpc"] == staleness.count(0)
    # Tokens of fresh weights have weight 1; those of old weights have others, each at most importance_cap.
    for row, age in zip(rows, staleness, strict=True):
        assert (abs(row["importance"] - 1) < 1e-4) == (age == 0) and row["importance"] <= 2, row
    stored = [step.action for trajectory in Store("run/rollouts", "r") for step in trajectory.steps]
    assert all(action.token_ids and len(action.token_ids) == len(action.logprobs) for action in stored)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("server.base_url=http://localhost:1/v1",), "server.model="),
        (("server.model=x", "server.base_url=http://localhost:1/v1", "trainer.importance_cap=0"), "importance_cap=2"),
        (("server.model=x", "server.base_url=http://localhost:1/v1", "trainer.temperature=0.5"), "at temperature 1"),
        (("server.model=x", "server.base_url=http://localhost:1/v1", "server.every=0"), "server.every"),
        (("server.refresh=nccl",), "server.refresh"),
    ],
)
def test_what_could_not_be_corrected_is_refused(swirl, words, message):
    assert message in error_of(swirl("train", "updates=1", *SHORT, *SERVER, *words))
