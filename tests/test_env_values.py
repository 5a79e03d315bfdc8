"""What enters an episode can be stored: converted, or refused with a sentence, where it enters."""

import math
from decimal import Decimal
from fractions import Fraction

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes import EchoTool, SumTasks
from swirl_env.env import ToolUseEnv, build_engine
from swirl_env.episodes.engine import Engine
from swirl_env.episodes.rollout import collect
from swirl_env.episodes.values import json_data
from swirl_env.errors import ConfigError
from swirl_env.store import Store
from swirl_env.types import Action, Task, ToolResult, Verdict


class Judges:
    def __init__(self, give):
        self.give = give

    def judge(self, steps):
        return [self.give(step) for step in steps]


class Gives(EchoTool):
    def __init__(self, give):
        super().__init__()
        self.give = give

    def run(self, queries):
        return [self.give(query) for query in queries]


def stored(engine, path, *actions):
    """Plays an episode, stores it and reads it back; both must be the same."""
    state = engine.begin(SumTasks()[0])
    for action in (*actions, Action("<answer>1</answer>")):
        (moved,) = engine.step([state], [action])
        state = moved.state
    trajectory = engine.trajectory(moved)
    with Store(path) as store:
        store.append(trajectory)
    (again,) = Store(path)
    assert again.steps == trajectory.steps
    return trajectory.steps[0]


@pytest.mark.parametrize(
    ("reward", "value"),
    [
        (np.float64(0.25), 0.25),
        (np.float32(1.0), 1.0),
        (np.bool_(True), 1.0),
        (True, 1.0),
        (1, 1.0),
        (np.int64(0), 0.0),
        (Fraction(1, 4), 0.25),
        (Decimal("0.5"), 0.5),
        (np.array(0.5), 0.5),
    ],
)
def test_rewards_of_other_number_types_become_floats(reward, value, tmp_path):
    engine = Engine(SumTasks(), [EchoTool()], Judges(lambda _: Verdict("scored", reward, "GOOD", parts={"a": reward})))
    verdict = stored(engine, tmp_path / "run", Action("<echo>a</echo>")).verdict
    assert verdict.status == "scored" and type(verdict.reward) is float and verdict.reward == value
    assert type(verdict.parts["a"]) is float


@pytest.mark.parametrize("reward", [math.nan, -math.inf, 1e39, 10**400, "1", b"1", [1.0], np.array([1.0, 2.0]), object()])
@pytest.mark.parametrize("place", ["reward", "parts"])
def test_rewards_that_are_no_usable_number_fail(reward, place, tmp_path):
    parts = {"a": reward} if place == "parts" else {}
    give = Judges(lambda _: Verdict("scored", reward if place == "reward" else 1.0, "GOOD", "so", parts=parts))
    verdict = stored(Engine(SumTasks(), [EchoTool()], give), tmp_path / "run", Action("<echo>a</echo>")).verdict
    assert verdict.status == "failed" and verdict.reward is None and "not a usable number" in verdict.critique


@pytest.mark.parametrize(
    "fields", [("failed", 1.0), ("unscored", 0.0), ("scored", None), ("failed", None, "GOOD"), ("failed", np.float64(0))]
)
def test_inconsistent_verdicts_are_refused(fields, tmp_path):
    with pytest.raises(ValueError, match="A scored verdict, and no other, has a reward"):
        Verdict(*fields)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(dict(zip(("status", "reward", "label"), fields, strict=False)), Verdict)
    engine = Engine(SumTasks(), [EchoTool()], Judges(lambda _: Verdict(*fields)))
    assert stored(engine, tmp_path / "run", Action("<echo>a</echo>")).verdict.status == "failed"


@pytest.mark.parametrize("critique", ["\ud800 so", "x\udfff", "\ud83d\ude00"])
def test_lone_surrogates_in_a_critique_are_replaced(critique, tmp_path):
    engine = Engine(SumTasks(), [EchoTool()], Judges(lambda _: Verdict.good(critique, "j\udc00")))
    verdict = stored(engine, tmp_path / "run", Action("<echo>a</echo>")).verdict
    assert verdict.status == "scored" and verdict.critique.encode() and verdict.judge.encode()


