"""The audit's figures: by hand on a few steps, and the values of a policy against what its episodes can be seen to do."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import SumTasks
from swirl_env.audit import agreement, report
from swirl_env.audit.branches import Branches, step_values
from swirl_env.audit.oracle import StepValue
from swirl_env.audit.records import PolicyValues
from swirl_env.audit.signals import EpisodeOutcome, MonteCarlo, ReturnToGo, make_signal
from swirl_env.env import build_engine
from swirl_env.errors import ConfigError, UnknownName
from swirl_env.registry import make_agent
from swirl_env.rollout import collect
from swirl_env.types import Action, Outcome, Verdict


def value(progress, q, *, needed=1, left=3, kind="search"):
    return StepValue(left, needed, 0, progress, q, None if q is None else float(q), kind)


def verdicts(text):
    """G and B are labelled, u is unscored, f failed, and + - are values without a label."""
    of = {"G": Verdict.good(), "B": Verdict.bad(), "u": Verdict.unscored(), "f": Verdict.failed("no")}
    return [of.get(c) or Verdict("scored", 0.5 if c == "+" else -0.5) for c in text]


def episodes(*steps):
    """Trajectories of so many steps, each on a question of its own."""
    engine = build_engine(SumTasks(), tools=["fakes:EchoTool"], judge=None)
    made = []
    for i, count in enumerate(steps):
        state = engine.begin(engine.tasks[i])
        for k in range(count):
            text = "<echo>a</echo>" if k < count - 1 else f"<answer>{i + 1}</answer>"
            (transition,) = engine.step([state], [Action(text)])
            state = transition.state
        made.append(engine.trajectory(transition))
    return made


def figures(signal, exact, trajectories, **options):
    truth = report.truth_of(trajectories, exact)
    weights = agreement.bootstrap_weights(truth.questions, 50)
    return report.report_signal("it", None, verdicts(signal), truth, weights, **options)


def test_agreement_by_hand():
    exact = [[value(True, True), value(False, True, kind="repeated")], [value(False, False, kind="premature"), value(True, True)]]
    result = figures("GGBB", exact, episodes(2, 2))
    progress, solvable = result.labels["progress"], result.labels["solvable"]
    assert [progress.accuracy.value, progress.false_good.value, progress.false_bad.value] == [0.5, 0.5, 0.5]
    assert progress.kappa.value == pytest.approx(0) and progress.auc.value == 0.5
    # Against Q*: one fatal step, called BAD; three that keep the question solvable, one called BAD.
    assert [solvable.accuracy.value, solvable.false_good.value] == [0.75, 0.0]
    assert solvable.false_bad.value == pytest.approx(1 / 3)
    assert {kind: share.value for kind, share in result.kinds.items()} == {"search": 0.5, "repeated": 0.0, "premature": 1.0}


@pytest.mark.parametrize(("signal", "scored", "failed"), [("GuGG", 3, 0), ("GfGG", 3, 1), ("ffff", 0, 4), ("uuuu", 0, 0)])
def test_a_missing_or_failed_verdict_is_no_bad_one(signal, scored, failed):
    exact = [[value(True, True), value(False, False)], [value(True, True), value(True, True)]]
    result = figures(signal, exact, episodes(2, 2))
    assert (result.steps, result.scored, result.failed) == (4, scored, failed)
    accuracy = result.labels["progress"].accuracy
    assert (accuracy.value, accuracy.n) == ((1.0, 3) if scored else (None, 0))


def test_nothing_can_be_lost_where_all_is_lost_already():
    exact = [[value(True, False, needed=4, left=3), value(False, False, needed=None)], [value(False, False), value(True, True)]]
    assert figures("GGGG", exact, episodes(2, 2)).labels["solvable"].accuracy.n == 2


def test_an_answer_without_a_grade_is_in_no_figure():
    exact = [[value(True, True), value(None, None, kind="ungraded")]]
    result = figures("GB", exact, episodes(2))
    assert result.labels["progress"].accuracy.n == result.ranks["q_star"].spearman.n == 1 and "ungraded" not in result.kinds


def test_values_without_labels_count_from_a_threshold():
    good, plus, minus = verdicts("G+-")
    assert [report.is_good(v, None) for v in (good, plus, minus)] == [True, True, False]
    assert [report.is_good(v, 0.7) for v in (good, plus, minus)] == [True, False, False]
    assert [report.is_good(v, -1.0) for v in (good, plus, minus)] == [True, True, True]
    assert not report.is_good(Verdict.failed("no"), -1.0)


# Newcombe's interval, and what is decided by it


def test_newcombes_interval_of_his_own_example():
    # Newcombe 1998, table II, (a): 56/70 - 48/80 = 0.2, method 10: 0.0524 to 0.3339.
    low, high = report.difference_interval((48, 80), (56, 70))
    assert (low, high) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))


@given(st.integers(2, 40), st.integers(2, 40), st.data())
def test_the_interval_holds_the_difference_and_turns_round(n, m, data):
    before, after = (data.draw(st.integers(0, n)), n), (data.draw(st.integers(0, m)), m)
    low, high = report.difference_interval(before, after)
    assert -1 <= low <= after[0] / m - before[0] / n <= high <= 1
    back = report.difference_interval(after, before)
    assert (low, high) == (pytest.approx(-back[1]), pytest.approx(-back[0]))


def test_steps_that_the_interval_leaves_open_have_no_label():
    trajectories = episodes(3)
    # V of the three states, then the outcome: clearly up, no difference, and success after a state that is no sure success.
    values = PolicyValues(trajectories[0].key, (1, 15, 15), (16, 16, 16))
    truth = report.truth_of(trajectories, [[value(True, True)] * 3], [values])
    good, known = truth.labels["policy"]
    assert known.tolist() == [True, False, True] and good[0] and good[2]
    assert truth.numbers["q_policy"].tolist() == [15 / 16, 15 / 16, 1.0]
    np.testing.assert_allclose(truth.numbers["a_policy"], [14 / 16, 0, 1 / 16])


def test_states_without_a_graded_episode_are_not_known():
    trajectories = episodes(2)
    truth = report.truth_of(trajectories, [[value(True, True)] * 2], [PolicyValues(trajectories[0].key, (0, 1), (0, 2))])
    assert math.isnan(truth.numbers["a_policy"][0]) and not truth.labels["policy"][1][0]


# Values of a policy


class Coin:
    """Answers right or wrong by the episode's seed, half of the time each; after the word "sure" always right."""

    def act(self, states):
        return [Action(f"<answer>{s.task.answer if self.wins(s) else 'no'}</answer>") for s in states]

    def wins(self, state):
        return state.seed % 2 == 0 or any("sure" in step.action.text for step in state.steps)


