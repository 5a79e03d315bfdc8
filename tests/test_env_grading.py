"""One grading decides both: the outcome of an episode and what judges make of its answer."""

import pytest

from fakes import EchoTool, SumTasks
from swirl_env.env import ToolUseEnv
from swirl_env.episodes.guarded import run_judge
from swirl_env.episodes.transcript import subtrajectories
from swirl_env.registry import make_judge
from swirl_env.types import Action, Task


class Says:
    """Grades every answer alike, and counts."""

    def __init__(self, grade):
        self.value, self.graded = grade, 0

    def grade(self, tasks, answers):
        self.graded += len(answers)
        return [self.value] * len(answers)


JUDGES = ["rules", "outcome", {"name": "weighted", "judges": {"rules": 0.5, "outcome": 0.5}}]


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize(("grade", "answer"), [(True, "no such number"), (False, "1"), (True, "1"), (False, "2")])
def test_a_custom_grader_decides_reward_and_outcome(judge, grade, answer):
    grader = Says(grade)
    env = ToolUseEnv(SumTasks(), tools=[EchoTool()], judge=judge, grader=grader)
    env.reset(seed=0, options={"task_id": "sum-0"})
    _, reward, terminated, _, info = env.step(f"<answer>{answer}</answer>")
    assert terminated and info["outcome"].correct is grade and reward == float(grade)
    assert info["verdict"].label == ("GOOD" if grade else "BAD") and grader.graded == 1
    # Judging what was stored gives the same, without the grader.
    again = run_judge(make_judge(judge), list(subtrajectories(info["trajectory"])))
    assert again[-1] == info["verdict"]


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize("grade", [None, "raises"])
def test_a_grade_that_is_missing_is_no_reward_of_zero(judge, grade):
    class Fails(Says):
        def grade(self, tasks, answers):
            if grade == "raises":
                raise TimeoutError("no grade today")
            return super().grade(tasks, answers)

    env = ToolUseEnv(SumTasks(), tools=[EchoTool()], judge=judge, grader=Fails(None))
    env.reset(seed=0, options={"task_id": "sum-0"})
    *_, info = env.step("<answer>1</answer>")
    assert info["outcome"].correct is None and info["verdict"].status == "failed" and info["verdict"].reward is None


@pytest.mark.parametrize("judge", JUDGES[:2])
def test_a_grader_decides_on_tasks_without_a_gold_answer(judge):
    class Open(SumTasks):
        def __getitem__(self, i):
            return Task(f"open-{i}", "What is fair?", None)

    env = ToolUseEnv(Open(2), tools=[EchoTool()], judge=judge, grader=Says(True))
    env.reset(seed=0)
    _, reward, *_, info = env.step("<answer>to share</answer>")
    assert reward == 1.0 and info["outcome"].correct is True


def test_actions_rated_at_frozen_states_are_graded_by_the_same_grader():
    env = ToolUseEnv(SumTasks(), tools=[EchoTool()], judge="rules", grader=Says(True))
    env.reset(seed=0)
    rated = env.engine.rate([env.state] * 2, [Action("<answer>x</answer>"), Action("<echo>y</echo>")])
    assert rated[0].verdict.label == "GOOD" and rated[1].verdict.label != "GOOD"
