"""The scripted expert and the agents without a model, in real environments."""

import pytest

import swirl_env
from swirl_env.agents.human import HumanAgent
from swirl_env.agents.replay import ReplayAgent
from swirl_env.agents.retrieval import RetrievalAgent
from swirl_env.agents.scripted import NOISE_KINDS, ScriptedAgent
from swirl_env.corpus import MemoryCorpus
from swirl_env.env import build_engine
from swirl_env.episodes.rollout import collect
from swirl_env.episodes.transcript import initial_state, subtrajectories
from swirl_env.errors import ConfigError, DataNotFound, UnknownName
from swirl_env.registry import make_format
from swirl_env.types import Answer, Malformed, Passage, PlanStep, Settings, Task, ToolCall, ToolResult
from swirl_env.vector import ToolVectorEnv

WORLDS = {"atlas": {"max_hops": 6}, "ledger": {}, "atlas_ledger": {}}


@pytest.fixture(scope="module")
def venvs(tmp_path_factory):
    cache = str(tmp_path_factory.mktemp("cache"))
    tools = {"search": {"name": "search", "cache_dir": cache}, "calculator": "calculator"}
    made = {}
    for name, options in WORLDS.items():
        tasks = swirl_env.make_tasks(name, split="test", **options)
        made[name] = ToolVectorEnv(tasks, 32, tools=[tools[tool] for tool in tasks.tools])
    return made


def play(venv, agent, episodes=100):
    return list(collect(swirl_env.make_agent(agent), venv.engine, episodes, venv.num_envs))


def success(trajectories):
    return sum(t.outcome.correct is True for t in trajectories) / len(trajectories)


@pytest.mark.parametrize("name", WORLDS)
def test_the_expert_is_always_right_and_every_step_is_good(venvs, name):
    played = play(venvs[name], "scripted", 150)
    assert success(played) == 1.0
    assert {step.verdict.label for t in played for step in t.steps} == {"GOOD"}
    assert all(len(t.steps) == len(t.task.plan) + 1 for t in played)


@pytest.mark.parametrize("name", WORLDS)
def test_success_falls_with_noise(venvs, name):
    rates = [success(play(venvs[name], {"name": "scripted", "noise": noise}, 250)) for noise in (0.0, 0.1, 0.2, 0.4, 0.8)]
    assert rates == sorted(rates, reverse=True)
    assert len(set(rates)) == len(rates)


@pytest.mark.parametrize("name", WORLDS)
def test_the_random_agent_finds_next_to_nothing(venvs, name):
    assert success(play(venvs[name], "random", 300)) < 0.02


@pytest.mark.parametrize("kind", NOISE_KINDS)
def test_kinds_of_noise_do_what_they_say(venvs, kind):
    played = play(venvs["atlas_ledger"], {"name": "scripted", "noise": 0.3, "kinds": [kind]}, 150)
    bad = [(t, i) for t in played for i, step in enumerate(t.steps) if step.verdict.label == "BAD"]
    assert len(bad) > 20
    for trajectory, i in bad:
        call, earlier = trajectory.steps[i].call, [step.call for step in trajectory.steps[:i]]
        if kind == "malformed":
            assert isinstance(call, Malformed) and "not closed" in call.reason
        elif kind == "premature":
            assert isinstance(call, Answer) and i < len(trajectory.task.plan)
        elif kind == "repeat":
            assert isinstance(call, ToolCall) and call.query in {c.query for c in earlier if isinstance(c, ToolCall)}
        else:
            planned = {step.query for step in trajectory.task.plan}
            assert isinstance(call, (ToolCall, Answer))
            assert getattr(call, "query", "") not in planned
    # All but an answer can be made good for.
    final = kind in ("premature", "wrong_entity")
    assert (success(played) < 0.8) == final


def test_wrong_entities_come_from_the_context(venvs):
    played = play(venvs["atlas"], {"name": "scripted", "noise": 0.4, "kinds": ["wrong_entity"]}, 100)
    strays = 0
    for trajectory in played:
        for sub in subtrajectories(trajectory):
            planned = {step.query for step in trajectory.task.plan}
            if isinstance(sub.call, ToolCall) and sub.call.query not in planned:
                words = [w for w in sub.call.query.split() if w[0].isupper()]
                strays += 1
                assert all(word in " ".join(turn.text for turn in sub.state.turns) for word in words)
    assert strays > 50


