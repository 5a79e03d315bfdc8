"""Functions, lists of tasks and ready objects by their path on the command line."""

import textwrap

import pytest

from commands import error_of
from swirl_env.store import Store

MODULE = '''
import functools

import numpy as np

import swirl_env
from swirl_env.types import Task

TASKS = [Task("a", "What is 1 + 1?", "2", grading="number"), Task("b", "Where is {x}?", "Oslo")]


def some(n: int = 2):
    return TASKS[:n]


@swirl_env.tool
def power(base: float, exponent: int = 2) -> str:
    """raises a number to a power."""
    return str(base**exponent)


def shout(text: str) -> str:
    """shouts."""
    return text.upper()


def agent(state):
    return "<answer>2</answer>" if state.steps else '<power>{"base": 3}</power>'


async def waiting(state):
    return agent(state)


short = functools.partial(lambda answer, state: answer, "<answer>2</answer>")
always = lambda state: "<answer>Oslo</answer>"


def judge(step, *, reward=0.5):
    return np.float32(reward)


def grader(task, answer):
    return answer == "2"


def make_agent(word):
    return lambda state: f"<answer>{word}</answer>"


def raises(task, fields):
    raise KeyError("boom")


def strange():
    return ["x"]
'''


@pytest.fixture(autouse=True)
def module(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("own")
    (folder / "plain_functions.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.syspath_prepend(str(folder))


def words(**choices):
    return [f"{key}=plain_functions:{name}" for key, name in choices.items()]


@pytest.mark.parametrize("task", ["TASKS", "some"])
@pytest.mark.parametrize("agent", ["agent", "waiting", "short", "always"])
def test_functions_and_lists_work_by_their_path(swirl, task, agent):
    chosen = words(task=task, agent=agent, judge="judge", grader="grader")
    tools = "tool=[plain_functions:power,plain_functions:shout]"
    code, out, err = swirl("generate", *chosen, tools, "out=run")
    assert code == 0 and "2 episodes" in out, err
    episodes = list(Store("run", "r"))
    assert {step.verdict.reward for t in episodes for step in t.steps} == {0.5}
    assert all(t.outcome.correct is (agent != "always") for t in episodes)
    if agent == "agent":
        assert {t.steps[0].result.text for t in episodes} == {"9.0"}
    code, out, err = swirl("judge", "out=run", *words(judge="judge"))
    assert code == 0 and "0 episodes judged" in out, err
    assert swirl("eval", "out=run", *words(grader="grader"))[0] == 0
    assert "names code to run" in error_of(swirl("generate", "out=run", "resume=true"))
    assert swirl("generate", "out=run", "resume=true", *chosen, tools)[0] == 0


def test_a_factory_of_functions_and_of_lists_takes_its_options(swirl):
    chosen = [*words(task="some", agent="make_agent"), "task.n=1", "agent.word=2", "judge=none", "tool=[]"]
    code, out, err = swirl("generate", *chosen, "out=run")
    assert code == 0 and "1 episode, accuracy 1.000" in out, err


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"task": "strange"}, "Expected a task, got 'x' as item 0 of the list"),
        ({"task": "TASKS", "agent": "grader"}, "The agent 'plain_functions:grader' needs a value for 'task'"),
        ({"task": "TASKS", "judge": "grader"}, "The judge 'plain_functions:grader' needs a value for 'task'"),
        ({"task": "TASKS", "grader": "judge"}, "The grader 'plain_functions:judge' needs a value for 'step'"),
    ],
)
def test_what_cannot_serve_is_named(swirl, chosen, says):
    assert says in error_of(swirl("generate", *words(**chosen), "tool=[]", "out=run"))


def test_a_prompt_function_that_raises_is_one_line_above_its_traceback(swirl):
    code, _, err = swirl("generate", *words(task="TASKS", agent="short", prompt="raises"), "tool=[]", "out=run")
    assert code == 2 and "swirl: The prompt function raised KeyError on task 'a': 'boom'" in err, err


@pytest.mark.parametrize(("name", "kind"), [("shout", "tool"), ("power", "tool"), ("agent", "agent"), ("TASKS", "task")])
def test_the_contract_suite_takes_them_too(swirl, name, kind):
    code, out, err = swirl("check", f"plain_functions:{name}", f"kind={kind}")
    assert code == 0 and "promises kept" in out, out + err
    if name == "shout":
        assert "say what the function is, kind=tool" in error_of(swirl("check", f"plain_functions:{name}"))
