"""Tools with state: one session per episode, opened late, closed always, forked when an episode branches."""

import gc
import pickle

import gymnasium as gym
import pytest

from fakes import CallJudge, EchoTool, SumTasks
from swirl_env.contract import check
from swirl_env.env import ToolUseEnv, build_engine
from swirl_env.episodes.engine import Engine
from swirl_env.episodes.rollout import collect
from swirl_env.episodes.transcript import subtrajectories
from swirl_env.errors import ConfigError, PluginError
from swirl_env.tools.notes import Notes
from swirl_env.types import Action, ToolResult
from swirl_env.vector import ToolVectorEnv


class Counting:
    """Counts the calls of an episode; remembers what was opened and closed."""

    tag = "count"
    description = "counts."

    def __init__(self, forks=True):
        self.opened, self.closed, self.live = [], 0, 0
        self.session = Forkable if forks else Plain

    def open(self, task, seed):
        self.opened.append((task.id, seed))
        return self.session(self, 0)


class Plain:
    def __init__(self, tool, n):
        self.tool, self.n = tool, n
        tool.live += 1

    def run(self, queries):
        results = []
        for query in queries:
            self.n += 1
            if query == "raise":
                raise RuntimeError("broken")
            results.append(ToolResult(str(self.n)))
        return results

    def close(self):
        self.tool.closed += 1
        self.tool.live -= 1


class Forkable(Plain):
    def fork(self):
        return Forkable(self.tool, self.n)


CALL, ANSWER, WORDS = Action("<count>x</count>"), Action("<answer>1</answer>"), Action("nothing")


def engine_with(tool, **options):
    return Engine(SumTasks(), [tool, EchoTool()], None, 6, **options)


def text_of(transition):
    return transition.step.result.text


def test_sessions_open_with_the_first_call_and_close_with_the_answer():
    tool = Counting()
    engine = engine_with(tool)
    state = engine.begin(SumTasks()[3], seed=11)
    state = engine.step([state], [WORDS])[0].state
    assert tool.opened == []
    for n in ("1", "2"):
        (moved,) = engine.step([state], [CALL])
        state = moved.state
        assert text_of(moved) == n and tool.opened == [("sum-3", 11)] and tool.live == 1
    (moved,) = engine.step([state], [ANSWER])
    assert moved.ended == "answered" and (tool.live, tool.closed) == (0, 1)
    assert engine.trajectory(moved).steps[1].result.text == "1"


@pytest.mark.parametrize("end", ["answer", "budget", "error", "length"])
def test_sessions_close_however_an_episode_ends(end):
    tool = Counting()
    engine = engine_with(tool, max_chars=2_000)
    state = engine.step([engine.begin(SumTasks()[0])], [CALL])[0].state
    assert tool.live == 1
    last = {
        "answer": [ANSWER],
        "budget": [WORDS] * 5,
        "error": [Action("", error="unavailable")],
        "length": [Action("x" * 3_000 + CALL.text)],
    }[end]
    for action in last:
        (moved,) = engine.step([state], [action])
        state = moved.state
    assert moved.ended == {"answer": "answered"}.get(end, end) and (tool.live, tool.closed) == (0, 1)


def test_parallel_episodes_do_not_share_a_session():
    for make in (lambda tool: ToolVectorEnv(SumTasks(), 3, tools=[tool, EchoTool()], judge=CallJudge(), max_steps=4),):
        tool = Counting()
        venv = make(tool)
        venv.reset(seed=0)
        venv.step(["<count>x</count>", "<echo>a</echo>", "<count>x</count>"])
        observations = venv.step(["<count>x</count>", "<count>x</count>", "<echo>a</echo>"])[0]
        assert observations[:2] == ("x -> 2", "x -> 1") and tool.live == 3
        venv.close()
        assert tool.live == 0


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_a_new_episode_in_the_same_slot_starts_afresh(mode):
    tool = Counting()
    venv = ToolVectorEnv(SumTasks(), 2, tools=[tool], judge=None, max_steps=3, autoreset_mode=mode)
    venv.reset(seed=0)
    for _ in range(20):
        observations = venv.step([CALL.text, "words"])[0]
        assert observations[0] in ("x -> 1", "x -> 2", "") or "What is" in observations[0]
        assert tool.live <= 1
    venv.reset(seed=1)
    assert tool.live == 0 and tool.closed == len(tool.opened) > 3


