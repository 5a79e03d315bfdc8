"""Rollouts from a server, training here: generate, judge, filter, train on the ids that the server sampled."""

import json
import logging
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("openai")

import tiny_lm
from chat_server import ChatServer, answer_of
from commands import error_of, page_commands
from swirl_env.store import Store

SERVED = ("agent=openai", "agent.model=tiny", "task=fakes:SumTasks", "tool=none", "prompt=question", "agent.token_ids=require")
TRAIN = ("task=fakes:SumTasks", "tool=none", "prompt=question", "policy=model", "lora.rank=2", "updates=1", "eval.episodes=0")


@pytest.fixture
def model(tmp_path):
    words = tiny_lm.tokenizer()
    tiny_lm.llama(len(words)).save_pretrained(tmp_path / "model")
    words.save_pretrained(tmp_path / "model")
    return words


def server(words, system=None):
    """A server of the model: its ids are those of its template and tokenizer."""

    def ids(messages, text):
        opening = [{"role": "system", "content": system}] if system else []
        prompt = words.apply_chat_template([*opening, *messages], tokenize=False, add_generation_prompt=True)
        encoded = words.encode(prompt, add_special_tokens=False), words.encode(text, add_special_tokens=False)
        return encoded[0], [*encoded[1], words.eos_token_id]

    # Two of three answers are right, and no two of a kind are alike.
    return ChatServer(lambda request: answer_of(request) if "1 + 1" not in str(request) else "<answer>7</answer>", ids=ids)


def generate(swirl, served):
    code, out, err = swirl("generate", *SERVED, f"agent.base_url={served.url}", "judge=none", "n=6", "out=run")
    assert code == 0, out + err


@pytest.mark.slow
def test_the_pages_commands_lead_from_a_server_to_a_trained_policy(model, swirl):
    commands = page_commands("models.md", "Rollouts from a server, training here")
    swapped = {"gsm8k": "fakes:SumTasks", "agent.model=MODEL": "agent.model=tiny", "MODEL": "model", "rules": "outcome"}
    small = {"generate": ["tool=none", "prompt=question", "judge=none", "n=6"], "train": list(TRAIN[1:])}
    with server(model) as served:
        for number, (_, stage, *words) in enumerate(commands):
            text = "\0".join(words).replace("URL", served.url)
            for word, other in swapped.items():
                text = text.replace(word, other)
            options = [*text.split("\0"), *small.get(stage, []), *([f"out=trained-{number}"] if stage == "train" else [])]
            code, out, err = swirl(stage, *{word.partition("=")[0]: word for word in options}.values())
            assert code == 0, (options, out, err)
    stored = [step.action for trajectory in Store("runs/rollouts", "r") for step in trajectory.steps]
    assert all(action.token_ids[-1] == model.eos_token_id and action.prompt_ids for action in stored)
    trained = list(Path().glob("trained-*"))
    assert len(trained) == 2
    for out in trained:
        assert (out / "policy" / "adapter_model.safetensors").is_file()
        spent = json.loads((out / "evaluation.json").read_text())["spent"]
        assert spent["sampled_tokens"] == 0 and spent["trained_tokens"] > 0


@pytest.mark.slow
def test_ids_of_another_tokenizer_are_refused(model, swirl):
    with ChatServer(ids=lambda messages, text: ([1, 2, 3], [ord(c) for c in text])) as served:
        generate(swirl, served)
    algo = ("algo=rft", "algo.filter=none", "algo.states=stored", "stored=[run]", "out=trained")
    said = error_of(swirl("train", *TRAIN, *algo))
    assert "The token ids of all 6 stored actions are of another tokenizer" in said and "agent.token_ids=off" in said
    assert not Path("trained/policy").exists()


def test_what_fits_in_part_is_counted(model, swirl, caplog):
    from swirl_env.agents.transformers.renderer import Renderer
    from swirl_env.algos.stored_ids import check_stored_ids

    with server(model, "Be brief.") as served:
        generate(swirl, served)
    trajectories = list(Store("run", "r"))
    with caplog.at_level(logging.WARNING):
        counts = check_stored_ids(trajectories, Renderer(model))
    assert counts == {"own": 6, "compared": 6, "prompts": 6} and "6 of 6 stored prompts read otherwise" in caplog.text
    with server(model) as served:
        swirl("generate", *SERVED, f"agent.base_url={served.url}", "judge=none", "n=6", "out=other")
    ours, caplog_text = list(Store("other", "r")), caplog.clear()
    assert caplog_text is None and check_stored_ids(ours, Renderer(model)) == {"own": 6, "compared": 6, "prompts": 0}
    assert not caplog.text


@pytest.mark.slow
def test_stored_actions_are_trained_on_behind_the_policys_own_prompts(model, swirl):
    from swirl_env.agents.transformers.renderer import Renderer
    from swirl_env.algos.steps import tabulate
    from swirl_env.algos.stored_ids import check_stored_ids, under_own_prompts

    with server(model, "Be brief.") as served:
        generate(swirl, served)
    renderer = Renderer(model)
    logged = list(Store("run", "r"))
    own = under_own_prompts(logged, renderer)
    assert check_stored_ids(own, renderer)["prompts"] == 0
    for before, after in zip(tabulate(logged, renderer).steps, tabulate(own, renderer).steps, strict=True):
        assert after.token_ids == before.token_ids and after.behaviour == ()
        assert "Be brief." in model.decode(before.prompt_ids) and "Be brief." not in model.decode(after.prompt_ids)
    losses = {}
    for prompts in ("logged", "own"):
        algo = ("algo=rft", "algo.filter=none", "algo.states=stored", "stored=[run]", f"stored_prompts={prompts}")
        code, out, err = swirl("train", *TRAIN, *algo, f"out={prompts}")
        assert code == 0, out + err
        losses[prompts] = json.loads(Path(prompts, "metrics.jsonl").read_text())["loss"]
    assert losses["logged"] != losses["own"]
