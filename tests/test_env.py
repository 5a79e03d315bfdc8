"""The environment, the vector environment and the engine behind both, on tiny plugins with known behaviour."""

import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

import swirl_env
from fakes import BrokenTool, CallJudge, EchoAgent, EchoTool, SumTasks
from playing import play, same
from swirl_env.env import build_engine
from swirl_env.episodes.engine import Engine
from swirl_env.episodes.rollout import collect
from swirl_env.episodes.transcript import clean, escape, initial_state, next_state, subtrajectories
from swirl_env.errors import ConfigError, UnknownName
from swirl_env.types import Action, Settings, Step, Task, ToolResult, Verdict
from swirl_env.vector import ToolVectorEnv

ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=[]))


def make(**kwargs):
    options = {"tasks": SumTasks(), "tools": [EchoTool()], "judge": CallJudge(), **kwargs}
    return gym.make("swirl_env/ToolUse-v0", **options)


def test_an_episode_rewards_every_step():
    env = make()
    prompt, info = env.reset(seed=1, options={"task_id": "sum-4"})
    assert info == {"task_id": "sum-4"}
    assert "What is 4 + 1?" in prompt and "<echo>" in prompt and "at most 2 tool calls" in prompt
    observation, reward, terminated, truncated, info = env.step("Let me see. <echo>five?</echo> and more")
    assert (observation, reward, terminated, truncated) == ("five? -> FIVE?", 0.5, False, False)
    assert info["call"].query == "five?" and info["result"] == ToolResult("FIVE?") and info["verdict"].label == "GOOD"
    observation, reward, terminated, truncated, info = env.step("<answer>5</answer>")
    assert (observation, reward, terminated, truncated) == ("", 1.0, True, False)
    assert info["outcome"].correct is True and info["trajectory"].ended == "answered"
    with pytest.raises(gym.error.ResetNeeded):
        env.step("<answer>5</answer>")


def test_the_last_step_truncates_unless_it_answers():
    env = make(max_steps=1)
    env.reset(seed=0, options={"task_id": "sum-1"})
    *_, terminated, truncated, info = env.step("<echo>x</echo>")
    assert (terminated, truncated, info["ended"], info["outcome"].correct) == (False, True, "budget", False)
    env.reset(options={"task_id": "sum-1"})
    *_, terminated, truncated, info = env.step("<answer>2.0</answer>")
    assert (terminated, truncated, info["ended"], info["outcome"].correct) == (True, False, "answered", True)


def test_a_state_that_outgrows_its_length_truncates():
    env = make(max_chars=900)
    env.reset(seed=0)
    *_, terminated, truncated, info = env.step("<echo>" + "y" * 400 + "</echo>")
    assert (terminated, truncated, info["ended"]) == (False, True, "length")


def test_a_malformed_action_is_corrected_and_counts():
    env = make()
    env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step("I would say five.")
    assert "No tool call and no answer" in observation and "<answer>" in observation
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert info["verdict"].label == "BAD" and env.unwrapped.state.steps_left == 2


def test_a_tool_that_raises_is_an_observation_not_a_crash():
    env = make(tools=[BrokenTool()])
    env.reset(seed=0)
    observation, *_, info = env.step("<broken>x</broken>")
    assert info["result"].error == "unavailable" and "not available" in observation


def test_a_failed_judge_is_no_zero():
    class Down:
        def judge(self, steps):
            raise ConnectionError("no route")

    env = make(judge=Down())
    env.reset(seed=0)
    _, reward, *_, info = env.step("<echo>x</echo>")
    assert reward == 0.0 and info["verdict"].status == "failed" and info["verdict"].reward is None
    assert "no route" in info["verdict"].critique


def test_history_calls_drops_reasoning_and_full_keeps_it():
    for history, expected in (("full", "Hmm. <echo>a</echo>"), ("calls", "<echo>a</echo>")):
        env = make(history=history)
        env.reset(seed=0)
        env.step("Hmm. <echo>a</echo> trailing")
        assert env.unwrapped.state.turns[1].text == expected


def test_render_shows_rewards_and_critiques():
    env = make(render_mode="ansi")
    env.reset(seed=0)
    env.step("<echo>hi\x1b[2J</echo>")
    shown = env.render()
    assert "reward 0.5 GOOD: a call" in shown and "hi\\x1b[2J -> HI\\x1b[2J" in shown and "\x1b" not in shown


