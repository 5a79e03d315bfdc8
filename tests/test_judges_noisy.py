"""The noisy judge errs at the rates it is given, and always alike."""

import pytest

from fakes import CallJudge, SumTasks
from swirl_env.episodes.formats import XmlFormat
from swirl_env.episodes.transcript import initial_state
from swirl_env.errors import ConfigError
from swirl_env.judges.noisy import NoisyJudge
from swirl_env.types import Action, Settings, SubTrajectory, Task, Verdict

FORMAT = XmlFormat(("echo",))


def steps(n):
    texts = ["<answer>1</answer>", "<answer>9</answer>"]
    state = [initial_state(SumTasks()[0], "p", Settings(("echo",), 3), seed) for seed in range(n)]
    return [SubTrajectory(s, Action(texts[i % 2]), FORMAT.parse(texts[i % 2])) for i, s in enumerate(state)]


def rates(judge):
    said = judge.judge(steps(4000))
    return sum(v.label == "BAD" for v in said[::2]) / 2000, sum(v.label == "GOOD" for v in said[1::2]) / 2000


@pytest.mark.parametrize(("flip", "lenient"), [(0.0, 0.0), (0.3, 0.0), (0.1, 0.5)])
def test_errors_come_at_the_rates_asked_for(flip, lenient):
    bad_for_good, good_for_bad = rates(NoisyJudge(CallJudge(), flip, lenient))
    # a GOOD that was flipped can be made good again by leniency
    assert bad_for_good == pytest.approx(flip * (1 - lenient), abs=0.035)
    assert good_for_bad == pytest.approx(flip + (1 - flip) * lenient, abs=0.035)


def test_errors_repeat_and_keep_reward_and_label_together():
    judge = NoisyJudge(CallJudge(), 0.5, seed=3)
    first, again = judge.judge(steps(50)), judge.judge(steps(50)[::-1])[::-1]
    assert first == again
    assert all((v.label == "GOOD") == (v.reward == 1.0) for v in first)
    assert NoisyJudge(CallJudge(), 0.5, seed=4).judge(steps(50)) != first


def test_verdicts_without_a_label_pass():
    class Silent:
        def judge(self, steps):
            return [Verdict.failed("down"), Verdict.unscored()] * (len(steps) // 2)

    assert NoisyJudge(Silent(), 1.0).judge(steps(2)) == [Verdict.failed("down"), Verdict.unscored()]
    with pytest.raises(ConfigError, match="between 0 and 1"):
        NoisyJudge("rules", flip=2)


def test_it_says_nothing_on_a_share_of_the_questions():
    class Numbered:
        corpus, split, tools, max_steps = None, "train", (), 3

        def __len__(self):
            return 1_000

        def __getitem__(self, i):
            return Task(f"q{i}", "1?", "1")

    tasks = Numbered()
    state = [initial_state(tasks[i], "p", Settings(("echo",), 3), seed) for i in range(len(tasks)) for seed in (0, 1)]
    texts = ["<answer>1</answer>", "<answer>9</answer>"]
    judge = NoisyJudge(CallJudge(), 0.0, silent=0.5, seed=3)
    verdicts = judge.judge([SubTrajectory(s, Action(t), FORMAT.parse(t)) for s, t in zip(state, texts * 1_000, strict=True)])
    silent = [v.status == "unscored" for v in verdicts]
    assert silent[::2] == silent[1::2]  # a question has verdicts on all its steps or on none
    assert sum(silent) / 2_000 == pytest.approx(0.5, abs=0.05)
    assert {v.label for v, quiet in zip(verdicts, silent, strict=True) if not quiet} == {"GOOD", "BAD"}
    assert all(v.reward is None for v, quiet in zip(verdicts, silent, strict=True) if quiet)