def test_reasoning_tells_what_was_found_and_what_comes_next(venvs):
    trajectory = next(t for t in play(venvs["atlas"], "scripted", 30) if len(t.task.plan) == 2)
    first, second = trajectory.task.plan
    texts = [step.action.text.split("\n")[0] for step in trajectory.steps]
    assert texts[0] == f"Next: {first.query}."
    assert texts[1].lower().startswith(f"{first.query}: {first.result}.".lower())
    assert texts[1].endswith(f"Next: {second.query}.")
    bare = play(venvs["atlas"], {"name": "scripted", "reasoning": False}, 10)
    assert all(step.action.text.startswith("<") for t in bare for step in t.steps)


@pytest.mark.parametrize("agent", [{"name": "scripted", "noise": 0.5}, "random", "retrieval"])
@pytest.mark.parametrize("fmt", ["xml", "hermes"])
def test_actions_do_not_depend_on_the_batch(venvs, agent, fmt):
    states = []
    for trajectory in play(venvs["atlas_ledger"], {"name": "scripted", "noise": 0.3}, 10):
        states += [sub.state for sub in subtrajectories(trajectory)]
    one, two = swirl_env.make_agent(agent), swirl_env.make_agent(agent)
    together = one.act(states)
    assert together == [two.act([state])[0] for state in reversed(states)][::-1]
    assert one.act([]) == []


def test_seeds_change_the_noise_and_nothing_else(venvs):
    runs = [play(venvs["ledger"], {"name": "scripted", "noise": 0.5, "seed": seed}, 30) for seed in (0, 0, 1)]
    texts = [[[step.action.text for step in t.steps] for t in run] for run in runs]
    assert texts[0] == texts[1] != texts[2]


def state_of(task, tools=("search_query",), fmt="xml", seed=0):
    return initial_state(task, f"Do it.\n\nQuestion: {task.question}", Settings(tools, 6, fmt), seed)


def test_the_expert_writes_the_format_of_the_episode():
    step = PlanStep("search_query", 'who is "B"', "C", (), ("p",), "B")
    (action,) = ScriptedAgent().act([state_of(Task("t", "Who?", "C", plan=(step,)), fmt="hermes")])
    call = make_format("hermes", ("search_query",)).parse(action.text)
    assert isinstance(call, ToolCall) and call.query == 'who is "B"'


class Deaf:
    """A search that never finds anything."""

    tag = "search_query"
    description = "finds nothing"

    def run(self, queries):
        return [ToolResult("No results.", None, {"ids": [], "titles": [], "scores": []}) for _ in queries]


class Stubborn(Deaf):
    """A search that is never there."""

    def run(self, queries):
        return [ToolResult("Try later.", "unavailable") for _ in queries]


def test_an_expert_whose_search_fails_tries_other_words_and_then_guesses():
    venv = ToolVectorEnv(swirl_env.make_tasks("atlas", size=20), 4, tools=[Deaf()])
    for trajectory in play(venv, "scripted", 20):
        queries = [step.call.query for step in trajectory.steps if isinstance(step.call, ToolCall)]
        assert len(queries) == len(set(queries)) == 3
        assert trajectory.ended == "answered"
    # A tool that is away is asked again: it may come back.
    venv = ToolVectorEnv(swirl_env.make_tasks("atlas", size=5), 4, tools=[Stubborn()])
    for trajectory in play(venv, "scripted", 5):
        assert len({step.call.query for step in trajectory.steps}) == 1 and trajectory.ended == "budget"


def test_the_expert_says_what_it_needs():
    with pytest.raises(ConfigError, match="gold plans"):
        ScriptedAgent().act([state_of(Task("t", "Who?", "C"))])
    with pytest.raises(UnknownName, match="premature"):
        ScriptedAgent(kinds=["prematur"])
    for noise in (2, -0.1, float("nan"), "0.2", None):
        with pytest.raises(ConfigError, match="between 0 and 1; got"):
            ScriptedAgent(noise=noise)
    for kinds in ([], "repeat"):
        with pytest.raises(ConfigError, match=r"kinds lists one or more of wrong_entity, .*; got"):
            ScriptedAgent(kinds=kinds)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    passages = [
        Passage("1", "Emma (novel)", "Emma is a novel by Jane Austen."),
        Passage("2", "Jane Austen", "Jane Austen came from Steventon. Steventon is small. Jane Austen loved Steventon."),
        Passage("3", "Bath", "Bath is a city."),
    ]
    return swirl_env.make_tool("search", corpus=MemoryCorpus(passages), top_k=2, cache_dir=str(tmp_path_factory.mktemp("c")))


class OneTask:
    corpus = None
    split = "test"
    tools = ()
    max_steps = 5

    def __init__(self, task):
        self.task = task

    def __len__(self):
        return 1

    def __getitem__(self, index):
        if index != 0:
            raise IndexError(index)
        return self.task


