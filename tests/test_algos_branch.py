"""Branches: fresh episodes from stored states, paid for, reseeded, with the sessions of tools forked or refused."""

import math
import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("transformers", reason="the policy is a tiny Llama")

import msgspec  # noqa: E402
from test_algos_run import COLOURS, ColourJudge, ColourTasks, EchoTool, untrained  # noqa: E402
from test_env_sessions import Counting  # noqa: E402

from swirl_env.algos.batch import TokenStep  # noqa: E402
from swirl_env.algos.run import Limits, Run  # noqa: E402
from swirl_env.algos.sampling import check_branching  # noqa: E402
from swirl_env.algos.train_config import TrainConfig  # noqa: E402
from swirl_env.algos.trainer import Trainer  # noqa: E402
from swirl_env.contract import assert_contract  # noqa: E402
from swirl_env.env import build_engine  # noqa: E402
from swirl_env.episodes.rollout import continue_episodes  # noqa: E402
from swirl_env.episodes.transcript import subtrajectories  # noqa: E402
from swirl_env.errors import ConfigError  # noqa: E402
from swirl_env.store import Store  # noqa: E402
from swirl_env.types import Action  # noqa: E402


def started(folder, tools=None, judge=None, seed=3, max_steps=4):
    torch.manual_seed(0)
    model, agent = untrained()
    engine = build_engine(
        ColourTasks(), tools=tools or [EchoTool()], judge=judge or ColourJudge(), prompt="question", max_steps=max_steps
    )
    return Run(agent, engine, Trainer(model, TrainConfig(lr=1e-2)), folder, Limits(updates=9), slots=3, seed=seed)


def states_of(run):
    return [sub.state for t in run.rollouts(4) for sub in subtrajectories(t)]


def test_branches_begin_with_the_steps_of_their_state_and_are_paid_for(tmp_path):
    run = started(tmp_path)
    states = states_of(run)
    before = dict(tokens=run.spent.sampled_tokens, calls=run.spent.judge_calls, episodes=run.spent.episodes)
    assert {len(state.steps) for state in states} >= {0, 1, 2}
    groups = run.branch(states, 3)
    fresh = [step for state, group in zip(states, groups, strict=True) for t in group for step in t.steps[len(state.steps) :]]
    for state, group in zip(states, groups, strict=True):
        assert [t.sample for t in group] == [0, 1, 2]
        for t in group:
            assert t.task == state.task and t.steps[: len(state.steps)] == state.steps and len(t.steps) > len(state.steps)
            assert t.ended in ("answered", "budget") and len(t.steps) <= 4
    assert all(step.verdict.status == "scored" for step in fresh)
    assert run.spent.sampled_tokens - before["tokens"] == sum(len(step.action.token_ids) for step in fresh) > 0
    assert run.spent.judge_calls - before["calls"] == len(fresh)
    assert run.spent.episodes - before["episodes"] == 3 * len(states)
    assert run.branch([], 3) == []
    run._kept.close()
    assert {t.key[0] for t in Store(tmp_path / "rollouts", "r")} == {f"colour-{i}" for i in range(4)}
    assert len(Store(tmp_path / "rollouts", "r")) == 4  # what a run keeps is its rollouts: branches share their beginnings


def test_branches_are_independent_of_the_episode_of_one_another_and_of_earlier_calls(tmp_path):
    run = started(tmp_path / "a")
    states = states_of(run)
    first, second = run.branch(states, 4), run.branch(states, 4)
    seeds = [t.seed for groups in (first, second) for group in groups for t in group]
    assert len(set(seeds)) == len(seeds) and not set(seeds) & {state.seed for state in states}
    texts = [
        [[s.action.text for s in t.steps[len(state.steps) :]] for t in group] for state, group in zip(states, first, strict=True)
    ]
    assert all(len({str(text) for text in group}) > 1 for group in texts)
    # The same run draws the same branches again: a resumed run does.
    again = started(tmp_path / "b")
    assert [[t.seed for t in g] for g in again.branch(states_of(again), 4)] == [[t.seed for t in g] for g in first]


def test_one_state_twice_gets_other_branches(tmp_path):
    run = started(tmp_path)
    state = states_of(run)[0]
    one, two = run.branch([state, state], 4)
    assert not {t.seed for t in one} & {t.seed for t in two}


def test_branches_without_a_judge_cost_no_judge_calls(tmp_path):
    run = started(tmp_path)
    states = states_of(run)
    calls = run.spent.judge_calls
    groups = run.branch(states, 2, judge=False)
    assert run.spent.judge_calls == calls and run.engine.judge is not None
    assert all(
        s.verdict.status == "unscored" for st, g in zip(states, groups, strict=True) for t in g for s in t.steps[len(st.steps) :]
    )
    # What is known of an episode is the grade of its answer.
    assert {t.outcome.correct for g in groups for t in g} <= {True, False}


def test_monte_carlo_values_of_branches_agree_with_enumeration(tmp_path):
    """At the last step of an episode success is the probability of one action, which the policy's own logits give."""
    run = started(tmp_path, max_steps=1)
    run.agent.max_new_tokens = 3
    state = states_of(run)[0]
    prompt, answer = (run.agent.renderer.ids(state), run.agent.renderer.text_ids(f"<answer> {state.task.answer} </answer>"))
    for _ in range(12):  # a success that happens now and then
        run.trainer.update([TokenStep(prompt, answer)], [1.0], [True])
    exact = math.exp(sum(run.trainer.logprobs([TokenStep(prompt, answer)])[0]))
    assert 0.05 < exact < 0.95
    (group,) = run.branch([state], 500)
    value = sum(bool(t.outcome.correct) for t in group) / len(group)
    assert value == pytest.approx(exact, abs=4 * (exact * (1 - exact) / len(group)) ** 0.5)


