"""Tasksets of verifiers as tasks here: graded by their own rewards; what cannot be played is refused."""

import json

import pytest
from conftest import ROOT

from peer_venv import environment_of, own_python, run_script

pytestmark = [pytest.mark.peers, pytest.mark.slow]
TASKSET = """
from peer_verifiers_tasks import Sums, SumsConfig, SumTask
import verifiers.v1 as vf

class Named(vf.Taskset[SumTask, SumsConfig]):
    load = Sums.load

__all__ = ["Named"]
"""


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verifiers")
    (folder / "sums_for_tests.py").write_text(TASKSET)
    python = own_python("verifiers", "verifiers>=0.4,<0.5", "uv")
    (folder / "site").mkdir()
    env = environment_of(python, folder / "site")
    env["PYTHONPATH"] += f":{ROOT / 'tests'}:{folder}"
    out = run_script(python, [str(ROOT / "tests" / "peer_verifiers_tasks.py"), str(folder)], env=env)
    return json.loads(out.strip().splitlines()[-1])


def test_an_answer_is_right_if_the_rewards_of_its_task_add_up(played):
    rewards = played["theirs"]
    assert len(rewards) == 30 and set(rewards.values()) == {1.0, 0.25, 0.0}
    assert played["correct"] == {task: reward == 1.0 for task, reward in rewards.items()}
    assert played["verdicts"] == {task: float(reward == 1.0) for task, reward in rewards.items()}


def test_an_episode_without_an_answer_is_wrong(played):
    assert played["silent"] is False


def test_a_taskset_is_found_by_its_name_and_an_endless_one_is_cut(played):
    assert played["by_name"] == [f"What is {i} + {3 * i}?" for i in range(4)] and played["endless"] == 5


def test_what_cannot_be_played_is_refused(played):
    parts = {
        "endless": "infinite",
        "box": "container",
        "runtime": "'run' of the class Runs needs a runtime",
        "unrewarded": "no reward",
        "name": "could not be made",
        "object": "vf.Taskset",
    }
    assert {name: part in played["refusals"][name] for name, part in parts.items()} == dict.fromkeys(parts, True)
