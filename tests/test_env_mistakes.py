"""What users and plugins get wrong around an environment: each mistake has a sentence, and no plugin can stop an episode."""

import math

import gymnasium as gym
import numpy as np
import pytest

from fakes import CallJudge, EchoTool, SumTasks
from swirl_env.env import build_engine
from swirl_env.episodes.engine import Engine
from swirl_env.episodes.rollout import collect
from swirl_env.errors import ConfigError, PluginError, SwirlError, UnknownName
from swirl_env.registry import make_agent, make_format, make_tasks
from swirl_env.store import Store
from swirl_env.types import Action, ToolCall, ToolResult, Verdict
from swirl_env.vector import ToolVectorEnv

LEDGER = "swirl_env/Ledger-v0"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_step": 5}, "named 'max_step'. Did you mean 'max_steps'?"),
        ({"jugde": None}, "Did you mean 'judge'?"),
        ({"splt": "test"}, "Did you mean 'split'?"),
        ({"history": "fulll"}, "No history named 'fulll'. Did you mean 'full'?"),
        ({"prompt": "questoin"}, "Did you mean 'question'?"),
        ({"max_steps": "5"}, "max_steps counts the actions of an episode and must be a whole number of at least 1; got '5'"),
        ({"max_steps": 2.5}, "got 2.5"),
        ({"max_chars": 0}, "max_chars counts the characters of a state"),
        ({"tools": "calculator"}, "Write tools=['calculator']"),
        ({"tools": [EchoTool]}, "got the class EchoTool; give an instance of it"),
        ({"tools": [5]}, "no 'tag', 'description', 'run'"),
        ({"judge": 5}, "no 'judge'"),
        ({"judge": CallJudge}, "the class CallJudge"),
        ({"render_mode": "human"}, "'ansi' or None"),
    ],
)
@pytest.mark.parametrize("many", [False, True])
def test_a_wrong_option_is_named(options, says, many):
    with pytest.warns(UserWarning) if "render_mode" in options and not many else _nothing(), pytest.raises(SwirlError) as error:
        gym.make_vec(LEDGER, num_envs=2, **options) if many else gym.make(LEDGER, **options)
    assert says in str(error.value)


def _nothing():
    import contextlib

    return contextlib.nullcontext()


@pytest.mark.parametrize("tasks", [None, [1, 2], SumTasks, object()])
def test_what_is_no_task_source_is_named(tasks):
    with pytest.raises(PluginError, match="Expected a task, got"):
        gym.make("swirl_env/ToolUse-v0", tasks=tasks)


def test_an_engine_takes_no_further_options():
    engine = Engine(SumTasks(), [EchoTool()], None)
    with pytest.raises(ConfigError, match="got judge, max_steps as well"):
        ToolVectorEnv(engine, 2, max_steps=3, judge="rules")


@pytest.mark.parametrize("tag", ["a b", "", "<x>", "1x", 5, "answer"])
def test_a_tag_that_no_policy_could_write_is_refused(tag):
    tool = EchoTool()
    tool.tag = tag
    with pytest.raises(ConfigError, match="tag"):
        Engine(SumTasks(), [tool], None)


def test_two_questions_of_one_id_are_refused():
    class Twice(SumTasks):
        def __getitem__(self, i):
            return super().__getitem__(i % 3)

    venv = ToolVectorEnv(Twice(6), 2, tools=[], judge=None)
    with pytest.raises(ConfigError, match="Two questions have the id 'sum-0'"):
        list(collect(make_agent("random"), venv.engine, 6, venv.num_envs))


def test_an_empty_task_source_cannot_begin():
    with pytest.raises(ConfigError, match="holds no tasks"):
        gym.make("swirl_env/ToolUse-v0", tasks=SumTasks(0), tools=[]).reset(seed=0)


def test_a_wrong_option_of_reset_is_named():
    env = gym.make("swirl_env/ToolUse-v0", tasks=SumTasks(), tools=[EchoTool()], judge=None)
    with pytest.raises(UnknownName, match=r"'taks_id'\. Did you mean 'task_id'"):
        env.reset(options={"taks_id": "sum-1"})
    with pytest.raises(ConfigError, match="got 5"):
        env.reset(options={"task_id": 5})
    venv = ToolVectorEnv(SumTasks(), 3, tools=[EchoTool()], judge=None)
    for options in ({"reset_mask": [True]}, {"reset_mask": np.ones(5, bool)}, {"reset_mask": [0, 1, 2]}, {"task_id": ["a"]}):
        with pytest.raises(ConfigError, match="each of the 3 environments"):
            venv.reset(options=options)
    with pytest.raises(ConfigError, match="got 2, 3 and 3"):
        venv.reset(seed=[1, 2])


def test_seeds_may_be_of_numpy():
    venv = ToolVectorEnv(SumTasks(), 3, tools=[EchoTool()], judge=None)
    prompts = venv.reset(seed=3)[0]
    assert venv.reset(seed=np.int64(3))[0] == venv.reset(seed=np.array([3, 4, 5]))[0] == prompts


