"""Atlas, Ledger and AtlasLedger: what holds for every generated task, checked on tasks drawn by hypothesis."""

import datetime
import hashlib
import itertools
import re
import subprocess
import sys
from fractions import Fraction

import msgspec
import pytest
import Stemmer
from hypothesis import given, settings
from hypothesis import strategies as st

import swirl_env
from swirl_env.errors import ConfigError
from swirl_env.grading import grade
from swirl_env.tasks import words
from swirl_env.tasks.atlas.relations import RELATIONS
from swirl_env.tasks.atlas.tasks import Atlas
from swirl_env.tasks.atlas.world import world
from swirl_env.tasks.atlas_ledger import AtlasLedger
from swirl_env.tasks.ledger.tasks import Ledger
from swirl_env.tasks.names import LISTS, Names, Permutation
from swirl_env.types import Task

SPLITS = st.sampled_from(["train", "validation", "test"])
SOURCES = (Atlas, Ledger, AtlasLedger)
NAME = re.compile(r"[A-Z][a-z]+(?: [A-Z][a-z]+){1,2}")


def digest_of(cls) -> str:
    tasks = cls(split="test")
    text = b"".join(msgspec.json.encode(tasks[i]) for i in range(50))
    if tasks.corpus is not None:
        text += b"".join(msgspec.json.encode(tasks.corpus[i]) for i in range(50))
    return hashlib.sha256(text).hexdigest()


def check_plan(task: Task) -> None:
    for i, step in enumerate(task.plan):
        assert all(need < i for need in step.needs)
        assert step.result and step.query
        assert step.subject in step.query
    assert grade(task, task.answer or "").correct


def evaluate(expression: str) -> Fraction:
    """An oracle of its own: products before sums, left to right, on exact fractions."""
    tokens = expression.replace("% of", " / 100 *").split()
    numbers = [Fraction(token) for token in tokens[::2]]
    operators = tokens[1::2]
    for level in ("*/", "+-"):
        left, operators_left = [numbers[0]], []
        for operator, number in zip(operators, numbers[1:], strict=True):
            if operator not in level:
                left.append(number)
                operators_left.append(operator)
            elif operator == "*":
                left[-1] *= number
            elif operator == "/":
                left[-1] /= number
            else:
                left[-1] += number if operator == "+" else -number
        numbers, operators = left, operators_left
    (value,) = numbers
    return value


@pytest.mark.parametrize("cls", SOURCES)
def test_same_options_give_the_same_tasks_in_any_order(cls):
    one, two = cls(size=30, seed=3), cls(size=30, seed=3)
    backwards = {i: two[i] for i in reversed(range(30))}
    assert [one[i] for i in range(30)] == [backwards[i] for i in range(30)]
    assert one[-1] == one[29]
    assert len({task.id for task in map(one.__getitem__, range(30))}) == 30
    other = cls(size=30, seed=4)
    assert other[0].question != one[0].question and other[0].id != one[0].id


@pytest.mark.parametrize("cls", SOURCES)
def test_another_process_gives_the_same_tasks(cls):
    code = f"import sys; sys.path.insert(0, {str(__file__.rpartition('/')[0])!r}); "
    code += f"import test_tasks_generated as t; print(t.digest_of(t.{cls.__name__}))"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == digest_of(cls)


@pytest.mark.parametrize("cls", SOURCES)
def test_tasks_are_found_by_id(cls):
    tasks = cls(size=20, seed=1)
    assert tasks.find(tasks[7].id) == tasks[7]
    for wrong in ("", "x", tasks[7].id + "0", cls(size=20)[7].id, cls(size=99, seed=1)[50].id, tasks[7].id[:-1] + "٧"):
        assert tasks.find(wrong) is None
    with pytest.raises(IndexError):
        tasks[20]


@pytest.mark.parametrize("cls", SOURCES)
def test_ids_name_the_options_unless_they_are_the_defaults(cls):
    assert re.fullmatch(r"[a-z-]+-test-000003", cls(split="test")[3].id)
    assert re.fullmatch(r"[a-z-]+-[0-9a-f]{8}-test-000003", cls(split="test", seed=9)[3].id)


@pytest.mark.parametrize("cls", SOURCES)
def test_every_task_has_a_budget_to_spare(cls):
    tasks = cls()
    longest = max(len(tasks[i].plan) for i in range(300))
    assert longest + 1 < tasks.max_steps


