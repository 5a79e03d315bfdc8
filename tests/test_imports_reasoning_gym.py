"""Datasets of reasoning-gym as tasks: their scorers grade, and none of them runs as code what a model wrote."""

import itertools

import pytest

pytest.importorskip("reasoning_gym", reason="needs the extra reasoning-gym")

from swirl_env import make_tasks
from swirl_env.contract import assert_contract
from swirl_env.env import build_engine
from swirl_env.errors import ConfigError, UnknownName
from swirl_env.evaluate import evaluate
from swirl_env.interop.reasoning_gym import MAX_ANSWER, code_in_scorer
from swirl_env.rollout import collect
from swirl_env.store import Store
from swirl_env.types import Task

EVALUATING = [
    "binary_matrix", "countdown", "intermediate_integration", "n_queens", "polynomial_multiplication", "puzzle24",
    "simple_integration", "spiral_matrix", "string_insertion",
]  # fmt: skip
HOSTILE = [
    "__import__('os').system('touch owned')",
    "[x for x in ().__class__.__base__.__subclasses__()]",
    "9**9**9**9",
    "[" * 5_000,
    '{"a": ' * 2_000,
    "-" * 4_000 + "1",
    "\ud800",
    "1" * 10_000,
]


def solver(state):
    if not state.steps:
        return f"<math_exp>{state.task.meta['metadata']['expression']}</math_exp>"
    return f"<answer>{state.steps[-1].result.text}</answer>"


def test_a_hundred_episodes_of_chain_sum_are_graded_by_its_scorer(tmp_path):
    engine = build_engine("reasoning_gym", dataset="chain_sum", judge="outcome", size=100)
    with Store(tmp_path / "run") as store:
        for trajectory in collect(solver, engine, 100):
            store.append(trajectory)
    evaluation = evaluate(Store(tmp_path / "run"))
    assert evaluation.accuracy.value == 1.0 and evaluation.accuracy.n == 100
    assert all([s.verdict.reward for s in t.steps] == [0.0, 1.0] for t in Store(tmp_path / "run"))


@pytest.mark.parametrize("answer", ["1000001", "about -4, I think", "", "nan"])
def test_wrong_near_and_missing_answers_are_wrong(answer):
    (trajectory,) = collect(lambda state: f"<answer>{answer}</answer>", build_engine("reasoning_gym", dataset="chain_sum"), 1)
    assert trajectory.outcome.correct is False


@pytest.mark.parametrize("name", EVALUATING)
def test_scorers_that_run_the_answer_as_code_are_refused(name):
    with pytest.raises(ConfigError, match=r"as code \((eval|parse_expr)\).*task\.scorer=false"):
        make_tasks("reasoning_gym", dataset=name)


def test_the_reference_can_grade_in_their_place():
    tasks = make_tasks("reasoning_gym", dataset="countdown", scorer=False, size=5)
    assert tasks.grader is None
    engine = build_engine(tasks, tools=[])
    answers = [tasks[0].answer, "__import__('os').system('true')"]
    ends = [next(collect(lambda state, text=text: f"<answer>{text}</answer>", engine, 1)) for text in answers]
    assert [end.outcome.correct for end in ends] == [True, False]


class Nested:
    """A scorer that hides what it does in a function inside a method that it calls."""

    def score_answer(self, answer, entry):
        return self.helper(answer)

    def helper(self, answer):
        return [eval(part) for part in answer]


Nested.__module__ = Nested.helper.__module__ = "reasoning_gym.nested"


class Composite:
    datasets = {"inner": Nested()}

    def score_answer(self, answer, entry):
        return self.datasets[entry].score_answer(answer, entry)


class Innocent:
    def score_answer(self, answer, entry):
        return float(answer == entry)


def test_code_is_seen_through_methods_and_composites():
    assert [code_in_scorer(dataset()) for dataset in (Nested, Composite, Innocent)] == ["eval", "eval", None]