def play(engine, *texts):
    state = engine.begin(engine.tasks[0])
    for text in texts:
        (transition,) = engine.step([state], [Action(text)])
        state = transition.state
    return engine.trajectory(transition)


def test_values_of_a_policy_are_those_of_fresh_episodes():
    engine = build_engine(SumTasks(), tools=["fakes:EchoTool"], judge="fakes:CallJudge")
    trajectory = play(engine, "<echo>hm</echo>", "<echo>sure</echo>", "<answer>7</answer>")
    branches = Branches(Coin(), engine, samples=200)
    (values,) = branches.values([trajectory])
    assert values.runs == (200, 200, 200) and values.wins[2] == 200
    assert all(70 < wins < 130 for wins in values.wins[:2])  # a fair coin is outside of this once in 10,000 times
    assert branches.spent["calls"] == 600 and engine.judge.batches == [1, 1, 1], "fresh episodes cost no verdicts"
    assert [q for _, q in step_values(trajectory, values)] == [(values.wins[1], 200), (200, 200), (0, 1)]
    assert Branches(Coin(), engine, 200).values([trajectory]) == [values]
    assert Branches(Coin(), engine, 200, seed=1).values([trajectory]) != [values]


def test_monte_carlo_is_a_signal_with_a_reward():
    engine = build_engine(SumTasks(), tools=["fakes:EchoTool"], judge=None)
    trajectory = play(engine, "<echo>hm</echo>", "<echo>sure</echo>", "<answer>1</answer>")
    (advantage,) = MonteCarlo(Branches(Coin(), engine, 100)).rate([trajectory])
    (q,) = MonteCarlo(Branches(Coin(), engine, 100), "q").rate([trajectory])
    assert [v.reward for v in q[1:]] == [1.0, 1.0] and abs(q[0].reward - 0.5) < 0.25
    assert advantage[1].reward == pytest.approx(q[1].reward - q[0].reward) and advantage[2].reward == 0