@given(split=SPLITS, seed=st.integers(0, 1000), index=st.integers(0, 9999), documents=st.sampled_from([100, 257, 1300]))
@settings(max_examples=150, deadline=None)
def test_atlas_evidence_states_subject_and_result_of_each_step(split, seed, index, documents):
    tasks = Atlas(split=split, documents=documents, max_hops=6, seed=seed)
    task = tasks[index]
    check_plan(task)
    assert len(task.plan) == task.meta["hops"]
    for step in task.plan:
        (passage,) = step.evidence
        document = tasks.corpus[int(passage[1:])]
        assert document.id == passage
        assert step.subject in document.text and re.search(rf"\b{step.result}\b", document.text)
        # What a step asks about stands in the question or is what an earlier step found.
        assert step.subject in (task.question if not step.needs else [task.plan[need].result for need in step.needs])
    facts = [step.evidence for step in task.plan]
    assert len(set(facts)) == len(facts)


@given(split=SPLITS, index=st.integers(0, 9999), more=st.integers(0, 1))
@settings(max_examples=100, deadline=None)
def test_atlas_comparisons_are_answered_by_the_values_found(split, index, more):
    task = Atlas(split=split, min_hops=2, max_hops=6, comparisons=1.0, seed=more)[index]
    assert task.meta["type"] == "comparison"
    ends = [i for i in range(len(task.plan)) if not any(i in step.needs for step in task.plan)]
    values = {task.plan[i].subject: worth(task.plan[i].result) for i in ends}
    assert len(values) == 2
    large = re.search(r"\b(later|higher|larger|more)\b", task.question)
    assert bool(large) != bool(re.search(r"\b(earlier|lower|smaller|fewer)\b", task.question))
    assert task.answer == (max if large else min)(values, key=values.__getitem__)


def worth(text: str) -> tuple[int, ...]:
    if text.isdecimal():
        return (int(text),)
    day = datetime.datetime.strptime(text, "%d %B %Y")
    return (day.year, day.month, day.day)


def test_atlas_dates_may_be_written_month_first():
    tasks = Atlas(max_hops=1)
    task = next(t for t in map(tasks.__getitem__, range(200)) if t.meta["relations"] == ["birth date"])
    day, month, year = task.answer.split()
    assert grade(task, f"{month} {day}, {year}").correct
    assert not grade(task, f"{month} {int(day) % 28 + 1}, {year}").correct


def test_splits_share_words_and_no_names():
    names, vocabulary = {}, {}
    for split in ("train", "validation", "test"):
        corpora = [world(2_000, split, seed).corpus for seed in range(8)]
        texts = [p.text for corpus in corpora for p in corpus]
        names[split] = {name for text in texts for name in NAME.findall(text)}
        vocabulary[split] = {word for name in names[split] for word in name.split()}
    assert len(names["test"]) > 500
    assert not any(names[one] & names[two] for one, two in itertools.combinations(names, 2))
    assert vocabulary["test"] | vocabulary["validation"] <= vocabulary["train"]


def test_worlds_of_different_sizes_share_no_names_between_splits():
    large, small = (Atlas(split=s, documents=n, words=60) for s, n in (("train", 20_000), ("test", 1_300)))
    names = [{tasks.world.name(k, e) for k in LISTS for e in range(tasks.world.counts[k])} for tasks in (large, small)]
    assert not names[0] & names[1]
    assert {len(name.split()) for name in names[0] | names[1]} == {2}


def test_all_names_of_two_words_are_shared_out_between_the_splits():
    sizes = {"train": 20 * 16, "validation": 20 * 2, "test": 20 * 2}
    made = {s: [Names("person", n, s, 5, words=20)(i) for i in range(n)] for s, n in sizes.items()}
    everyone = {f"{a} {b}" for a, b in itertools.product(words.FIRST[:20], words.LAST[:20])}
    assert sorted(itertools.chain(*made.values())) == sorted(everyone)


@given(n=st.integers(1, 3000), key=st.integers(0, 2**64))
@settings(max_examples=30, deadline=None)
def test_permutations_are_permutations(n, key):
    shuffle = Permutation(n, key)
    assert sorted(map(shuffle, range(n))) == list(range(n))


def test_no_two_name_words_look_alike_to_a_search():
    stem = Stemmer.Stemmer("english").stemWord
    lists = [part for kind in LISTS.values() for part in kind]
    stems = [stem(word.lower()) for part in lists for word in part]
    assert len(set(stems)) == len(stems)
    keys = {stem(w.lower()) for r in RELATIONS for s in (r.query, *r.sentences) for w in re.findall(r"[a-z]{3,}", s)}
    assert not keys & set(stems)
    assert all(len(parts[2]) % 10 == 0 for parts in LISTS.values())


@pytest.mark.parametrize("documents", [100, 101, 537, 1300, 4999])
def test_a_world_has_as_many_documents_as_asked_for(documents):
    corpus = world(documents, "train", 0).corpus
    streamed = list(corpus)
    assert len(streamed) == len(corpus) == documents
    assert [corpus[i] for i in range(documents)] == streamed
    assert len({p.id for p in streamed}) == len({p.text for p in streamed}) == documents