@pytest.mark.parametrize(
    "name", ["chain_sum", "sudoku", "number_sorting", "family_relationships", "jugs", "group_anagrams", "codeio"]
)
def test_hostile_answers_are_wrong_and_do_nothing(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tasks = make_tasks("reasoning_gym", dataset=name, size=2)
    assert tasks.grader.grade([tasks[0]] * len(HOSTILE), HOSTILE) == [False] * len(HOSTILE)
    assert tasks.grader.grade([tasks[1]], [tasks[1].answer]) == [True]
    assert not list(tmp_path.iterdir())


def test_an_answer_of_any_length_is_graded_at_once(monkeypatch):
    tasks = make_tasks("reasoning_gym", dataset="chain_sum", size=2)
    monkeypatch.setattr(tasks, "score", lambda *_: pytest.fail("the scorer saw it"))
    assert tasks.grader.grade([tasks[0]], ["1" * (MAX_ANSWER + 1)]) == [False]


def test_a_broken_scorer_leaves_the_grade_open(monkeypatch):
    tasks = make_tasks("reasoning_gym", dataset="chain_sum", size=2)

    def broken(answer, entry):
        raise RuntimeError("out of order")

    monkeypatch.setattr(tasks._dataset, "score_answer", broken)
    (trajectory,) = collect(lambda state: "<answer>1</answer>", build_engine(tasks, judge="outcome"), 1)
    assert trajectory.outcome.correct is None and trajectory.steps[-1].verdict.status == "failed"


@pytest.mark.parametrize("name", ["graph_color", "rush_hour", "boxnet"])
def test_questions_without_a_reference_are_wrong_if_nobody_answers(name):
    engine = build_engine("reasoning_gym", dataset=name, max_steps=1, size=2)
    assert engine.tasks[0].answer is None
    (trajectory,) = collect(lambda state: "hm", engine, 1)
    assert (trajectory.ended, trajectory.outcome.correct) == ("budget", False)


def test_a_grader_of_ones_own_comes_first_and_other_tasks_bring_their_own():
    engine = build_engine("reasoning_gym", dataset="chain_sum", grader=lambda task, answer: answer == "blue")
    (trajectory,) = collect(lambda state: "<answer>blue</answer>", engine, 1)
    assert trajectory.outcome.correct is True
    engine = build_engine("reasoning_gym", dataset="chain_sum").with_tasks([Task("t", "1 + 1?", "2")])
    (trajectory,) = collect(lambda state: "<answer>2</answer>", engine, 1)
    assert trajectory.outcome.correct is True and engine.grader is None


@pytest.mark.parametrize("name", ["chain_sum", "knights_knaves", "tower_of_hanoi"])
def test_it_keeps_the_contract_of_task_sources(name):
    assert_contract("task", "reasoning_gym", dataset=name, size=15)


def test_split_seed_and_options_choose_the_questions():
    options = [{}, {"split": "test"}, {"seed": 1}, {"max_terms": 3, "min_terms": 3}]
    sets = [
        {t.question for t in map(make_tasks("reasoning_gym", dataset="chain_sum", size=60, **o).__getitem__, range(60))}
        for o in options
    ]
    assert all(len(one & other) < 10 for one, other in itertools.combinations(sets, 2))
    ids = {make_tasks("reasoning_gym", dataset="chain_sum", **o)[0].id for o in options}
    assert len(ids) == 4


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dataset": "chain_sums"}, UnknownName, "Did you mean 'chain_sum'"),
        ({"dataset": "chain_sum", "max_term": 3}, UnknownName, "Did you mean 'max_terms'"),
        ({"dataset": "chain_sum", "max_terms": 1}, ConfigError, "refuses these options"),
        ({"dataset": "composite"}, ConfigError, "refuses these options"),
        ({"dataset": "chain_sum", "size": 0}, ConfigError, "size"),
        ({"dataset": "chain_sum", "seed": "x"}, ConfigError, "seed is a whole number"),
    ],
)
def test_mistakes_in_its_options_are_named(options, error, message):
    with pytest.raises(error, match=message):
        make_tasks("reasoning_gym", **options)