def test_abandoned_episodes_close_their_sessions():
    tool = Counting()
    env = ToolUseEnv(SumTasks(), tools=[tool], judge=None)
    env.reset(seed=0)
    env.step(CALL.text)
    env.reset(seed=1)
    assert (tool.live, tool.closed) == (0, 1)
    env.step(CALL.text)
    env.close()
    assert (tool.live, tool.closed) == (0, 2)

    class Calls:
        def act(self, states):
            return [CALL if s.task.id != "sum-0" else ANSWER for s in states]

    run = collect(Calls(), build_engine(SumTasks(), tools=[tool], judge=None), 6, 3)
    next(run)
    assert tool.live > 0
    run.close()
    assert tool.live == 0


def test_an_engine_that_is_dropped_closes_what_is_open():
    tool = Counting()
    engine = engine_with(tool)
    engine.step([engine.begin(SumTasks()[0])], [CALL])
    del engine
    gc.collect()
    assert tool.live == 0


def test_episodes_that_an_agent_fails_on_close_their_sessions():
    class Fails:
        def act(self, states):
            if any(s.steps for s in states if s.task.id == "sum-1"):
                raise RuntimeError("gone")
            return [CALL if not s.steps else ANSWER for s in states]

    tool = Counting()
    trajectories = list(collect(Fails(), build_engine(SumTasks(4), tools=[tool], judge=None), 4, 4))
    assert sorted(t.ended for t in trajectories) == ["answered"] * 3 + ["error"] and tool.live == 0


def test_a_branch_forks_and_neither_sees_the_other():
    tool = Counting()
    engine = engine_with(tool)
    state = engine.step([engine.begin(SumTasks()[0])], [CALL])[0].state
    one, two = engine.step([state, state], [CALL, CALL])
    assert text_of(one) == text_of(two) == "2"
    (branch,) = engine.fork([one.state])
    assert text_of(engine.step([one.state], [CALL])[0]) == "3" and text_of(engine.step([branch], [CALL])[0]) == "3"
    assert tool.live == 3


def test_a_state_that_has_gone_on_is_refused_in_a_sentence():
    engine = engine_with(Counting())
    state = engine.step([engine.begin(SumTasks()[0])], [CALL])[0].state
    engine.step([state], [CALL])
    with pytest.raises(ConfigError, match=r"has gone on .* since this state"):
        engine.step([state], [CALL])
    with pytest.raises(ConfigError, match="has gone on"):
        engine.fork([state])


@pytest.mark.parametrize("how", ["twice", "fork", "rate"])
def test_branching_without_a_fork_is_refused_in_a_sentence(how):
    tool = Counting(forks=False)
    engine = engine_with(tool)
    first = engine.begin(SumTasks()[0])
    # Before the first call there is nothing to fork.
    assert [text_of(t) for t in engine.step([first, first], [CALL, CALL])] == ["1", "1"]
    state = engine.step([first], [CALL])[0].state
    with pytest.raises(ConfigError, match="The tool 'count' cannot fork its sessions"):
        {
            "twice": lambda: engine.step([state, state], [CALL, CALL]),
            "fork": lambda: engine.fork([state]),
            "rate": lambda: engine.rate([state], [CALL]),
        }[how]()
    assert text_of(engine.step([state], [CALL])[0]) == "2"


def test_rating_at_a_frozen_state_leaves_its_session_alone():
    tool = Counting()
    engine = engine_with(tool)
    state = engine.step([engine.begin(SumTasks()[0])], [CALL])[0].state
    rated = engine.rate([state] * 3, [CALL, CALL, ANSWER])
    assert [step.result and step.result.text for step in rated] == ["2", "2", None] and tool.live == 1
    assert text_of(engine.step([state], [CALL])[0]) == "2"


def test_a_state_of_a_stored_episode_is_refused_instead_of_answered_from_an_empty_session():
    engine = engine_with(Counting())
    state = engine.begin(SumTasks()[0])
    for action in (CALL, CALL, ANSWER):
        (moved,) = engine.step([state], [action])
        state = moved.state
    states = [sub.state for sub in subtrajectories(engine.trajectory(moved))]
    assert engine.rate(states[:1], [CALL])[0].result.text == "1"
    with pytest.raises(ConfigError, match="session is not open here"):
        engine.rate(states[1:2], [CALL])


def test_a_session_that_raises_is_unavailable_for_that_call_and_that_episode():
    engine = engine_with(Counting())
    states = [engine.begin(SumTasks()[i]) for i in range(3)]
    moved = engine.step(states, [CALL, Action("<count>raise</count>"), CALL])
    assert [t.step.result.error for t in moved] == [None, "unavailable", None]
    moved = engine.step([t.state for t in moved], [CALL] * 3)
    assert [text_of(t) for t in moved] == ["2"] * 3


class NoClose:
    def run(self, queries):
        return [ToolResult(query) for query in queries]