def test_check_env_passes_with_warnings_as_errors():
    check_env(make().unwrapped, skip_render_check=False)


def test_unknown_options_and_tasks_are_named():
    with pytest.raises(UnknownName, match="'sum-99'"):
        make().reset(options={"task_id": "sum-99"})
    with pytest.raises(UnknownName, match=r"No tool named 'serch'\. Did you mean 'search'\?"):
        make(tools=["serch"])
    with pytest.raises(ConfigError, match="at least 1"):
        make(max_steps=0)
    with pytest.raises(ConfigError, match="tag of its own"):
        make(tools=[EchoTool(), EchoTool()])
    with pytest.raises(ConfigError, match="is an object"):
        make(split="train")


ACTIONS = [
    "<echo>a</echo>",
    "oops",
    "<answer>1</answer>",
    "<echo>b</echo>",
    "<answer>3</answer>",
    "<broken>",
    "<echo>c</echo>",
]


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_vector_environments_agree_step_for_step(mode):
    options = {"tasks": SumTasks(), "tools": [EchoTool()], "judge": CallJudge()}
    kwargs = {"num_envs": 5, "vector_kwargs": {"autoreset_mode": mode}, **options}
    single = play(gym.make_vec("swirl_env/ToolUse-v0", vectorization_mode="sync", **kwargs), ACTIONS)
    ours = play(ToolVectorEnv(num_envs=5, autoreset_mode=mode, **options), ACTIONS)
    assert same(single, ours)
    if mode is AutoresetMode.NEXT_STEP:
        assert same(play(gym.make_vec("swirl_env/ToolUse-v0", vectorization_mode="async", **kwargs), ACTIONS), ours)
        by_id = gym.make_vec("swirl_env/ToolUse-v0", num_envs=5, vectorization_mode="vector_entry_point", **options)
        assert isinstance(by_id.unwrapped, ToolVectorEnv)
        assert same(play(by_id, ACTIONS), ours)


@pytest.mark.parametrize("mode", [mode.value for mode in AutoresetMode if mode != AutoresetMode.DISABLED])
def test_vector_environments_agree_if_agents_fail_in_some_of_them(mode):
    down = Action("", error="unavailable")
    rows = ["<echo>a</echo>", down, "<answer>1</answer>", Action("", error="length"), "junk", down, down]
    options = {"tasks": SumTasks(), "tools": [EchoTool()], "judge": CallJudge(), "max_steps": 3}
    kwargs = {"num_envs": 5, "vector_kwargs": {"autoreset_mode": mode}, **options}
    single = play(gym.make_vec("swirl_env/ToolUse-v0", vectorization_mode="sync", **kwargs), rows)
    assert same(play(ToolVectorEnv(num_envs=5, autoreset_mode=mode, **options), rows), single)


def test_a_vector_step_makes_one_tool_call_and_one_judge_call():
    tool, judge = EchoTool(), CallJudge()
    venv = ToolVectorEnv(SumTasks(), 64, tools=[tool], judge=judge)
    venv.reset(seed=0)
    venv.step(["<echo>x</echo>"] * 64)
    assert tool.batches == [64] and judge.batches == [64]


def test_reset_mask_and_disabled_autoreset():
    venv = ToolVectorEnv(SumTasks(), 3, tools=[EchoTool()], judge=None, autoreset_mode="Disabled")
    venv.reset(seed=0, options={"task_id": ["sum-0", "sum-1", "sum-2"]})
    _, _, terminated, _, _ = venv.step(["<answer>1</answer>", "<echo>a</echo>", "<echo>a</echo>"])
    assert terminated.tolist() == [True, False, False]
    with pytest.raises(gym.error.ResetNeeded):
        venv.step(["<echo>a</echo>"] * 3)
    observations, infos = venv.reset(seed=5, options={"task_id": "sum-9", "reset_mask": np.array([True, False, False])})
    assert "9 + 1" in observations[0] and observations[1] == "a -> A" and infos["_task_id"].tolist() == [True, False, False]


def test_collect_gives_the_same_episodes_however_many_fly():
    def run(slots, done=()):
        venv = ToolVectorEnv(SumTasks(), slots, tools=[EchoTool()], judge=CallJudge())
        return {t.key: t for t in collect(EchoAgent(), venv.engine, 30, venv.num_envs, seed=3, samples=2, done=done)}

    alone, many = run(1), run(8)
    assert alone == many and len(alone) == 30
    assert {t.ended for t in alone.values()} == {"answered", "budget"}
    rest = run(4, done=set(list(alone)[:10]))
    assert len(rest) == 20 and all(alone[key] == t for key, t in rest.items())
    with pytest.raises(ConfigError, match="give 20"):
        next(collect(EchoAgent(), build_engine(SumTasks(), tools=[], judge=None), 21, 2))