def test_no_entity_is_mentioned_much_more_than_others():
    counts: dict[str, int] = {}
    for passage in world(10_000, "train", 0).corpus:
        for name in set(NAME.findall(passage.text)):
            counts[name] = counts.get(name, 0) + 1
    assert max(counts.values()) <= 16


def test_a_million_documents_are_made_on_demand():
    corpus = world(1_000_000, "test", 0).corpus
    assert len(corpus) == 1_000_000 and corpus[999_999].text and corpus[123_456] == corpus[123_456]


@given(split=SPLITS, seed=st.integers(0, 50), index=st.integers(0, 9999))
@settings(max_examples=200, deadline=None)
def test_ledger_plans_compute_the_answer_from_the_text(split, seed, index):
    task = Ledger(split=split, seed=seed)[index]
    check_plan(task)
    assert 2 <= len(task.plan) <= 6 and len(task.plan) == task.meta["operations"]
    given_numbers = set(re.findall(r"\d+(?:\.\d+)?", task.question))
    for step in task.plan:
        assert evaluate(step.query) == Fraction(step.result)
        results = {task.plan[need].result for need in step.needs}
        used = set(re.findall(r"\d+(?:\.\d+)?", step.query))
        assert used - {"100"} <= given_numbers | results and results <= used
        assert step.result not in given_numbers
    assert task.plan[-1].result == task.answer
    used_later = {need for step in task.plan for need in step.needs}
    assert used_later == set(range(len(task.plan) - 1))


def test_ledger_people_of_the_splits_are_different():
    owners = {}
    for split in ("train", "test"):
        tasks = Ledger(split=split)
        owners[split] = {name for i in range(500) for name in NAME.findall(tasks[i].question.split(" has ")[0])}
    assert len(owners["test"]) > 100 and not owners["train"] & owners["test"]


@given(split=SPLITS, index=st.integers(0, 9999), documents=st.sampled_from([100, 1300]))
@settings(max_examples=100, deadline=None)
def test_atlas_ledger_computes_with_what_it_looks_up(split, index, documents):
    tasks = AtlasLedger(split=split, documents=documents)
    task = tasks[index]
    check_plan(task)
    searches = [step for step in task.plan if step.evidence]
    sums = [step for step in task.plan if not step.evidence]
    assert len(searches) == task.meta["hops"] and len(sums) == task.meta["operations"] >= 1
    for step in searches:
        assert step.result in tasks.corpus[int(step.evidence[0][1:])].text
    for step in sums:
        assert evaluate(step.query) == Fraction(step.result)
        assert all(task.plan[need].result in step.query.split() for need in step.needs)
    assert task.answer == sums[-1].result not in {step.result for step in searches}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Atlas(documents=99), "at least 100"),
        (lambda: Atlas(split="dev"), "train, validation, test"),
        (lambda: Atlas(min_hops=0), "1 <= min_hops"),
        (lambda: Atlas(max_hops=7), "max_hops <= 6"),
        (lambda: Atlas(comparisons=1.5), "between 0 and 1"),
        (lambda: Atlas(split="test", documents=50_000_000), "or take the train split"),
        (lambda: Atlas(words=25), "multiple of 10"),
        (lambda: Atlas(documents=200_000, words=20), "or more words"),
        (lambda: Ledger(size=0), "at least 1"),
        (lambda: Ledger(max_operations=7), "max_operations <= 6"),
        (lambda: Atlas(size="many"), "size is a whole number; got 'many'"),
        (lambda: Atlas(documents="1000"), "documents is a whole number"),
        (lambda: Atlas(words="50"), "words is a whole number"),
        (lambda: Atlas(comparisons="half"), "between 0 and 1; got 'half'"),
        (lambda: Ledger(size=2.5), "size is a whole number"),
        (lambda: Ledger(max_operations="3"), "max_operations is a whole number"),
        (lambda: AtlasLedger(max_hops=None), "max_hops is a whole number"),
        (lambda: AtlasLedger(min_hops=3, max_hops=2), "min_hops <= max_hops"),
    ],
)
def test_options_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.slow
def test_every_gold_query_finds_its_evidence_first_among_100_000_documents(tmp_path):
    tasks = Atlas(split="test", documents=100_000, max_hops=6)
    search = swirl_env.make_tool("search", corpus=tasks.corpus, cache_dir=str(tmp_path))
    steps = [step for i in range(200) for step in tasks[i].plan]
    ranked = [result.data["ids"] for result in search.run([step.query for step in steps])]
    assert [ids[0] for ids in ranked] == [step.evidence[0] for step in steps]