@pytest.mark.parametrize(
    ("data", "plain"),
    [
        ({"a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True)}, {"a": 0.5, "b": 3, "c": True}),
        ({"rows": np.arange(4).reshape(2, 2)}, {"rows": [[0, 1], [2, 3]]}),
        ({"x": math.nan, "y": [math.inf, 1.0]}, {"x": None, "y": [None, 1.0]}),
        ({"t": (1, 2), "s": {3}, 4: "four", "n": math.nan}, {"t": [1, 2], "s": [3], "4": "four", "n": None}),
        ({"text": "a\ud800", "\udc00": np.str_("b")}, {"text": "a\ufffd", "\ufffd": "b"}),
        ({"f": Fraction(1, 3), "d": Decimal("1.5")}, None),
    ],
)
def test_details_of_a_result_become_json_or_are_refused(data, plain, tmp_path):
    result = stored(
        Engine(SumTasks(), [Gives(lambda q: ToolResult(q, data=data))], None), tmp_path / "run", Action("<echo>a</echo>")
    ).result
    if plain is None:
        assert result.error == "unavailable" or msgspec.json.encode(result)
    else:
        assert result.error is None and result.data == plain


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return {"v": value}


@pytest.mark.parametrize(
    "data", [{"o": object()}, nested(5_000), nested(400), {"e": ValueError("x")}, {(1, 2): 3}, [1], None, {"t": int}]
)
def test_details_that_json_cannot_hold_make_the_result_unavailable(data, tmp_path):
    engine = Engine(SumTasks(), [Gives(lambda q: ToolResult(q, data=data))], None)
    assert stored(engine, tmp_path / "run", Action("<echo>a</echo>")).result.error == "unavailable"


@pytest.mark.parametrize("result", [ToolResult("x", "broken"), ToolResult(5), ToolResult(None), "x", None])
def test_results_of_a_wrong_form_are_unavailable(result, tmp_path):
    engine = Engine(SumTasks(), [Gives(lambda q: result)], None)
    assert stored(engine, tmp_path / "run", Action("<echo>a</echo>")).result.error == "unavailable"


def test_meta_of_a_task_becomes_json_or_is_refused():
    engine = Engine(SumTasks(), [], None)
    assert engine.begin(Task("t", "q", meta={"n": np.int64(2)})).task.meta == {"n": 2}
    with pytest.raises(ConfigError, match="meta of task 't' cannot be stored"):
        engine.begin(Task("t", "q", meta={"n": object()}))


@pytest.mark.parametrize(
    ("action", "says"),
    [
        (Action("x", (1, 2), (-0.5, -math.inf)), "finite number; got -inf"),
        (Action("x", (1,), (math.nan,)), "finite number; got nan"),
        (Action("x", (1, 2), (-0.5,)), "one value for each of the 2"),
        (Action("x", (1, 2), behaviour_logprobs=(-0.5,)), "one value for each of the 2"),
        (Action("x", (1,), behaviour_logprobs=(math.nan,)), "finite number; got nan"),
        (Action("x", ("a",), ()), "token_ids are whole numbers"),
        (Action("x", (1.5,), ()), "token_ids are whole numbers"),
        (Action(5), "expected text in an Action, got int"),
        (Action("x", (-1,)), "entries of a vocabulary, 0 or above; got -1"),
        (Action("x", (2**70,)), "entries of a vocabulary"),
        (Action("x", (True,)), "token_ids are whole numbers; got True"),
        (Action("x", (1,), (0.5,)), "logarithm of a probability is 0 or below; got 0.5"),
        (Action("x", prompt_ids=("a",)), "prompt_ids are whole numbers"),
        (Action("x", behaviour_logprobs=(-1.0,)), "one value for each of the 0"),
        (Action("x", drift=None), "drift is 0 or 1; got None"),
    ],
)
def test_actions_with_impossible_values_are_refused(action, says):
    env = ToolUseEnv(SumTasks(), tools=[EchoTool()], judge=None)
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=says):
        env.step(action)

    class Agent:
        def act(self, states):
            return [action if s.task.id == "sum-0" else Action("<answer>2</answer>") for s in states]

    trajectories = list(collect(Agent(), build_engine(SumTasks(3), tools=[], judge=None), 3, 3))
    assert sorted(t.ended for t in trajectories) == ["answered", "answered", "error"]


@pytest.mark.parametrize(
    "action",
    [
        Action("<echo>a</echo>", prompt_ids=np.array([3])),
        Action("<echo>a</echo>", opened=0),
        Action("<echo>a</echo>", opened=np.bool_(False), truncated=None),
        Action("<echo>a</echo>", drift=np.int64(0)),
    ],
)
def test_fields_of_an_action_without_tokens_are_looked_at_too(action, tmp_path):
    step = stored(Engine(SumTasks(), [EchoTool()], None), tmp_path / "run", action)
    assert step.action == Action("<echo>a</echo>", prompt_ids=tuple(map(int, action.prompt_ids)))


@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        ({"label": "good"}, "failed", "The label was 'good'; expected GOOD, BAD or None."),
        ({"label": 1}, "failed", "The label was 1"),
        ({"critique": None}, "scored", ""),
        ({"critique": 5}, "scored", "5"),
        ({"parts": None}, "scored", ""),
        ({"parts": {1: 1.0}}, "scored", ""),
        ({"judge": None}, "scored", ""),
    ],
)
def test_odd_fields_of_a_verdict_are_converted_or_fail(fields, status, says, tmp_path):
    give = Judges(lambda _: Verdict("scored", 1.0, **fields))
    verdict = stored(Engine(SumTasks(), [EchoTool()], give), tmp_path / "run", Action("<echo>a</echo>")).verdict
    assert verdict.status == status and verdict.critique.startswith(says) and type(verdict.critique) is str


