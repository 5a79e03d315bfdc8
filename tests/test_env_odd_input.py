"""Odd tasks, task sources, numbers and batches are converted, or refused in one sentence where they enter."""

import numpy as np
import pytest

from fakes import EchoAgent, EchoTool, SumTasks
from swirl_env.env import ToolUseEnv, build_engine
from swirl_env.errors import ConfigError, PluginError
from swirl_env.rollout import collect
from swirl_env.store import Store
from swirl_env.types import Task
from swirl_env.vector import ToolVectorEnv


class Source:
    """Two questions, as a function of the index gives them."""

    corpus = None
    split = "test"
    tools = ()
    max_steps = 2

    def __init__(self, give):
        self.give = give

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.give(index)


def first_line(tasks, how):
    """Returns the error with which an environment, or a run, refuses a task source."""
    with pytest.raises((ConfigError, PluginError)) as caught:
        if how == "environment":
            ToolUseEnv(tasks, tools=[EchoTool()], judge=None).reset(seed=0)
        else:
            list(collect(EchoAgent(), build_engine(tasks, tools=[EchoTool()], judge=None), 1))
    return str(caught.value)


@pytest.mark.parametrize("how", ["environment", "run"])
@pytest.mark.parametrize(
    ("task", "says"),
    [
        (Task(1, "q"), "its id is text; got 1"),
        (Task("a\ud800", "q"), "its id holds characters that no file can hold"),
        (Task("a", None), "its question is text; got None"),
        (Task("a", "q", 5), "its answer is text or None; got 5"),
        (Task("a", "q", "x", aliases=("y", 5)), "its aliases are texts; got 5"),
        (Task("a", "q", "x", evidence=(b"p",)), "its evidence are texts; got b'p'"),
        (Task("a", "q", "x", grading="fuzzy"), "its grading is text or number; got 'fuzzy'"),
        (Task("a", "q", "x", meta=None), "meta of task 'a' cannot be stored"),
        (None, "gave None; expected a Task"),
        ({"id": "a"}, "expected a Task"),
    ],
)
def test_a_task_that_could_not_be_stored_is_refused_when_its_episode_begins(how, task, says):
    assert says in first_line(Source(lambda index: task), how)


@pytest.mark.parametrize("how", ["environment", "run"])
@pytest.mark.parametrize("error", [ZeroDivisionError("no"), KeyError("x"), IndexError("short"), RuntimeError("\x1b[2J")])
def test_a_task_source_that_raises_is_named(how, error):
    def give(index):
        raise error

    said = first_line(Source(give), how)
    assert f"Source raised {type(error).__name__} for question" in said and "\x1b" not in said


def test_texts_that_no_file_can_hold_are_cleaned(tmp_path):
    task = Task("a", "q\ud800?", "x\udfff", aliases=["y\ud800"])
    env = ToolUseEnv([task], tools=[EchoTool()], judge="outcome")
    assert "q\ufffd?" in env.reset(seed=0)[0]
    info = env.step("<answer>x\ufffd</answer>")[4]
    assert info["outcome"].correct
    with Store(tmp_path) as store:
        store.append(info["trajectory"])
    assert [t.task for t in Store(tmp_path, "r")] == [Task("a", "q\ufffd?", "x\ufffd", aliases=("y\ufffd",))]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_steps": True}, "max_steps counts the actions of an episode"),
        ({"max_steps": 2.0}, "whole number of at least 1; got 2.0"),
        ({"max_chars": float("inf")}, "max_chars counts the characters of a state"),
        ({"format": 5}, "format is the name of an action format"),
        ({"instructions": 5}, "instructions is a text, the path of a file or a name; got 5"),
    ],
)
def test_options_of_another_type_are_named(options, says):
    with pytest.raises(ConfigError) as caught:
        ToolUseEnv(SumTasks(), tools=[EchoTool()], judge=None, **options)
    assert says in str(caught.value)
    assert type(ToolUseEnv(SumTasks(), tools=[EchoTool()], max_steps=np.int64(3)).engine.settings.max_steps) is int


@pytest.mark.parametrize("counts", [{"episodes": -1}, {"episodes": 1.5}, {"episodes": 1, "samples": 0}, {"episodes": "2"}])
def test_counts_of_a_run_are_whole_numbers(counts):
    with pytest.raises(ConfigError, match="is a whole number of at least"):
        list(collect(EchoAgent(), build_engine(SumTasks(2), tools=[EchoTool()], judge=None), **counts))
    assert len(list(collect(EchoAgent(), build_engine(SumTasks(2), tools=[EchoTool()], judge=None), np.int64(2)))) == 2


def vector(n=3):
    return ToolVectorEnv(SumTasks(), n, tools=[EchoTool()], judge=None)


@pytest.mark.parametrize("n", [0, 2.0, "2", True, None])
def test_the_number_of_environments_is_a_whole_number(n):
    with pytest.raises(ConfigError, match="num_envs is a whole number of at least 1"):
        vector(n)


@pytest.mark.parametrize("actions", [(x for x in "abc"), {"a", "b", "c"}, {0: "a", 1: "b", 2: "c"}, "abc", b"abc", ["a"], None])
def test_actions_of_a_vector_are_one_per_environment_in_their_order(actions):
    venv = vector()
    venv.reset(seed=0)
    with pytest.raises(ConfigError, match="step takes 3 actions, one per environment; got"):
        venv.step(actions)


@pytest.mark.parametrize("actions", [np.array(["<echo>a</echo>"] * 3), ["<echo>a</echo>"] * 3, (np.str_("<echo>a</echo>"),) * 3])
def test_actions_of_a_vector_may_come_as_list_tuple_or_array(actions):
    venv = vector()
    venv.reset(seed=np.int64(0))
    assert venv.step(actions)[0] == ("a -> A",) * 3


@pytest.mark.parametrize("seed", [1.5, "a", True, b"1"])
def test_a_seed_of_another_type_is_named(seed):
    with pytest.raises(ConfigError, match="seed is a whole number, or one for each environment"):
        vector().reset(seed=seed)


def test_a_task_id_of_another_type_is_named():
    with pytest.raises(ConfigError, match=r"A task_id is the text of `Task\.id`; got 3"):
        vector().reset(options={"task_id": 3})
    assert vector().reset(options={"task_id": np.array(["sum-1", "sum-2", "sum-3"])})[1]["task_id"].tolist()[0] == "sum-1"
