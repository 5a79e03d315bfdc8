"""What users bring along: functions, lists of tasks, prompts of their own, wrappers; and what reaches a terminal."""

import functools
import logging
import sys

import gymnasium as gym
import pytest

import swirl_env
from fakes import EchoTool, SumTasks
from swirl_env.env import ToolUseEnv, build_engine
from swirl_env.episodes.guarded import run_tool
from swirl_env.errors import ConfigError, PluginError, SwirlError, UnknownName, printable
from swirl_env.rollout import collect, cut_short
from swirl_env.store import Store
from swirl_env.types import Action, Task, ToolResult, Verdict

TASKS = [Task("a", "What is 1 + 1?", "2"), Task("b", "Who wrote {question} in \\boxed{x}?", "Ada")]


def louder(text: str) -> str:
    """writes in capitals."""
    return text.upper()


def always_two(state):
    return "<answer>2</answer>"


def by_length(step):
    return float(len(step.action.text) > 30)


def lenient(task, answer):
    return answer != ""


# Functions and lists as plugins.


def test_functions_serve_as_tool_judge_agent_and_grader():
    env = gym.make("swirl_env/ToolUse-v0", tasks=TASKS, tools=[louder], judge=by_length, grader=lenient)
    env.reset(seed=0, options={"task_id": "a"})
    observation, reward, *_ = env.step("<louder>some words to write louder</louder>")
    assert observation.endswith("SOME WORDS TO WRITE LOUDER") and reward == 1.0
    _, reward, terminated, _, info = env.step("<answer>5</answer>")
    assert terminated and reward == 0.0 and info["outcome"].correct is True
    trajectories = list(collect(lambda state: Action("<answer>2</answer>"), env.unwrapped.engine, 2, 2))
    assert [t.outcome.answer for t in trajectories] == ["2", "2"]
    assert next(collect(always_two, env.unwrapped.engine, 1)).outcome.correct is True


@pytest.mark.parametrize(
    ("give", "status", "reward"),
    [
        (lambda s: True, "scored", 1.0),
        (lambda s: None, "unscored", None),
        (lambda s: Verdict.bad(), "scored", 0.0),
        (lambda s: "good", "failed", None),
        (lambda s: 1 / 0, "failed", None),
        (lambda s: float("nan"), "failed", None),
    ],
)
def test_a_function_may_judge_in_several_ways(give, status, reward):
    env = ToolUseEnv(SumTasks(), tools=[EchoTool()], judge=give)
    env.reset(seed=0)
    verdict = env.step("<echo>a</echo>")[-1]["verdict"]
    assert (verdict.status, verdict.reward) == (status, reward)


def test_functions_are_taken_by_their_path(tmp_path, monkeypatch):
    (tmp_path / "own_functions.py").write_text(
        "def shout(text):\n    'shouts.'\n    return text + '!'\n"
        "def judge(step):\n    return 0.25\ndef act(state):\n    return '<shout>a</shout>'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    env = ToolUseEnv(SumTasks(), tools=["own_functions:shout"], judge="own_functions:judge")
    env.reset(seed=0)
    (action,) = swirl_env.make_agent("own_functions:act").act([env.state])
    assert env.step(action)[:2] == ("a -> a!", 0.25)
    sys.modules.pop("own_functions")


def test_a_callable_object_serves_too():
    agent = functools.partial(lambda answer, state: f"<answer>{answer}</answer>", "3")
    assert next(collect(agent, build_engine(SumTasks(), tools=[], judge=None), 1)).outcome.answer == "3"


@pytest.mark.parametrize("agent", [None, 5, "<answer>", object(), type("A", (), {"act": lambda self, states: []})])
def test_what_is_no_agent_is_named_at_once(agent):
    with pytest.raises(PluginError, match="Expected an agent, got"):
        next(collect(agent, build_engine(SumTasks(), tools=[], judge=None), 1))


@pytest.mark.parametrize("grader", [5, object(), SumTasks])
def test_what_is_no_grader_is_named_at_once(grader):
    with pytest.raises(PluginError, match="Expected a grader"):
        ToolUseEnv(SumTasks(), grader=grader)
    with pytest.raises(UnknownName, match="No grader named 'lm'"):
        ToolUseEnv(SumTasks(), grader="lm")


def test_a_lambda_needs_a_tag_to_be_a_tool():
    with pytest.raises(ConfigError, match="by a tag and a description"):
        ToolUseEnv(SumTasks(), tools=[lambda text: text])
    tool = swirl_env.tool(tag="upper", description="capitals.")(lambda text: text.upper())
    env = ToolUseEnv(SumTasks(), tools=[tool], judge=None)
    env.reset(seed=0)
    assert env.step("<upper>a</upper>")[0] == "a -> A"


def test_a_list_of_tasks_is_a_task_source():
    env = ToolUseEnv(tuple(TASKS), max_steps=3)
    assert env.reset(options={"task_id": "b"})[1] == {"task_id": "b"} and env.engine.settings.max_steps == 3
    with pytest.raises(ConfigError, match="items 0 and 1 are both 'a'"):
        ToolUseEnv([TASKS[0], TASKS[0]])
    with pytest.raises(PluginError, match="item 1 of the list"):
        ToolUseEnv([TASKS[0], "What?"])
    with pytest.raises(ConfigError, match="no tasks"):
        ToolUseEnv([]).reset()
    assert len(swirl_env.make_tasks(TASKS)) == 2


# Prompts.


def prompt_of(task="b", **options):
    env = ToolUseEnv(TASKS, tools=[louder], max_steps=4, **options)
    return env.reset(options={"task_id": task})[0]


def test_a_prompt_may_be_a_text_with_fields():
    text = 'You are terse.\n{forms}\nTools: {tools}. {steps}, {calls}. JSON: {"a": {x}}\nQ: {question}'
    prompt = prompt_of(prompt=text)
    assert prompt.startswith("You are terse.\n- <louder>") and "Tools: louder. 4 messages, 3 tool calls." in prompt
    # What stands in braces and is no field stays, also in the question.
    assert prompt.endswith('JSON: {"a": {x}}\nQ: Who wrote {question} in \\boxed{x}?')


def test_a_prompt_may_be_a_file_or_a_function(tmp_path, monkeypatch):
    (tmp_path / "p.txt").write_text("Hi {question}\n")
    assert prompt_of("a", prompt=str(tmp_path / "p.txt")) == "Hi What is 1 + 1?"
    assert prompt_of("a", prompt=lambda task, fields: f"{task.id}|{fields['tools']}") == "a|louder"
    (tmp_path / "own_prompts.py").write_text("def short(task, fields):\n    return 'Short: ' + fields['question']\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert prompt_of("a", prompt="own_prompts:short") == "Short: What is 1 + 1?"


def test_instructions_and_examples_are_options(tmp_path):
    (tmp_path / "shots.txt").write_text("Q: 1+2? A: 3\n")
    for prompt in ("full", "question"):
        text = prompt_of("a", prompt=prompt, instructions="Be brief.", examples=str(tmp_path / "shots.txt"))
        assert text.startswith("Be brief.\n\n") and "Q: 1+2? A: 3\n\n" in text and text.endswith("What is 1 + 1?")
    assert prompt_of("a", prompt="{examples}|{question}", examples="E") == "E|What is 1 + 1?"
    assert prompt_of("a", prompt="question") == "What is 1 + 1?"


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"prompt": "questoin"}, UnknownName, "Did you mean 'question'?"),
        ({"prompt": "You are terse."}, UnknownName, "a text that contains {question}"),
        ({"prompt": "You are: {qestion}"}, UnknownName, "has to contain {question}"),
        ({"prompt": 5}, ConfigError, "a name, a text with {question}, a file or a function"),
        ({"prompt": "Q: {question}", "examples": "E"}, ConfigError, "no {examples}, so examples= would be lost"),
        ({"prompt": lambda task, fields: None}, ConfigError, "returned None"),
        ({"prompt": "no_such_module_at_all:prompt"}, UnknownName, "no module named"),
    ],
)
def test_prompts_that_cannot_be_meant_are_refused(options, error, says):
    with pytest.raises(error) as caught:
        prompt_of(**options)
    assert says in str(caught.value)