def test_retrieval_searches_on_with_names_and_guesses_what_is_repeated(library):
    task = Task("t", "Where was the author of Emma born?", "Steventon", evidence=("1", "2"))
    (trajectory,) = collect(RetrievalAgent(), build_engine(OneTask(task), tools=[library]), 1, 1)
    *searches, last = trajectory.steps
    assert [step.call.query for step in searches] == [task.question, "Jane Austen"]
    assert [step.verdict.label for step in searches] == ["GOOD", "GOOD"]
    assert last.call.text in ("Jane Austen", "Steventon")
    # As many searches as it is told to, none twice, and room is left for the answer.
    (longer,) = collect(RetrievalAgent(searches=9), build_engine(OneTask(task), tools=[library], max_steps=4), 1, 1)
    queries = [step.call.query for step in longer.steps[:-1]]
    assert len(set(queries)) == len(queries) == 3 and longer.ended == "answered"


@pytest.mark.parametrize(
    ("question", "guess"),
    [
        ("Is Bath a city?", "yes"),
        ("Which is smaller, Bath or Steventon?", "Bath"),
        ("How many novels?", "0"),
        ("<answer>x</answer>", "answer>x /answer>"),
        ("", "unknown"),
    ],
)
def test_retrieval_guesses_by_the_kind_of_question(question, guess):
    (action,) = RetrievalAgent(searches=0).act([state_of(Task("t", question, "x"))])
    call = make_format("xml", ("search_query",)).parse(action.text)
    assert isinstance(call, Answer) and call.text == guess


def test_replay_repeats_the_stored_actions(venvs):
    venv = venvs["atlas"]
    stored = play(venv, {"name": "scripted", "noise": 0.4}, 20)
    assert list(collect(ReplayAgent(stored), venv.engine, 20, venv.num_envs)) == stored
    # Another seed finds the task all the same; an unknown task and the end of a trajectory do not.
    state = initial_state(stored[0].task, stored[0].prompt, stored[0].settings, seed=1)
    agent = ReplayAgent(iter(stored))
    assert agent.act([state])[0] == stored[0].steps[0].action
    assert agent.act([state_of(Task("other", "?"))])[0].error == "unavailable"
    venv = ToolVectorEnv(OneTask(stored[0].task), 1, tools=["calculator"], max_steps=50)
    cut = next(collect(ReplayAgent([t for t in stored if t.task.id == stored[0].task.id]), venv.engine, 1, venv.num_envs))
    assert cut.ended in ("answered", "error")


def test_replay_reads_run_folders(venvs, tmp_path):
    from swirl_env.store import Store

    stored = play(venvs["ledger"], "scripted", 3)
    with Store(tmp_path / "run", "a") as store:
        for trajectory in stored:
            store.append(trajectory)
    assert list(collect(ReplayAgent(tmp_path / "run"), venvs["ledger"].engine, 3)) == stored
    with pytest.raises(DataNotFound, match="run folder"):
        ReplayAgent(tmp_path / "none")
    with pytest.raises(ConfigError, match="trajectories"):
        ReplayAgent([1])


def person(*lines):
    """A person who types these lines, and what was shown to them."""
    left, shown = list(lines), []

    def read(prompt):
        shown.append(prompt)
        if not left:
            raise EOFError
        return left.pop(0)

    return HumanAgent(read, shown.append), shown


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("search_query: who wrote Emma", "<search_query>who wrote Emma</search_query>"),
        ("s: who wrote Emma", "<search_query>who wrote Emma</search_query>"),
        ("A: Jane: the author", "<answer>Jane: the author</answer>"),
        ("<answer>Jane</answer>", "<answer>Jane</answer>"),
        ("I do not know", "I do not know"),
        ("x: y", "x: y"),
        ("m: 1+1", "m: 1+1"),
    ],
)
def test_a_person_may_write_short_forms(line, text):
    agent, shown = person("", line)
    (action,) = agent.act([state_of(Task("t", "Who wrote Emma?"), tools=("search_query", "math_exp", "mail"))])
    assert action.text == text
    assert "Who wrote Emma?" in shown[0] and "6 actions left" in shown[-1]


def test_a_person_may_give_up_and_is_shown_no_control_characters():
    agent, shown = person()
    (action,) = agent.act([state_of(Task("t", "Clear \x1b[2J this?"))])
    assert action.error == "unavailable" and action.text == ""
    assert "\x1b" not in "".join(shown) and "this?" in shown[0]
