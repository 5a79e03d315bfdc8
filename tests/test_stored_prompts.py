"""Stored actions behind the policy's own prompts: refused where nothing would read them, or what they lack is needed."""

import logging

import pytest

pytest.importorskip("torch", reason="training needs torch")

from msgspec.structs import replace
from omegaconf import OmegaConf

import tiny_lm
from stored import episode
from swirl_env.agents.transformers.renderer import Renderer
from swirl_env.algos.stored_ids import check_stored_ids, under_own_prompts
from swirl_env.config.arguments import compose_stage, read_arguments
from swirl_env.config.options import read
from swirl_env.errors import ConfigError
from swirl_env.stages.train_options import TrainOptions, checked

OWN, STORED = "stored_prompts=own", "stored=[runs/demo]"
READ = [OWN, STORED, "algo.states=stored"]


def options_of(*argv):
    config = compose_stage("train", read_arguments([*argv, "out=x"]))
    return checked(read("train", TrainOptions, OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])))


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["algo=rft", OWN], "stored_prompts=own is about stored trajectories"),
        (["algo=rft", OWN, "algo.states=stored"], "their run folders, stored="),
        (["algo=grpo", OWN], "stored_prompts=own is about stored trajectories"),
        (["algo=rft", OWN, STORED], "these trajectories would be lost"),
        (["algo=swirl", STORED], "these trajectories would be lost"),
        (["algo=pivot", STORED, "algo.states=own"], "these trajectories would be lost"),
        (["algo=rft", *READ, "trainer.loss=ppo_clip"], "trainer.loss=ppo_clip compares with them"),
        (["algo=rft", *READ, "trainer.importance_cap=2"], "trainer.importance_cap compares with them"),
        (["algo=swirl", *READ, "algo.actions=logged", "trainer.loss=ppo_clip"], "give stored_prompts=logged"),
        (["algo=swirl", *READ, "algo.group=mix", "trainer.importance_cap=2"], "give stored_prompts=logged"),
    ],
)
def test_stored_options_that_would_be_lost_or_lack_something_are_refused(argv, says):
    with pytest.raises(ConfigError, match=says):
        options_of(*argv)


@pytest.mark.parametrize(
    "argv",
    [
        ["algo=rft", *READ],
        ["algo=rft", *READ[1:], "trainer.loss=ppo_clip"],
        ["algo=swirl", *READ[1:], "algo.group=mix", "trainer.importance_cap=2"],
        ["algo=rft", STORED, "resume=true"],  # a run from before the check
        ["algo=rft"],
    ],
)
def test_stored_options_that_are_read_are_taken(argv):
    options_of(*argv)


def trajectories(text, words, opened=False, sampled=True):
    """An episode whose last action has a text, with or without ids."""
    made = episode()
    last = made.steps[-1]
    ids = tuple(words.encode(text, add_special_tokens=False)) if sampled else ()
    action = replace(
        last.action, text=text, token_ids=ids, prompt_ids=(1, 2) * sampled, opened=opened, logprobs=(-1.0,) * len(ids)
    )
    return [replace(made, steps=(*made.steps[:-1], replace(last, action=action)))]


ANSWER = "<answer>Oslo</answer>"
LOST = "template opens a think block, which they were sampled without"


@pytest.mark.parametrize(
    "text", [ANSWER, f"Oslo it is. {ANSWER}", f"<think>Oslo?</think>{ANSWER}", f"a <think>b</think>\n{ANSWER}"]
)
@pytest.mark.parametrize("opened", [False, True])
def test_an_action_that_would_be_reasoning_alone_is_refused(text, opened):
    opening = tiny_lm.tokenizer(tiny_lm.THINK_OPENING)
    stored = trajectories(text, opening, opened)
    stored = [replace(one, steps=one.steps[-1:]) for one in stored]
    if "</think>" not in text and not opened:
        with pytest.raises(ConfigError, match=f"stored_prompts=own, 1 of 1 stored actions: .*{LOST}"):
            under_own_prompts(stored, Renderer(opening))
        return
    (now,) = under_own_prompts(stored, Renderer(opening))
    action = now.steps[-1].action
    assert action.opened and action.logprobs == () and opening.decode(action.prompt_ids).endswith("<think>\n")
    assert action.token_ids == stored[0].steps[-1].action.token_ids and action.text == text


@pytest.mark.parametrize("opened", [False, True])
def test_a_template_that_opens_no_block_takes_all_and_says_so(opened):
    words = tiny_lm.tokenizer()
    (now,) = under_own_prompts(trajectories(f"I look.</think>{ANSWER}", words, opened), Renderer(words))
    assert not any(step.action.opened for step in now.steps)


@pytest.mark.parametrize(
    ("template", "text", "sampled", "lost"),
    [
        (tiny_lm.THINK_OPENING, ANSWER, False, 2),  # the other action of the episode is text as well
        (tiny_lm.THINK_OPENING, f"</think>{ANSWER}", False, 1),
        (tiny_lm.THINK_OPENING, ANSWER, True, 1),  # behind the prompt that it was sampled from
        (tiny_lm.CHATML, ANSWER, False, 0),
    ],
)
def test_text_behind_a_think_block_is_counted(caplog, template, text, sampled, lost):
    words = tiny_lm.tokenizer(template)
    with caplog.at_level(logging.WARNING):
        assert check_stored_ids(trajectories(text, words, sampled=sampled), Renderer(words))["unread"] == lost
    assert (f"{lost} stored actions, if they are trained on: the policy's own {LOST}" in caplog.text) == bool(lost)
    assert not lost or LOST in caplog.text