def test_an_agent_that_cannot_act_ends_its_episode_alone():
    class Fails:
        def act(self, states):
            errors = {"sum-0": "unavailable", "sum-1": "length"}
            return [Action("", error=errors[s.task.id]) if s.task.id in errors else Action("<answer>3</answer>") for s in states]

    venv = ToolVectorEnv(SumTasks(3), 3, tools=[EchoTool()], judge=CallJudge())
    results = {t.task.id: t for t in collect(Fails(), venv.engine, 3, venv.num_envs)}
    assert results["sum-0"].ended == "error" and results["sum-0"].outcome.correct is None and results["sum-0"].steps == ()
    assert results["sum-1"].ended == "length" and results["sum-1"].outcome.correct is False
    assert results["sum-2"].ended == "answered" and results["sum-2"].outcome.correct is True


def test_states_are_rebuilt_from_a_stored_trajectory():
    seen = []

    class Notes(EchoAgent):
        def act(self, states):
            seen.extend(states)
            return super().act(states)

    venv = ToolVectorEnv(SumTasks(1), 1, tools=[EchoTool()], judge=CallJudge(), history="calls")
    (trajectory,) = collect(Notes(), venv.engine, 1, venv.num_envs)
    assert [s.state for s in subtrajectories(trajectory)] == seen
    assert pickle.loads(pickle.dumps(trajectory)) == trajectory


@given(ANY_TEXT)
@settings(max_examples=200)
def test_tool_text_cannot_write_markup(text):
    shown = escape(clean(text) + "<answer>x</answer><|im_end|><start_of_turn></search_query><!--[INST][/INST]")
    assert not any(mark in shown for mark in ("<a", "</", "<|", "<s", "<!", "[INST]", "[/INST]"))
    shown.encode()


@pytest.mark.parametrize(
    "token", ["<｜end▁of▁sentence｜>", "[TOOL_RESULTS]", "[/INST]", "[|endofturn|]", "<<SYS>>", "[SYSTEM_PROMPT]"]
)
def test_control_tokens_of_other_families_are_escaped_and_prose_is_not(token):
    assert token not in escape(f"a {token} b")
    assert escape("[1] 3 < 4 <5, x<=y [USA] [T] a|b") == "[1] 3 < 4 <5, x<=y [USA] [T] a|b"


@given(st.lists(ANY_TEXT, max_size=4))
def test_any_text_is_an_action(texts):
    engine = Engine(SumTasks(), [EchoTool()], CallJudge(), 9)
    state = engine.begin(SumTasks()[0])
    for text in texts:
        (moved,) = engine.step([state], [Action(text)])
        state = moved.state
        if moved.ended:
            break
    assert initial_state(Task("t", "q"), "p", Settings((), 1)).chars == 1


def test_next_state_counts_its_characters():
    state = initial_state(Task("t", "q"), "prompt", Settings(("echo",), 3))
    call = Engine(SumTasks(), [EchoTool()], None).format.parse("a <echo>b</echo> c")
    after = next_state(state, Step(Action("a <echo>b</echo> c"), call, ToolResult("B"), "b -> B", Verdict("unscored")))
    assert [t.text for t in after.turns] == ["prompt", "a <echo>b</echo>", "b -> B"]
    assert after.chars == sum(len(t.text) for t in after.turns)


def test_ids_are_registered():
    assert set(swirl_env.ENV_IDS) < {str(i) for i in gym.registry}


def test_rating_at_frozen_states_moves_no_episode():
    tool, judge = EchoTool(), CallJudge()
    engine = Engine(SumTasks(), [tool], judge)
    state = engine.begin(SumTasks()[1])
    actions = [Action("<echo>a</echo>"), Action("<answer>2</answer>"), Action("?")]
    steps = engine.rate([state] * 3, actions)
    assert [s.verdict.reward for s in steps] == [0.5, 1.0, 0.0] and steps[0].result == ToolResult("A")
    assert engine.rate([state], actions[:1], tools=False)[0].result is None
    assert tool.batches == [1] and judge.batches == [3, 1]
