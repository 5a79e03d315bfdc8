"""The loaders on the real question sets: counts as their READMEs give them, evidence in the corpus, plans that hold."""

import ast
import gzip
import json
import operator
import pickle
import re
from collections import Counter
from fractions import Fraction

import pytest

from swirl_env import make_tasks
from swirl_env.contract import assert_contract
from swirl_env.errors import DataNotFound, UnknownName
from swirl_env.grading import grade, numeric_value
from swirl_env.protocols import TaskSource

pytestmark = pytest.mark.data

SPLITS = {
    ("hotpotqa", "dev500"): 500,
    ("hotpotqa", "train100"): 100,
    ("hotpotqa", "dev_hippo_matched"): 796,
    ("hotpotqa", "demos"): 29,
    ("musique", "train100"): 100,
    ("musique", "demos"): 20,
    ("2wikimultihopqa", "demos"): 20,
    ("2wikimultihopqa", "retrieval101"): 101,
    ("gsm8k", "train"): 7473,
    ("gsm8k", "test"): 1319,
    ("svamp", "test"): 1000,
}
PASSAGES = {"hotpotqa": 38_918, "musique": 5_325, "2wikimultihopqa": 6_195}


def source(name, split, data_dir, **options):
    return make_tasks(name, split=split, data_dir=str(data_dir), **options)


def open_lines(folder, stem):
    """Reads a file of the shared data with the standard library alone."""
    packed = folder / f"{stem}.jsonl.gz"
    data = gzip.decompress(packed.read_bytes()) if packed.exists() else (folder / f"{stem}.jsonl").read_bytes()
    return [json.loads(line) for line in data.splitlines()]


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_every_question_is_there(name, split, data_dir):
    tasks = source(name, split, data_dir)
    assert isinstance(tasks, TaskSource)
    assert tasks.split == split
    assert len(tasks) == SPLITS[name, split]
    assert len({task.id for task in tasks}) == len(tasks)
    assert all(task.question and task.meta["split"] == split for task in tasks)
    assert all((task.answer is None) == (split == "retrieval101") for task in tasks)
    assert tasks[-1] == tasks[len(tasks) - 1]
    assert tasks.find(tasks[7].id) == tasks[7]
    assert tasks.find("no such question") is None


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_the_source_keeps_the_contract(name, split, data_dir):
    assert_contract("task", {"name": name, "split": split, "data_dir": str(data_dir)})


@pytest.mark.parametrize("name", PASSAGES)
def test_the_corpus_is_all_passages(name, data_dir):
    tasks = make_tasks(name, data_dir=str(data_dir))
    assert len(tasks.corpus) == PASSAGES[name]
    rows = open_lines(data_dir / name, "corpus")
    assert [(p.id, p.title, p.text) for p in tasks.corpus] == [(r["id"], r["title"], r["text"]) for r in rows]
    assert (tasks.tools, tasks.max_steps) == (("search",), 6)


@pytest.mark.parametrize("split", ["dev500", "train100"])
def test_hotpotqa_evidence_has_the_gold_titles(split, data_dir):
    tasks = source("hotpotqa", split, data_dir)
    titles = {row["id"]: row["title"] for row in open_lines(data_dir / "hotpotqa", "corpus")}
    for task, row in zip(tasks, open_lines(data_dir / "hotpotqa", f"questions_{split}"), strict=True):
        assert sorted(titles[i] for i in task.evidence) == sorted(row["supporting_titles"])
        assert (task.id, task.question, task.answer) == (row["id"], row["question"], row["answer"])


def test_musique_evidence_is_exact(data_dir):
    tasks = source("musique", "train100", data_dir)
    rows = {row["id"]: row for row in open_lines(data_dir / "musique", "questions_train100")}
    texts = {row["id"]: row for row in open_lines(data_dir / "musique", "corpus")}
    assert Counter(task.meta["hops"] for task in tasks) == {2: 68, 3: 27, 4: 5}
    for task in tasks:
        assert list(task.evidence) == rows[task.id]["supporting_ids"]
        assert [texts[i]["title"] for i in task.evidence] == rows[task.id]["supporting_titles"]
        assert list(task.aliases) == list(dict.fromkeys(a for a in rows[task.id]["aliases"] if a != task.answer))
        assert [step["answer"] for step in task.meta["decomposition"]][-1] in (task.answer, *task.aliases)


def test_two_wiki_evidence_agrees_with_the_judgements(data_dir):
    judged = {}
    for line in (data_dir / "2wikimultihopqa" / "qrels101.tsv").read_text().splitlines()[1:]:
        query, passage, _ = line.split("\t")
        judged.setdefault(query, set()).add(passage)
    tasks = source("2wikimultihopqa", "retrieval101", data_dir)
    assert {task.id: set(task.evidence) for task in tasks} == judged
    assert grade(tasks[0], "whatever").correct is None