def test_trivial_signals():
    right, wrong = episodes(2)[0], episodes(3)[0]
    wrong = type(wrong)(*[getattr(wrong, f) for f in wrong.__struct_fields__[:5]], Outcome("no", False, 0.0))
    assert [[v.label for v in of_one] for of_one in EpisodeOutcome().rate([right, wrong])] == [["GOOD"] * 2, ["BAD"] * 3]
    engine = build_engine(SumTasks(), tools=["fakes:EchoTool"], judge="fakes:CallJudge")
    trajectory = play(engine, "<echo>a</echo>", "<echo>b</echo>", "<answer>1</answer>")
    assert [v.reward for v in ReturnToGo().rate([trajectory])[0]] == [2.0, 1.5, 1.0]
    assert [v.reward for v in ReturnToGo(gamma=0.5).rate([trajectory])[0]] == [1.0, 1.0, 1.0]
    assert {v.status for v in ReturnToGo().rate([right])[0]} == {"unscored"}  # it was never judged


# Signals by name


def never():
    raise AssertionError("no policy is needed")


def signal(spec, policy=never):
    return make_signal(spec, policy, lambda spec, judge: "table")


def test_signals_are_named_with_their_options():
    assert signal("rules").name == "rules" and signal("constant").signal.table is None
    assert signal({"name": "noisy", "flip": 0.2}).name == "noisy flip=0.2"
    assert signal({"name": "noisy", "flip": 0.2, "as": "a fifth wrong", "good_above": 0.5}).name == "a fifth wrong"
    assert signal({"name": "rules", "good_above": 1}).good_above == 1 and signal("rules").good_above is None
    assert signal("fakes:CallJudge").name == "CallJudge" and signal("fakes:CallJudge").signal.table == "table"
    engine = build_engine(SumTasks(), tools=["fakes:EchoTool"], judge=None)
    q = signal({"name": "monte_carlo", "value": "q", "samples": 3}, lambda: (make_agent("random"), engine))
    assert q.good_above == 0.5 and q.signal.branches.samples == 3


@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        ("ruls", UnknownName, r"No signal named 'ruls'\. Did you mean 'rules'\?"),
        ("monte_carl", UnknownName, "Did you mean 'monte_carlo'"),
        (
            {"name": "return_to_go", "gama": 1},
            UnknownName,
            r"option of the signal 'return_to_go' named 'gama'\. Did you mean 'gamma'",
        ),
        ({"name": "constant", "gamma": 1}, UnknownName, "option of the signal 'constant' named 'gamma'"),
        ({"name": "noisy", "flop": 0.2}, UnknownName, "option of the judge 'noisy' named 'flop'"),
        ({"flip": 0.2}, ConfigError, "a name or a mapping with a name"),
        ({"name": "rules", "good_above": "high"}, ConfigError, "good_above of rules: expected float"),
        ({"name": "monte_carlo", "samples": 0}, ConfigError, "samples of monte_carlo are 1 or above; got 0"),
        ({"name": "monte_carlo", "samples": "many"}, ConfigError, "samples of monte_carlo: expected int"),
    ],
)
def test_a_wrong_signal_is_one_sentence(spec, error, says):
    with pytest.raises(error, match=says):
        signal(spec)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.sampled_from("GBuf+-"), st.booleans(), st.booleans()), min_size=2, max_size=12))
def test_every_figure_is_a_share_or_undefined(steps):
    half = max(1, len(steps) // 2)
    parts = [part for part in (steps[:half], steps[half:]) if part]
    exact = [[value(progress, q) for _, progress, q in part] for part in parts]
    result = figures("".join(s for s, _, _ in steps), exact, episodes(*map(len, parts)))
    for labels in result.labels.values():
        for name in ("accuracy", "false_good", "false_bad", "auc"):
            share = getattr(labels, name)
            assert share.value is None or 0 <= share.value <= 1
        assert labels.kappa.value is None or -1 <= labels.kappa.value <= 1
    assert sum(s in "GB+-" for s, _, _ in steps) == result.scored


def test_a_run_of_collect_can_be_audited():
    engine = build_engine({"name": "ledger", "size": 5}, judge="rules")
    run = list(collect(make_agent("scripted", noise=0.5), engine, 5))
    assert len(Branches(make_agent("scripted"), engine, 2).values(run)) == 5
