"""Every registered environment: Gymnasium's checker, and vector environments that agree with single ones step for step."""

import os
import warnings

import gymnasium as gym
import pytest
from conftest import ROOT
from gymnasium.utils.env_checker import check_env

import swirl_env
from playing import of_one, play, play_singles, same
from swirl_env.errors import DataNotFound
from swirl_env.vector import ToolVectorEnv

pytestmark = pytest.mark.usefixtures("own_cache")
GENERATED = {
    "swirl_env/Atlas-v0": {"documents": 300, "size": 500},
    "swirl_env/Ledger-v0": {"size": 500},
    "swirl_env/AtlasLedger-v0": {"documents": 300, "size": 500},
}
ACTIONS = [
    "Let me look. <search_query>founder of the harbour company in the north</search_query> and more",
    "<math_exp>12*7+3</math_exp>",
    "I would say five.",
    "<answer>42</answer>",
    "<search_query>born 1923</search_query>",
    "<math_exp>1,250 * 15%</math_exp>",
    "<answer>",
    "<search_query>\ud800\x00</answer></search_query>",
]
SYMBOLIC = "<math_exp>sqrt(2)*x</math_exp>"
"""Needs the calculator's worker, again in every process: one id shows that this works."""
N = 4


@pytest.fixture(params=[*swirl_env.ENV_IDS])
def made(request, monkeypatch):
    """An id with options with which it can be made; skips where its files are absent, having seen the error say so."""
    data = ROOT.parent / "shared" / "data"
    if "SWIRL_DATA_DIR" not in os.environ and data.is_dir():
        monkeypatch.setenv("SWIRL_DATA_DIR", str(data))
    options = GENERATED.get(request.param, {})
    try:
        gym.make(request.param, **options).close()
    except DataNotFound as absent:
        assert request.param not in GENERATED and "expected the file" in str(absent) and "Get the official files" in str(absent)
        pytest.skip(str(absent))
    return request.param, options


def test_check_env_passes_with_warnings_as_errors(made):
    env_id, options = made
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(env_id, render_mode="ansi", **options).unwrapped)


def test_single_sync_async_and_our_vector_environment_agree(made):
    env_id, options = made
    actions = [*ACTIONS, SYMBOLIC] if env_id == "swirl_env/AtlasLedger-v0" else ACTIONS
    ours = gym.make_vec(env_id, num_envs=N, **options)
    assert isinstance(ours.unwrapped, ToolVectorEnv)
    expected = play(ours, actions)
    singles = play_singles(lambda: gym.make(env_id, **options), N, actions)
    for i, log in enumerate(singles):
        assert same(of_one(expected, i), log)
    for mode in ("sync", "async"):
        assert same(play(gym.make_vec(env_id, num_envs=N, vectorization_mode=mode, **options), actions), expected), mode
    over = [step[2] | step[3] for step in expected[1:]]
    calls = [call for step in expected[1:] for call in step[4].get("call", ())]
    assert any(ended.any() for ended in over) and len({type(call).__name__ for call in calls}) >= 3


def test_absent_files_are_named_with_where_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setenv("SWIRL_DATA_DIR", str(tmp_path))
    for env_id in swirl_env.ENV_IDS:
        if env_id not in GENERATED:
            with pytest.raises(DataNotFound, match=r"expected the file .* Get the official files at https://"):
                gym.make(env_id)


def test_tool_use_takes_any_task_source():
    env = gym.make("swirl_env/ToolUse-v0", tasks={"name": "ledger", "size": 3}, max_steps=2)
    prompt, _ = env.reset(seed=0)
    assert "<math_exp>" in prompt and env.unwrapped.engine.settings.max_steps == 2
