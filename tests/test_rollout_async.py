"""Rollouts of agents that are asked one state at a time: the same episodes, no waiting for the slowest, nothing left behind."""

import asyncio
import threading

import pytest

from fakes import CallJudge, EchoAgent, EchoTool, SumTasks
from swirl_env.env import build_engine
from swirl_env.errors import ConfigError, PluginError
from swirl_env.rollout import collect
from swirl_env.types import Action


class OneByOne(EchoAgent):
    """EchoAgent, asked for one action at a time."""

    def __init__(self):
        self.in_flight = self.most_in_flight = self.closed = 0

    async def act_one(self, state):
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self.wait(state)
            return self._one(state)
        finally:
            self.in_flight -= 1

    async def wait(self, state):
        await asyncio.sleep(0)

    async def aclose(self):
        self.closed += 1


def engine(n=20):
    return build_engine(SumTasks(n), tools=[EchoTool()], judge=CallJudge())


def by_key(trajectories):
    return {trajectory.key: trajectory for trajectory in trajectories}


@pytest.mark.parametrize("slots", [1, 3, 64])
def test_the_episodes_are_those_of_an_agent_asked_in_batches(slots):
    agent = OneByOne()
    asked_singly = by_key(collect(agent, engine(), 40, slots, 3, samples=2))
    assert asked_singly == by_key(collect(EchoAgent(), engine(), 40, 8, 3, samples=2))
    assert agent.most_in_flight <= slots and agent.closed == 1


def test_one_slow_reply_holds_up_no_other_episode():
    class SlowOnce(OneByOne):
        async def wait(self, state):
            if state.task.id == "sum-0" and not state.steps:
                while not self.others_ended:
                    await asyncio.sleep(0.001)

    agent = SlowOnce()
    agent.others_ended = False
    order = []
    for trajectory in collect(agent, engine(), 20, 4):
        order.append(trajectory.task.id)
        agent.others_ended = len(order) == 19
    assert order[-1] == "sum-0" and len(set(order)) == 20


def test_a_failure_ends_its_own_episode_alone():
    class Flaky(OneByOne):
        async def wait(self, state):
            if state.task.id in ("sum-3", "sum-7"):
                raise ConnectionError("away")

    trajectories = by_key(collect(Flaky(), engine(), 20, 4))
    assert [key[0] for key, t in trajectories.items() if t.ended == "error"] in (["sum-3", "sum-7"], ["sum-7", "sum-3"])
    assert len(trajectories) == 20


@pytest.mark.parametrize(("reply", "error"), [(None, PluginError), ("text", PluginError)])
def test_something_other_than_an_action_is_one_sentence(reply, error):
    class Wrong(OneByOne):
        async def act_one(self, state):
            return reply

    with pytest.raises(error, match=r"act_one gave .*; expected an Action"):
        list(collect(Wrong(), engine(), 4, 2))


def test_an_error_about_the_options_stops_the_rollout_and_closes_the_agent():
    class Refused(OneByOne):
        async def wait(self, state):
            raise ConfigError("the key is refused")

    agent = Refused()
    with pytest.raises(ConfigError, match="the key is refused"):
        list(collect(agent, engine(), 20, 4))
    assert agent.closed == 1


def test_a_rollout_that_is_given_up_leaves_no_thread_and_no_call():
    class Endless(OneByOne):
        async def wait(self, state):
            if state.task.id != "sum-1":
                await asyncio.sleep(3600)

    threads = threading.active_count()
    agent = Endless()
    episodes = collect(agent, engine(), 20, 4)
    assert next(episodes).task.id == "sum-1"
    episodes.close()
    assert threading.active_count() == threads and agent.in_flight == 0 and agent.closed == 1


def test_actions_reach_the_episode_as_they_were_returned():
    class Ids(OneByOne):
        async def act_one(self, state):
            return Action("<answer>3</answer>", token_ids=(5, 6), logprobs=(-0.5, -0.25), prompt_ids=(1,))

    (trajectory,) = collect(Ids(), engine(), 1, 1)
    assert trajectory.steps[0].action.token_ids == (5, 6)