def test_a_status_that_there_is_not_fails(tmp_path):
    give = Judges(lambda _: Verdict("weird"))
    verdict = stored(Engine(SumTasks(), [EchoTool()], give), tmp_path / "run", Action("<echo>a</echo>")).verdict
    assert verdict.status == "failed" and "expected scored, unscored, failed" in verdict.critique


def test_actions_of_numpy_become_plain(tmp_path):
    ids, logprobs = np.array([3, 4]), np.array([-0.5, -0.25], dtype=np.float32)
    action = Action(np.str_("<echo>a</echo>"), ids, logprobs, ids)
    step = stored(Engine(SumTasks(), [EchoTool()], None), tmp_path / "run", action)
    assert step.action == Action("<echo>a</echo>", (3, 4), (-0.5, -0.25), (3, 4))


@pytest.mark.parametrize("kind", [tuple, np.array, list])
def test_what_an_action_was_drawn_from_and_whether_it_was_cut_off_come_through(kind, tmp_path):
    drawn = Action("<echo>a</echo>", kind((3, 4)), kind((-0.5, -0.25)), kind((1,)), 1, None, False, kind((-1.5, -2.0)), True)
    step = stored(Engine(SumTasks(), [EchoTool()], None), tmp_path / "run", drawn)
    assert step.action == Action("<echo>a</echo>", (3, 4), (-0.5, -0.25), (1,), 1, None, False, (-1.5, -2.0), True)


TEXT = st.text("ab\ud800\u202e", max_size=3)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | st.integers(), inner, max_size=3) | st.tuples(inner),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(TEXT, JSON, max_size=4))
def test_json_data_can_be_stored(data):
    written = msgspec.json.encode(json_data(data))
    assert msgspec.json.encode(msgspec.json.decode(written)) == written
