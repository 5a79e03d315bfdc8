"""Judges count what they spend on models; wrappers pass it on, and nobody's cost is made up."""

import pytest

from swirl_env.env import build_engine
from swirl_env.episodes.transcript import subtrajectories
from swirl_env.protocols import spent_by
from swirl_env.registry import make_agent, make_judge
from swirl_env.rollout import collect
from swirl_env.types import Action


class Talker:
    """Says GOOD with three tokens after a prompt of ten, and nothing readable at first."""

    def act(self, states):
        return [Action("Fine.\nVerdict: GOOD" if s.seed else "hm", (1, 2, 3), (-1.0,) * 3, (0,) * 10) for s in states]


@pytest.fixture(scope="module")
def steps():
    engine = build_engine({"name": "ledger", "size": 4}, judge=None)
    return [step for t in collect(make_agent("scripted", noise=0.3), engine, 4) for step in subtrajectories(t)]


def test_the_llm_judge_counts_prompts_and_tokens_of_every_attempt(steps):
    judge = make_judge({"name": "llm", "agent": Talker()})
    assert spent_by(judge) == {"calls": 0, "tokens": 0}
    judge.judge(steps)
    assert spent_by(judge) == {"calls": len(steps), "tokens": 13 * len(steps)}
    twice = make_judge({"name": "llm", "agent": Talker(), "attempts": 2})
    assert {v.status for v in twice.judge(steps)} == {"scored"}
    assert spent_by(twice) == {"calls": 2 * len(steps), "tokens": 26 * len(steps)}


def test_wrappers_spend_what_is_behind_them(steps, tmp_path):
    inner = {"name": "llm", "agent": Talker(), "seed": 1}
    noisy = make_judge({"name": "noisy", "judge": inner})
    cached = make_judge({"name": "cached", "judge": inner, "cache_dir": str(tmp_path)})
    both = make_judge({"name": "weighted", "judges": [{**inner, "weight": 1}, {"name": "rules", "weight": 1}]})
    for judge in (noisy, cached, both, cached):
        judge.judge(steps)
    once = {"calls": len(steps), "tokens": 13 * len(steps)}
    assert [spent_by(judge) for judge in (noisy, cached, both)] == [once] * 3  # the second time everything was in the cache


def test_a_judge_without_a_model_spends_nothing_and_a_strangers_cost_is_not_known(steps):
    for name in ("rules", "outcome", "evidence", "noisy", "weighted"):
        assert spent_by(make_judge(name)) == {}
    stranger = make_judge("fakes:CallJudge")
    assert spent_by(stranger) is None
    assert spent_by(make_judge({"name": "noisy", "judge": stranger})) is None
    assert spent_by(make_judge({"name": "weighted", "judges": [{"name": "fakes:CallJudge"}, {"name": "rules"}]})) is None