@pytest.mark.parametrize("action", [None, 5, b"<answer>1</answer>", ["x"]])
def test_what_is_no_action_is_named(action):
    env = gym.make("swirl_env/ToolUse-v0", tasks=SumTasks(), tools=[EchoTool()], judge=None)
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="An action is text"):
        env.step(action)
    assert env.step("<echo>a</echo>")[0] == "a -> A"
    venv = ToolVectorEnv(SumTasks(), 3, tools=[EchoTool()], judge=None)
    venv.reset(seed=0)
    for wrong, says in (([action] * 3, "An action is text"), ("abc", "got a single text"), (["a"], "got 1")):
        with pytest.raises(ConfigError, match=says):
            venv.step(wrong)


def test_an_agent_that_gives_text_is_told():
    class Texts:
        def act(self, states):
            return ["<answer>1</answer>"] * len(states)

    with pytest.raises(PluginError, match=r"Texts\.act gave '<answer>1</answer>'; expected an Action"):
        next(collect(Texts(), build_engine(SumTasks(), tools=[], judge=None), 2, 2))


def test_an_agent_that_raises_ends_the_episodes_on_which_it_raises_and_no_others():
    class Away:
        def act(self, states):
            if any(state.task.id in ("sum-2", "sum-3") for state in states):
                raise ConnectionError("no route")
            return [Action("<answer>1</answer>")] * len(states)

    trajectories = list(collect(Away(), build_engine(SumTasks(6), tools=[], judge=None), 6, 2))
    assert [t.ended for t in trajectories] == ["answered"] * 2 + ["error"] * 2 + ["answered"] * 2
    assert trajectories[2].outcome.correct is None and trajectories[2].steps == ()


def test_an_agent_that_cannot_take_the_tasks_on_says_so():
    venv = ToolVectorEnv(SumTasks(), 2, tools=[], judge=None)
    with pytest.raises(ConfigError, match="follows gold plans"):
        next(collect(make_agent("scripted"), venv.engine, 2, venv.num_envs))


class Odd(EchoTool):
    def __init__(self, give):
        super().__init__()
        self.give = give

    def run(self, queries):
        return self.give(queries)


@pytest.mark.parametrize("give", [lambda q: ["text"] * len(q), lambda q: [], lambda q: None, lambda q: [ToolResult(None)]])
def test_a_tool_that_answers_wrongly_is_unavailable(give):
    engine = Engine(SumTasks(), [Odd(give)], None)
    (moved,) = engine.step([engine.begin(SumTasks()[0])], [Action("<echo>a</echo>")])
    assert moved.step.result.error == "unavailable" and moved.ended is None


@pytest.mark.parametrize("reward", [math.nan, math.inf, None, "1", "verdict"])
def test_a_judge_that_answers_wrongly_has_failed(reward):
    class Judges:
        def judge(self, steps):
            return [0.5 if reward == "verdict" else Verdict("scored", reward, "GOOD", "so", "mine") for _ in steps]

    engine = Engine(SumTasks(), [EchoTool()], Judges())
    (moved,) = engine.step([engine.begin(SumTasks()[0])], [Action("<echo>a</echo>")])
    assert moved.step.verdict.status == "failed" and moved.step.verdict.reward is None and moved.step.verdict.label is None


@pytest.mark.parametrize("grades", [lambda a: [], lambda a: 1 / 0, lambda a: [None] * len(a)])
def test_a_grader_that_fails_leaves_the_answer_open(grades):
    class Grades:
        def grade(self, tasks, answers):
            return grades(answers)

    engine = Engine(SumTasks(), [EchoTool()], None, grader=Grades())
    (moved,) = engine.step([engine.begin(SumTasks()[0])], [Action("<answer>1</answer>")])
    assert moved.ended == "answered" and moved.outcome.correct is None and moved.outcome.answer == "1"


def test_text_that_no_file_can_hold_is_mended_on_its_way_in(tmp_path):
    format = make_format("hermes", ("echo",))
    text = '<tool_call>{"name": "echo", "arguments": {"q": "a\\ud800"}}</tool_call>'
    assert format.parse(text) == ToolCall("echo", "a�", 0, len(text))
    engine = Engine(SumTasks(), [Odd(lambda q: [ToolResult("\udc80" + x) for x in q])], None, format="hermes")
    (moved,) = engine.step([engine.begin(SumTasks()[0])], [Action(text)])
    assert moved.step.observation == "a� -> �a�"
    (moved,) = engine.step([moved.state], [Action("<answer>1\ud800</answer>")])
    with Store(tmp_path / "run") as store:
        store.append(engine.trajectory(moved))
        assert len(store) == 1


@pytest.mark.parametrize("name", ["q.jsonl.gz", "q.parquet"])
def test_a_damaged_question_file_is_named(tmp_path, name):
    pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(b"not that")
    with pytest.raises(ConfigError, match=f"{name}: expected a (gzipped|Parquet) file"):
        len(make_tasks("jsonl", path=str(tmp_path / name)))
