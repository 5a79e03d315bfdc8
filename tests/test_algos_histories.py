"""Which steps count as taken in the same state."""

from swirl_env.algos.histories import history_keys, state_keys
from swirl_env.types import Action, Outcome, Settings, Step, Task, ToolCall, Trajectory

SETTINGS = Settings(("search_query",), 5)


def episode(*moves, prompt="Who?", ended="budget"):
    steps = tuple(Step(Action(text), ToolCall("search_query", text, 0, len(text)), None, seen) for text, seen in moves)
    return Trajectory(Task("t", "Who?", "x"), SETTINGS, prompt, steps, ended, Outcome())


EPISODES = [
    episode(("a", "A"), ("b", "B"), ("c", "C")),
    episode(("z", "A"), ("b", "B"), ("d", "D")),
    episode(("lost", "A"), ended="error"),
    episode(("a", "A"), ("x", "A"), ("y", "A")),
]


def same(keys, *pairs):
    return [bool(keys[i] == keys[j]) for i, j in pairs]


def test_equal_observations_have_equal_numbers_at_every_length():
    now, one, two = history_keys(EPISODES, 2)
    assert [len(keys) for keys in (now, one, two)] == [9, 9, 9]  # the episode that ended in an error has no steps here
    # steps 0, 3, 6: the prompt; 1, 4, 7, 8: saw A last; 2, 5: saw B
    assert same(now, (0, 3), (0, 6), (1, 4), (1, 7), (7, 8), (2, 5), (0, 1), (1, 2)) == [True] * 6 + [False] * 2
    assert one[[0, 3, 6]].tolist() == [-1] * 3 and two[[0, 1, 3, 4, 6, 7]].tolist() == [-1] * 6
    assert same(one, (1, 4), (1, 7), (2, 5), (7, 8)) == [True, True, True, False]
    assert same(two, (2, 5), (2, 8)) == [True, False]


def test_whole_states_hold_the_actions_too():
    keys = state_keys(EPISODES)
    assert same(keys, (0, 3), (0, 6), (1, 4), (1, 7), (2, 5)) == [True, True, False, True, False]
    other = state_keys([*EPISODES, episode(("a", "A"), prompt="Where?")])
    assert other[-1] not in other[:-1]


def test_text_after_a_call_is_no_part_of_a_state():
    step = Step(Action("call and more"), ToolCall("search_query", "q", 0, 4), None, "A")
    long, short = (
        Trajectory(Task("t", "?"), SETTINGS, "?", (one, one), "budget", Outcome())
        for one in (step, Step(Action("call"), ToolCall("search_query", "q", 0, 4), None, "A"))
    )
    keys = state_keys([long, short])
    assert same(keys, (1, 3)) == [True]


def test_no_episodes_have_no_states():
    assert state_keys([]).tolist() == [] and [k.tolist() for k in history_keys([], 1)] == [[], []]