@pytest.mark.parametrize("kind", ["over", "answered", "other tools", "other format"])
def test_states_at_which_no_episode_goes_on_are_refused(kind, tmp_path):
    run = started(tmp_path)
    state = run.engine.begin(ColourTasks()[0])
    if kind == "over":
        for _ in range(3):
            state = run.engine.step([state], [Action("red")])[0].state
        state = run.engine.step([state], [Action("red")])[0].state
    elif kind == "answered":
        state = run.engine.step([state], [Action("<answer> red </answer>")])[0].state
    else:
        change = {"tools": ("search_query",)} if kind == "other tools" else {"format": "hermes"}
        state = msgspec.structs.replace(state, settings=msgspec.structs.replace(state.settings, **change))
    with pytest.raises(ConfigError, match="is over in this state" if kind in ("over", "answered") else "offers the tools"):
        run.branch([state], 2)


# Tools with state.


def counted(run, calls):
    """A live state of an episode that has called the tool with state."""
    state = run.engine.begin(ColourTasks()[0], seed=5)
    for _ in range(calls):
        state = run.engine.step([state], [Action("<count> red </count>")])[0].state
    return state


class Caller:
    """Counts twice, then answers."""

    def act(self, states):
        return [Action("<count> x </count>" if len(s.steps) < 3 else "<answer> red </answer>") for s in states]


def test_sessions_fork_with_the_branches_and_none_is_left_open(tmp_path):
    tool = Counting()
    run = started(tmp_path, tools=[tool], max_steps=5)
    state = counted(run, 1)
    episodes = list(continue_episodes(Caller(), run.engine, [state] * 3, slots=2))
    assert [[s.result.text for s in t.steps[:3]] for t in episodes] == [["1", "2", "3"]] * 3
    assert tool.live == 1  # the state's own session, as it was
    (moved,) = run.engine.step([state], [Action("<count> x </count>")])
    assert moved.step.result.text == "2"
    run.engine.abandon([moved.state])
    assert tool.live == 0


def test_branches_of_a_run_fork_sessions_too(tmp_path):
    tool = Counting()
    run = started(tmp_path, tools=[tool], max_steps=5)
    state = counted(run, 2)
    (group,) = run.branch([state], 4)
    assert len(group) == 4 and tool.live == 1


@pytest.mark.parametrize("kind", ["cannot fork", "closed", "stored"])
def test_sessions_that_cannot_be_branched_are_refused_before_anything_is_sampled(kind, tmp_path):
    tool = Counting(forks=kind != "cannot fork")
    run = started(tmp_path, tools=[tool], max_steps=5)
    state = counted(run, 1)
    if kind == "closed":
        run.engine.abandon([state])
    elif kind == "stored":
        run.engine.abandon([state])
        state = msgspec.structs.replace(state, sessions=0)
    with pytest.raises(ConfigError, match="cannot fork its sessions" if kind == "cannot fork" else "session"):
        run.branch([run.engine.begin(ColourTasks()[1]), run.engine.begin(ColourTasks()[2]), state], 2)
    assert run.spent.sampled_tokens == 0
    assert tool.live == (1 if kind == "cannot fork" else 0)
    # Before the first call there is no session, so any tool will do.
    assert len(run.branch([run.engine.begin(ColourTasks()[0])], 2)[0]) == 2


def test_the_algorithm_of_the_guide_trains_on_the_values_of_branches(tmp_path):
    page = (Path(__file__).parent.parent / "docs" / "algorithms.md").read_text()
    names: dict = {}
    exec(next(code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "BranchValues" in code), names)
    run = started(tmp_path)
    run.agent.max_new_tokens = 3
    teach(run, [f"<answer> {colour} </answer>" for colour in COLOURS])
    run.limits = Limits(updates=2)
    names["BranchValues"](questions=4, samples=3).train(run)
    assert run.spent.updates == 2 and run.spent.optimizer_steps >= 1
    assert_contract("algo", names["BranchValues"]())


def teach(run, texts):
    """Makes answers that are right now and then likelier, so that branches differ in their outcomes."""
    renderer = run.agent.renderer
    prompts = [renderer.ids(run.engine.begin(ColourTasks()[i])) for i in range(3)]
    steps = [TokenStep(p, renderer.text_ids(text), (), i) for i, (p, text) in enumerate((p, t) for p in prompts for t in texts)]
    for _ in range(10):
        run.trainer.update(steps, [1.0] * len(steps), [True] * len(steps))


def test_open_sessions_are_refused_in_several_processes_since_they_live_in_one(tmp_path):
    tool = Counting()
    run = started(tmp_path, tools=[tool], max_steps=5)
    state = counted(run, 1)
    run.processes.world = 2
    with pytest.raises(ConfigError, match="live in one process only"):
        check_branching(run.engine, [run.engine.begin(ColourTasks()[1]), state], run.processes)
    check_branching(run.engine, [run.engine.begin(ColourTasks()[1])], run.processes)
    run.engine.abandon([state])