def test_a_prompt_file_without_a_question_is_refused(tmp_path):
    (tmp_path / "p.txt").write_text("Hi")
    with pytest.raises(ConfigError, match=r"has no \{question\}"):
        prompt_of(prompt=str(tmp_path / "p.txt"))


# Wrappers.


@pytest.mark.parametrize("limit", [1, 2])
def test_an_episode_cut_by_time_limit_leaves_a_trajectory(limit, tmp_path):
    env = gym.make("swirl_env/ToolUse-v0", tasks=SumTasks(), tools=[EchoTool()], judge=None, max_steps=5, max_episode_steps=limit)
    env.reset(seed=3)
    for _ in range(limit):
        *_, terminated, truncated, info = env.step(Action("<echo>a</echo>"))
    assert truncated and not terminated and "trajectory" not in info
    trajectory = cut_short(info["state"], sample=2, agent="own")
    assert len(trajectory.steps) == limit and trajectory.ended == "budget" and trajectory.outcome.correct is False
    with Store(tmp_path / "run") as store:
        store.append(trajectory)
    assert list(Store(tmp_path / "run")) == [trajectory] and trajectory.key[1] == 2


# Terminals.

HOSTILE = ["\x1b[2J", "\x9b31m", "\u202e", "\u2066", "\u200b", "\ufeff", "\x00", "\x7f", "\ud800", "\u2028", "\U000e0041", "\r"]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_escaped_on_its_way_to_a_terminal(text, caplog):
    safe = printable(f"a{text}b\n\tc")
    assert text[0] not in safe and safe.startswith("a\\") and safe.endswith("\n\tc") and safe.encode()
    env = ToolUseEnv([Task("t", f"q {text}")], tools=[EchoTool()], judge=lambda s: Verdict.good(f"c{text}"), render_mode="ansi")
    env.reset(seed=0)
    env.step(f"<echo>{text}</echo>")
    assert text[0] not in env.render()
    with pytest.raises(SwirlError) as caught:
        env.reset(options={"task_id": f"t{text}"})
    assert text[0] not in str(caught.value)

    class Quotes(EchoTool):
        def run(self, queries):
            raise ValueError(f"cannot read {queries[0]}")

    with caplog.at_level(logging.WARNING):
        assert run_tool(Quotes(), [text]) == [ToolResult("The tool is not available at the moment.", "unavailable")]
    assert text[0] not in caplog.text and "cannot read" in caplog.text


def test_readable_text_stays_as_it_is():
    for text in ("plain", "Ünïcode 漢字 🙂", "a\tb\nc", "no\u00a0break", "नमस्ते", "שלום"):
        assert printable(text) == text