@pytest.mark.parametrize(("src", "count"), [(None, 38_918), ("full", 38_918), ("core", 11_300), ("dev500", 4_937)])
def test_corpus_src_chooses_passages(src, count, data_dir):
    tasks = source("hotpotqa", "dev500", data_dir, corpus_src=src)
    ids = [passage.id for passage in tasks.corpus]
    assert len(ids) == count
    assert {i for task in tasks for i in task.evidence} <= set(ids)


def test_an_unknown_src_is_named(data_dir):
    tasks = source("hotpotqa", "dev500", data_dir, corpus_src="dev5000")
    with pytest.raises(UnknownName, match=r"'dev500'.*reflexion100"):
        _ = tasks.corpus


def test_limit_and_drop_easy(data_dir):
    first = source("hotpotqa", "train100", data_dir, limit=7)
    assert len(first) == 7
    assert first[-1] == source("hotpotqa", "train100", data_dir)[6]
    with pytest.raises(IndexError, match="of a set of 7"):
        first[7]
    assert first.find(source("hotpotqa", "train100", data_dir)[9].id) is None
    hard = source("hotpotqa", "train100", data_dir, drop_easy=True)
    assert Counter(task.meta["level"] for task in hard) == {"medium": 69, "hard": 15}


def test_sources_share_what_they_read(data_dir):
    one, two = (source("hotpotqa", "dev500", data_dir) for _ in range(2))
    assert one.table is two.table
    assert one.corpus is two.corpus
    _ = one[3]
    packed = pickle.dumps(one)
    assert len(packed) < 2_000
    assert pickle.loads(packed)[3] == one[3]


def test_default_splits(data_dir, monkeypatch):
    monkeypatch.setenv("SWIRL_DATA_DIR", str(data_dir))
    splits = {name: make_tasks(name).split for name in ("hotpotqa", "musique", "2wikimultihopqa", "gsm8k", "svamp")}
    assert splits == {
        "hotpotqa": "dev500",
        "musique": "train100",
        "2wikimultihopqa": "demos",
        "gsm8k": "test",
        "svamp": "test",
    }
    with pytest.raises(DataNotFound, match=r"beerqa/beerqa_dev_v1\.0"):
        make_tasks("beerqa")


OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def oracle(expression):
    """An evaluator of another make: Python's parser, with every number turned into an exact one."""

    def walk(node):
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](walk(node.left), walk(node.right))
        if isinstance(node, ast.UnaryOp):
            return -walk(node.operand) if isinstance(node.op, ast.USub) else walk(node.operand)
        return Fraction(node.args[0].value)

    exact = re.sub(r"\d+\.?\d*|\.\d+", lambda number: f"N('{number[0].rstrip('.')}')", expression)
    return walk(ast.parse(exact, mode="eval").body)


@pytest.mark.parametrize(("split", "annotated", "without"), [("train", 23_716, 187), ("test", 4_282, 31)])
def test_gsm8k_plans_hold(split, annotated, without, data_dir):
    tasks = source("gsm8k", split, data_dir)
    rows = open_lines(data_dir / "gsm8k", split)
    steps = 0
    for task, row in zip(tasks, rows, strict=True):
        assert numeric_value(task.answer) == Fraction(row["answer"])
        assert grade(task, f"The answer is {row['answer']}.").correct
        marks = re.findall(r"<<(.*?)=(.*?)>>", row["solution"].replace("//", "/"))
        steps += len(marks)
        # A number alone calculates nothing.
        marks = [mark for mark in marks if len(numbers_in(mark[0])) > 1]
        assert [(step.query, oracle(step.result)) for step in task.plan] == [(mark[0], oracle(mark[1])) for mark in marks]
        assert len({step.result for step in task.plan}) == len({oracle(step.result) for step in task.plan})
        for i, step in enumerate(task.plan):
            assert oracle(step.query) == oracle(step.result)
            assert all(need < i and oracle(task.plan[need].result) in numbers_in(step.query) for need in step.needs)
    assert steps == annotated
    planned = source("gsm8k", split, data_dir, planned=True)
    assert [task.id for task in planned] == [task.id for task in tasks if task.plan]
    assert len(tasks) - len(planned) == without
    assert (tasks.corpus, tasks.tools, tasks.max_steps) == (None, ("calculator",), 11)


def numbers_in(expression):
    return [Fraction(number) for number in re.findall(r"\d+\.?\d*|\.\d+", expression)]


def test_svamp_plans_hold(data_dir):
    tasks = source("svamp", "test", data_dir)
    for task, row in zip(tasks, open_lines(data_dir / "svamp", "test"), strict=True):
        assert (task.id, task.question, task.answer) == (row["id"], row["question"], row["answer"])
        assert grade(task, row["answer"]).correct
        for step in task.plan:
            assert oracle(step.query) == oracle(row["solution"]) == Fraction(step.result) == Fraction(task.answer)
    # One label of the set differs from its own equation (4 - 2 + 3 is said to be 1), one equation is a number alone.
    assert sum(not task.plan for task in tasks) == 2