def test_a_session_that_cannot_be_opened_is_tried_again_with_the_next_call():
    class Late(Counting):
        def open(self, task, seed):
            if not self.opened:
                self.opened.append("failed")
                raise OSError("not yet")
            return super().open(task, seed)

    tool = Late()
    engine = engine_with(tool)
    (moved,) = engine.step([engine.begin(SumTasks()[0])], [CALL])
    assert moved.step.result.error == "unavailable"
    (moved,) = engine.step([moved.state], [CALL])
    assert text_of(moved) == "1" and tool.live == 1
    engine.abandon([moved.state])
    assert tool.live == 0


@pytest.mark.parametrize("session", [None, 5, "run", NoClose, NoClose(), lambda queries: []])
def test_what_is_no_session_is_unavailable_and_the_episode_goes_on(session, caplog):
    class Wrong(Counting):
        def open(self, task, seed):
            return session

    engine = engine_with(Wrong())
    state = engine.begin(SumTasks()[0])
    for _ in range(2):
        (moved,) = engine.step([state], [CALL])
        assert moved.step.result.error == "unavailable"
        state = moved.state
    assert engine.step([state], [ANSWER])[0].ended == "answered"
    assert "expected a session, an object with run and close" in caplog.text


@pytest.mark.parametrize("fork", [lambda self: 1 / 0, lambda self: None, lambda self: Counting])
def test_a_fork_that_fails_is_one_sentence_and_leaves_nothing_open(fork):
    tool = Counting()
    engine = engine_with(tool)
    state = engine.step([engine.begin(SumTasks()[0])], [CALL])[0].state
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Forkable, "fork", fork)
        with pytest.raises(PluginError, match=r"The episode cannot branch: forking its session of the tool '\w+' raised"):
            engine.fork([state])
    assert tool.live == 1 and text_of(engine.step([state], [CALL])[0]) == "2"


@pytest.mark.parametrize("mode", ["sync", "async", "vector_entry_point"])
def test_notes_never_leak_between_episodes(mode):
    venv = gym.make_vec(
        "swirl_env/ToolUse-v0", 2, vectorization_mode=mode, tasks=SumTasks(), tools=["notes"], judge=None, max_steps=3
    )
    venv.reset(seed=0)
    observations = venv.step(("<notes>alpha</notes>", "<notes></notes>"))[0]
    assert "1. alpha" in observations[0] and "no notes" in observations[1]
    venv.step(("<answer>1</answer>", "<notes>beta</notes>"))
    observations = venv.step(("<notes></notes>", "<answer>1</answer>"))[0]
    venv.reset(seed=1)
    observations = venv.step(("<notes></notes>", "<notes></notes>"))[0]
    assert all("no notes" in observation for observation in observations)
    venv.close()


def test_notes_have_limits():
    session = Notes(max_notes=2, max_chars=5).open(SumTasks()[0], 0)
    results = session.run(["a", "toolong", "b\nc", "d", ""])
    assert [r.error for r in results] == [None, "limit", None, "limit", None]
    assert results[-1].text == "1. a\n2. b c" and results[0].data == {"notes": ["a"]}


def test_states_with_sessions_can_be_sent_to_another_process():
    engine = engine_with(Counting())
    state = engine.step([engine.begin(SumTasks()[0])], [CALL])[0].state
    assert pickle.loads(pickle.dumps(state)) == state


class Shared(Counting):
    """One session for all episodes."""

    def open(self, task, seed):
        self.only = getattr(self, "only", None) or Forkable(self, 0)
        return self.only


class Aliased(Notes):
    """Gives its own list away."""

    def open(self, task, seed):
        session = super().open(task, seed)
        run = session.run
        session.run = lambda queries: [ToolResult(r.text, r.error, {"notes": session.notes}) for r in run(queries)]
        return session


class Tied(Counting):
    """Forks that are the session itself."""

    def open(self, task, seed):
        session = super().open(task, seed)
        session.fork = lambda: session
        return session


@pytest.mark.parametrize(
    ("tool", "rule"),
    [
        (Shared(), "sessions are isolated"),
        (Aliased(), "earlier results stay as they are"),
        (Tied(), "a fork goes its own way"),
        (object(), "has tag description and open"),
    ],
)
def test_the_contract_names_what_a_tool_with_state_breaks(tool, rule):
    if type(tool) is object:
        tool = type("Bare", (), {"open": lambda self, task, seed: object(), "tag": "t", "description": "d."})()
    assert rule in [finding.name for finding in check("tool", tool) if not finding.ok]


def test_a_tool_with_state_that_keeps_the_contract():
    assert all(finding.ok for finding in check(None, Counting())[:1])
    assert [f for f in check("tool", "notes") if not f.ok] == []
