"""Gymnasium environments with texts as tasks: where episodes end, what they count as, whose rewards they have, who refuses."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Discrete, Text

from swirl_env import make_judge, make_tasks
from swirl_env.algos import credit
from swirl_env.contract import assert_contract
from swirl_env.env import build_engine
from swirl_env.episodes.rollout import continue_episodes
from swirl_env.episodes.transcript import subtrajectories
from swirl_env.errors import ConfigError, PluginError
from swirl_env.rollout import collect
from swirl_env.store import Store
from swirl_env.types import Action, Task

ASCII = frozenset(map(chr, range(32, 127)))


class Count(gym.Env):
    """Wants 1, 2, 3...; each right number is worth 0.5, the third ends it; five actions cut it off."""

    observation_space, action_space = Text(100, charset=ASCII), Text(3, charset=frozenset("0123456789"))
    open = 0
    noise = False

    def __init__(self):
        Count.open += 1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.start, self.right, self.taken = int(self.np_random.integers(10)), 0, 0
        return f"Go on after {self.start}.", {}

    def step(self, action):
        good = int(action) == self.start + self.right + 1
        self.right, self.taken = self.right + good, self.taken + 1
        shown = "yes" if good else "no"
        shown += str(np.random.random()) if self.noise else ""
        return shown, 0.5 * good, self.right == 3, self.taken == 5, {}

    def close(self):
        Count.open -= 1


class Noisy(Count):
    noise = True


class Raises(Count):
    def step(self, action):
        raise RuntimeError("engine fault")


@pytest.fixture(autouse=True)
def registered():
    gym.register("Count-v0", Count, reward_threshold=1.5, disable_env_checker=True, order_enforce=False)
    Count.open = 0
    yield
    del gym.registry["Count-v0"]


def right(state):
    start = int(state.task.question.rstrip(".").split()[-1])
    return f"Next.\n<act>{start + 1 + len(state.steps)}</act>"


def wrong(state):
    return "<act>999</act>"


def engine_of(env="Count-v0", judge="env_reward", **options):
    return build_engine({"name": "gym", "env": env, "size": 20, **options}, judge=judge, prompt="environment")


def test_an_episode_ends_with_its_environment_and_has_its_rewards(tmp_path):
    trajectories = list(collect(right, engine_of(), 20))
    for trajectory in trajectories:
        assert [step.verdict.reward for step in trajectory.steps] == [0.5, 0.5, 0.5]
        assert (trajectory.ended, trajectory.outcome.correct, trajectory.outcome.answer) == ("answered", True, None)
        assert trajectory.steps[-1].result.data == {"reward": 0.5, "terminated": True, "truncated": False}
    assert len({trajectory.task.question for trajectory in trajectories}) > 3 and Count.open == 0
    with Store(tmp_path / "run") as store:
        for trajectory in trajectories:
            store.append(trajectory)
    assert [t.outcome for t in Store(tmp_path / "run")] == [t.outcome for t in trajectories]


@pytest.mark.parametrize(
    ("policy", "max_steps", "ended", "solved"),
    [
        (wrong, 20, "answered", False),  # cut off by the environment
        (right, 2, "budget", False),  # out of steps here
        (lambda state: "<answer>I give up</answer>", 20, "answered", False),
        (lambda state: "nothing", 3, "budget", False),
        (right, 3, "answered", True),  # the last action of the budget ends it
    ],
)
def test_an_episode_that_was_not_solved_counts_as_such(policy, max_steps, ended, solved):
    (trajectory,) = collect(policy, engine_of(max_steps=max_steps), 1)
    assert (trajectory.ended, trajectory.outcome.correct) == (ended, solved) and Count.open == 0


@pytest.mark.parametrize(("solved_at", "correct"), [(1.0, True), (1.5, True), (2.0, False)])
def test_the_return_from_which_on_it_is_solved_is_an_option(solved_at, correct):
    (trajectory,) = collect(right, engine_of(solved_at=solved_at), 1)
    assert trajectory.outcome.correct is correct


def test_without_a_threshold_there_is_no_outcome_but_step_rewards():
    for policy in (right, lambda state: "<answer>x</answer>"):
        (trajectory,) = collect(policy, engine_of(env=Count), 1)
        assert trajectory.outcome.correct is None
    (trajectory,) = collect(right, engine_of(env=Count), 1)
    assert [step.verdict.reward for step in trajectory.steps] == [0.5] * 3


@pytest.mark.parametrize("judge", ["outcome", "env_reward", "rules"])
def test_judging_again_gives_what_the_episode_was_judged_with(judge):
    for policy in (right, wrong):
        (trajectory,) = collect(policy, engine_of(judge=judge), 1)
        again = make_judge(judge).judge(list(subtrajectories(trajectory)))
        assert again == [step.verdict for step in trajectory.steps]
    if judge == "outcome":
        assert [verdict.reward for verdict in again] == [0.0] * 5
        assert [step.verdict.reward for step in next(collect(right, engine_of(judge=judge), 1)).steps] == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("text", ["no call", "<act>one</act>", "<act>12345</act>", "<act></act>", "<go>1</go>"])
def test_what_is_no_action_never_reaches_the_environment_and_is_no_zero(text):
    (trajectory,) = collect(lambda state: text if not state.steps else right_after_one(state), engine_of(), 1)
    assert trajectory.steps[0].verdict.status == "unscored" and trajectory.outcome.correct
    punished = engine_of(judge={"name": "env_reward", "malformed": -1})
    (trajectory,) = collect(lambda state: text, punished, 1)
    assert {step.verdict.reward for step in trajectory.steps} == {-1.0}


def right_after_one(state):
    start = int(state.task.question.rstrip(".").split()[-1])
    return f"<act>{start + len(state.steps)}</act>"


def test_an_environment_that_raises_is_an_unavailable_tool_and_no_zero():
    (trajectory,) = collect(right, engine_of(env=Raises, max_steps=2), 1)
    assert {step.result.error for step in trajectory.steps} == {"unavailable"}
    assert {step.verdict.status for step in trajectory.steps} == {"failed"} and Count.open == 0


def test_a_vector_and_a_single_environment_play_it():
    env = gym.make("swirl_env/ToolUse-v0", tasks={"name": "gym", "env": "Count-v0"}, judge="env_reward", prompt="environment")
    env.reset(seed=3)
    rewards, over = [], False
    while not over:
        _, reward, terminated, truncated, info = env.step(right(env.unwrapped.state))
        rewards.append(reward)
        over = terminated or truncated
    assert rewards == [0.5] * 3 and terminated and info["outcome"].correct
    env.close()
    assert Count.open == 0


def test_episodes_branch_if_the_environment_repeats_itself():
    engine = engine_of()
    state = engine.begin(engine.tasks[0], 1)
    (moved,) = engine.step([state], [Action(right(state))])
    ends = list(continue_episodes(right, engine, [moved.state] * 3))
    assert [[step.verdict.reward for step in end.steps] for end in ends] == [[0.5] * 3] * 3
    assert [len(end.steps) for end in continue_episodes(wrong, engine, [moved.state])] == [5]
    engine.abandon([moved.state])
    assert Count.open == 0


def test_an_environment_with_randomness_of_its_own_refuses_to_branch():
    engine = engine_of(env=Noisy)
    state = engine.begin(engine.tasks[0], 1)
    (moved,) = engine.step([state], [Action(right(state))])
    with pytest.raises(PluginError, match="seed of reset"):
        engine.fork([moved.state])
    engine.abandon([moved.state])
    assert Count.open == 0


def test_credit_rules_read_its_episodes():
    policies = (right, wrong)
    trajectories = [next(iter(collect(policy, engine_of(), 1))) for policy in policies]
    rewards = np.array([step.verdict.reward for t in trajectories for step in t.steps])
    episode = np.repeat([0, 1], [3, 5])
    position = np.concatenate([np.arange(3), np.arange(5)])
    returns = credit.return_to_go(rewards, np.ones(8, bool), episode, position)
    assert returns.tolist() == [1.5, 1.0, 0.5, 0, 0, 0, 0, 0]


def test_it_keeps_the_contract_of_task_sources_and_tells_splits_apart():
    assert_contract("task", "gym", env="Count-v0", size=30)
    assert_contract("tool", "act")
    assert_contract("judge", "env_reward")
    train, test = (make_tasks("gym", env="Count-v0", split=split, size=50) for split in ("train", "test"))
    assert not {t.meta["seed"] for t in map(train.__getitem__, range(50))} & {test[i].meta["seed"] for i in range(50)}


def test_a_task_that_names_an_environment_nobody_made_runs_nothing():
    hostile = Task("t", "Go on after 1.", meta={"environment": "os:system", "seed": 0})
    (trajectory,) = collect(right, build_engine([hostile], tools=["act"], judge="env_reward", max_steps=1), 1)
    assert trajectory.steps[0].result.error == "unavailable" and trajectory.steps[0].verdict.status == "failed"


class Numbers(Count):
    action_space = Discrete(3)


class Pixels(Count):
    observation_space = Discrete(3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"env": "Nothing-v0"}, "could not be made: NameNotFound"),
        ({"env": "no_such_package:Nothing-v0"}, "could not be made: ModuleNotFoundError"),
        ({"env": Numbers}, "action_space is Discrete"),
        ({"env": Pixels}, "observation_space is Discrete"),
        ({"env": Count, "options": {"size": 3}}, "a function has its own"),
        ({"env": "Count-v0", "seed": 0.5}, "seed is a whole number"),
        ({"env": "Count-v0", "split": "dev"}, "splits"),
    ],
)
def test_what_cannot_be_played_is_refused_with_the_reason(options, message):
    with pytest.raises(ConfigError, match=message):
        make_tasks("gym", **options)


@pytest.mark.parametrize("option", [{"scale": float("nan")}, {"malformed": "x"}, {"scale": True}])
def test_rewards_that_are_no_numbers_are_refused(option):
    with pytest.raises(ConfigError, match="finite number"):
        make_judge("env_reward", **option)
