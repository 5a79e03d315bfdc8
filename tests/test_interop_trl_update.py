"""TRL plays exported episodes and makes an update: rewards are ours step by step, and the gradient is our trainer's."""

import json

import pytest

from peer_venv import peer_python, run_peer

pytestmark = [pytest.mark.peers, pytest.mark.slow]


@pytest.fixture(scope="module")
def python():
    return peer_python("trl-1.16", "trl>=1.16,<1.17")


@pytest.fixture(scope="module")
def update(python, tmp_path_factory):
    return json.loads(run_peer(python, "peer_trl.py", "update", str(tmp_path_factory.mktemp("trl"))))


def test_trl_rewards_each_step_of_eight_episodes_as_our_rollouts_do(update):
    episodes = update["episodes"]
    assert len(episodes) == 8 and sum(len(episode["rewards"]) for episode in episodes) == update["steps"]
    whole = [episode for episode in episodes if episode["ended"] == "answered"]
    assert len(whole) >= 5
    for episode in whole:
        assert episode["rewards"] == episode["ours"] and all(episode["seen"])
    for episode in episodes:  # TRL ends a rollout at the first message without a call; ours corrects it and goes on
        if episode["ended"] != "answered":
            assert episode["kinds"][-1] == "Malformed"
            assert episode["rewards"] == episode["ours"][: len(episode["rewards"])]
    assert {"ToolCall", "Answer", "Malformed"} <= {kind for episode in episodes for kind in episode["kinds"]}


def test_steps_without_a_verdict_leave_the_loss_and_are_counted(update):
    missing = sum(reward is None for episode in update["episodes"] for reward in episode["rewards"])
    assert 0 < missing == update["logged"]["steps/unscored"]
    assert update["valid"] == update["steps"] - missing


def test_trl_makes_the_update_of_our_trainer_on_the_same_tokens(update):
    assert all(episode["owned"] for episode in update["episodes"])
    assert update["norm"] > 1
    assert update["error"] < 1e-4


def test_the_code_of_the_page_trains_and_its_episodes_are_stored(python, tmp_path):
    result = json.loads(run_peer(python, "peer_trl.py", "page", str(tmp_path)))
    assert result["updates"] == 1 and result["steps"] >= 8 and result["tokens"] > result["steps"]


def test_the_package_of_new_export_trains(python, swirl, tmp_path):
    assert swirl("new-export", "trl", "my_env")[0] == 0
    result = json.loads(run_peer(python, "peer_trl.py", "export", str(tmp_path)))
    assert result == {"updates": 1, "kinds": ["Malformed"], "rewards": ["MyEnv"]}
