"""The public layouts of the official files, written here in small, and the messages if files are missing."""

import gzip
import json
import os

import pytest

from swirl_env import make_tasks
from swirl_env.errors import ConfigError, DataNotFound, UnknownName
from swirl_env.tasks.files.math_sets import arithmetic_value, plan_from_annotations

HOTPOT = {
    "_id": "h1",
    "question": "Who founded the maker of the Zig?",
    "answer": "Ada",
    "type": "bridge",
    "level": "easy",
    "supporting_facts": [["Zig", 0], ["Zag &amp; Co", 1], ["Zag &amp; Co", 2]],
    "context": [["Zig", ["The Zig is a car.", " Zag makes it."]], ["Zag & Co", ["Ada founded Zag."]], ["Noise", ["Nothing."]]],
}
OTHER = {**HOTPOT, "_id": "h2", "level": "hard", "context": [HOTPOT["context"][0], ["Zag & Co", ["A second text."]]]}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def lines(rows):
    return "\n".join(json.dumps(row) for row in rows) + "\n"


def passages(tasks):
    return {passage.id: (passage.title, passage.text) for passage in tasks.corpus}


def test_hotpotqa_official(tmp_path):
    write(tmp_path / "hotpotqa" / "hotpot_dev_distractor_v1.json", json.dumps([HOTPOT, OTHER]))
    tasks = make_tasks("hotpotqa", data_dir=str(tmp_path))
    assert (tasks.split, len(tasks), tasks[0].id, tasks[0].answer) == ("dev", 2, "h1", "Ada")
    assert passages(tasks) == {
        "hotpotqa-p0": ("Zig", "The Zig is a car. Zag makes it."),
        "hotpotqa-p1": ("Zag & Co", "Ada founded Zag."),
        "hotpotqa-p2": ("Noise", "Nothing."),
        "hotpotqa-p3": ("Zag & Co", "A second text."),
    }
    # Two passages share a title: each question gets the one that it brought along.
    assert [task.evidence for task in tasks] == [("hotpotqa-p0", "hotpotqa-p1"), ("hotpotqa-p0", "hotpotqa-p3")]
    assert tasks[0].meta["type"] == "bridge"
    assert [task.id for task in make_tasks("hotpotqa", data_dir=str(tmp_path), drop_easy=True)] == ["h2"]


def test_hotpotqa_columns_of_the_hub(tmp_path):
    row = {
        **{key: HOTPOT[key] for key in ("question", "answer", "type", "level")},
        "id": "h1",
        "supporting_facts": {"title": ["Zig", "Zag & Co"], "sent_id": [0, 0]},
        "context": {"title": [c[0] for c in HOTPOT["context"]], "sentences": [c[1] for c in HOTPOT["context"]]},
    }
    write(tmp_path / "hotpotqa" / "validation.jsonl", lines([row]))
    write(tmp_path / "official" / "hotpotqa" / "dev.json", json.dumps([HOTPOT]))
    hub, official = (make_tasks("hotpotqa", split="dev", data_dir=str(d)) for d in (tmp_path, tmp_path / "official"))
    assert hub[0] == official[0]
    assert list(hub.corpus) == list(official.corpus)


def test_a_corpus_file_next_to_the_questions_wins(tmp_path):
    write(tmp_path / "hotpotqa" / "dev.json", json.dumps([HOTPOT]))
    passages_of_file = [{"id": "a", "title": "Zag &amp;  Co", "text": "x"}, {"id": "b", "title": "Zag & Co", "text": "y"}]
    (tmp_path / "hotpotqa" / "corpus.jsonl.gz").write_bytes(gzip.compress(lines(passages_of_file).encode()))
    tasks = make_tasks("hotpotqa", data_dir=str(tmp_path))
    assert len(tasks.corpus) == 2
    assert tasks[0].evidence == ("a", "b")
    other = tmp_path / "other.jsonl"
    write(other, lines([{"id": "z", "title": "Zig", "text": "t"}]))
    tasks = make_tasks("hotpotqa", data_dir=str(tmp_path), corpus_path=str(other))
    assert (len(tasks.corpus), tasks[0].evidence) == (1, ("z",))


def test_musique_official(tmp_path):
    row = {
        "id": "2hop__1_2",
        "question": "When was Ann's school built?",
        "answer": "1901",
        "answer_aliases": ["in 1901", "1901"],
        "answerable": True,
        "paragraphs": [
            {"idx": 0, "title": "Ann", "paragraph_text": "Ann went to Hill School.", "is_supporting": True},
            {"idx": 1, "title": "Hill School", "paragraph_text": "A film.", "is_supporting": False},
            {"idx": 2, "title": "Hill School", "paragraph_text": "Built in 1901.", "is_supporting": True},
        ],
        "question_decomposition": [
            {"id": 1, "question": "Ann >> school", "answer": "Hill School", "paragraph_support_idx": 0},
            {"id": 2, "question": "When was #1 built?", "answer": "1901", "paragraph_support_idx": 2},
        ],
    }
    write(tmp_path / "musique" / "musique_ans_v1.0_dev.jsonl", lines([row, {**row, "id": "u", "answerable": False}]))
    tasks = make_tasks("musique", data_dir=str(tmp_path))
    task = tasks[0]
    assert (task.answer, task.aliases, task.evidence) == ("1901", ("in 1901",), ("musique-p0", "musique-p2"))
    assert task.meta["hops"] == 2
    assert task.meta["decomposition"][0] == {"question": "Ann >> school", "answer": "Hill School"}
    assert tasks[1].answer is None
    assert len(tasks.corpus) == 3


def test_two_wiki_official_and_its_columns_as_text(tmp_path):
    row = {**HOTPOT, "type": "compositional", "evidences": [["Zig", "manufacturer", "Zag"], ["Zag", "founder", "Ada"]]}
    nested = ("supporting_facts", "context", "evidences")
    text = {**row, **{key: json.dumps(row[key]) for key in nested}}
    write(tmp_path / "a" / "2wikimultihopqa" / "dev.json", json.dumps([row]))
    write(tmp_path / "b" / "2wikimultihopqa" / "dev.json", lines([text]))
    one, two = (make_tasks("2wikimultihopqa", data_dir=str(tmp_path / d)) for d in "ab")
    assert one[0] == two[0]
    assert one[0].evidence == ("2wikimultihopqa-p0", "2wikimultihopqa-p1")
    assert one[0].meta["evidences"][1] == ["Zag", "founder", "Ada"]


def test_beerqa_official(tmp_path):
    row = {"id": "b1", "src": "squad", "question": "Where?", "answers": ["Rome", "in Rome"], "context": [["Rome", "A city."]]}
    data = {"version": "1.0", "data": [row, {**row, "id": "b2"}]}
    write(tmp_path / "beerqa" / "beerqa_dev_v1.0.json", json.dumps(data))
    tasks = make_tasks("beerqa", data_dir=str(tmp_path))
    assert (tasks[0].answer, tasks[0].aliases, tasks[0].evidence) == ("Rome", ("in Rome",), ("beerqa-p0",))
    assert tasks[1].evidence == ("beerqa-p0",)
    assert (len(tasks.corpus), tasks[0].meta["src"]) == (1, "squad")
    questions = {"version": "1.0", "data": [{"id": "t1", "question": "Who?"}]}
    write(tmp_path / "beerqa" / "beerqa_test_questions_v1.0.json", json.dumps(questions))
    test = make_tasks("beerqa", data_dir=str(tmp_path), split="test")
    assert test[0].answer is None
    with pytest.raises(DataNotFound, match=r"bring no passages along.*corpus_path"):
        _ = test.corpus


def test_cofca_with_passages(tmp_path):
    row = {"question": "Who?", "answer": "Bo", "passages": [{"title": "Bo", "text": "Bo is.", "is_supporting": True}, "Plain."]}
    write(tmp_path / "cofca" / "cofca.jsonl", lines([row]))
    tasks = make_tasks("cofca", data_dir=str(tmp_path))
    assert (tasks[0].id, tasks[0].evidence) == ("cofca-test-0", ("cofca-p0",))
    assert passages(tasks)["cofca-p1"] == ("", "Plain.")


def test_gsm8k_official(tmp_path):
    row = {
        "question": "Natalia sold clips to 48 friends, then half as many. How many?",
        "answer": "Then <<48/2=24>>24.\nIn all 48+24 = <<48+24=72>>72.\n#### 1,072",
    }
    write(tmp_path / "gsm8k" / "train.jsonl", lines([row]))
    task = make_tasks("gsm8k", split="train", data_dir=str(tmp_path))[0]
    assert (task.id, task.answer, task.grading) == ("gsm8k-train-0", "1072", "number")
    assert [(s.tool, s.query, s.result, s.needs) for s in task.plan] == [
        ("math_exp", "48/2", "24", ()),
        ("math_exp", "48+24", "72", (0,)),
    ]
    assert "####" not in task.meta["solution"]


def test_svamp_official(tmp_path):
    row = {
        "ID": "chal-7",
        "Body": "Ed had 8 pens and lost 3",
        "Question": "How many has he?",
        "Equation": "( 8.0 - 3.0 )",
        "Answer": 5.0,
        "Type": "Subtraction",
    }
    write(tmp_path / "svamp" / "SVAMP.json", json.dumps([row]))
    task = make_tasks("svamp", data_dir=str(tmp_path))[0]
    assert (task.id, task.question) == ("svamp-chal-7", "Ed had 8 pens and lost 3. How many has he?")
    assert (task.answer, task.plan[0].query, task.plan[0].result) == ("5", "8 - 3", "5")


def test_own_questions(tmp_path):
    file = tmp_path / "mine.jsonl"
    write(file, lines([{"q": "2+3?", "gold": 5, "n": "x1"}, {"q": "Really?", "gold": True, "n": "x2"}]))
    tasks = make_tasks("jsonl", path=str(file), question_field="q", answer_field="gold", id_field="n", grading="number")
    assert [(t.id, t.question, t.answer, t.grading) for t in tasks] == [
        ("x1", "2+3?", "5", "number"),
        ("x2", "Really?", "yes", "number"),
    ]
    assert (tasks.split, tasks.corpus, tasks.tools) == ("mine", None, ("calculator",))
    write(tmp_path / "deep" / "set.json", json.dumps([{**HOTPOT, "Frage": HOTPOT["question"], "question": 3}]))
    pooled = make_tasks("jsonl", path=str(tmp_path / "deep" / "set.json"), question_field="Frage")
    assert (pooled[0].question, pooled[0].evidence) == (HOTPOT["question"], ("set-p0", "set-p1"))
    assert (len(pooled.corpus), pooled.tools) == (3, ("search",))
    with pytest.raises(ConfigError, match="grading: expected one of text, number"):
        make_tasks("jsonl", path=str(file), grading="vibes")
    with pytest.raises(ConfigError, match=r"row 1: expected a text under 'question'; got the keys \['gold', 'n', 'q'\]"):
        make_tasks("jsonl", path=str(file))[0]
    with pytest.raises(DataNotFound, match=r"nowhere\.jsonl"):
        make_tasks("jsonl", path=str(tmp_path / "nowhere.jsonl"))


def test_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    (tmp_path / "gsm8k").mkdir()
    table = pyarrow.table({"question": ["1+1?"], "answer": ["<<1+1=2>>2\n#### 2"]})
    parquet.write_table(table, tmp_path / "gsm8k" / "test-00000-of-00001.parquet")
    task = make_tasks("gsm8k", data_dir=str(tmp_path))[0]
    assert (task.answer, task.plan[0].query) == ("2", "1+1")


def test_a_copy_read_through_the_datasets_library(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    write(tmp_path / "copy" / "test.jsonl", lines([{"question": "1+1?", "answer": "#### 2"}] * 3))
    tasks = make_tasks("gsm8k", hub=str(tmp_path / "copy"), limit=2)
    assert (tasks.split, len(tasks), tasks[1].id, tasks[1].answer) == ("test", 2, "gsm8k-test-1", "2")
    with pytest.raises(UnknownName, match="Known: test, train"):
        make_tasks("gsm8k", hub=str(tmp_path / "copy"), split="dev")
    with pytest.raises(DataNotFound, match=r"no known copy on the hub.*hub='owner/name'"):
        make_tasks("beerqa", hub=True)


@pytest.mark.parametrize("name", ["hotpotqa", "musique", "2wikimultihopqa", "beerqa", "cofca", "gsm8k", "svamp"])
def test_missing_data_is_explained(name, tmp_path, monkeypatch):
    monkeypatch.delenv("SWIRL_DATA_DIR", raising=False)
    with pytest.raises(DataNotFound, match=rf"expected the file {name}/.*neither data_dir nor .*SWIRL_DATA_DIR.*https://"):
        make_tasks(name)
    monkeypatch.setenv("SWIRL_DATA_DIR", str(tmp_path))
    with pytest.raises(DataNotFound) as caught:
        make_tasks(name)
    assert f"under {tmp_path}" in str(caught.value)
    assert ("hub=True" in str(caught.value)) == (name not in ("beerqa", "cofca"))
    with pytest.raises(UnknownName, match=r"Known: .*test"):
        make_tasks(name, split="tset")


def test_the_message_lists_the_splits_that_have_a_file(tmp_path):
    write(tmp_path / "hotpotqa" / "questions_pilot.jsonl", lines([HOTPOT]))
    with pytest.raises(DataNotFound, match=r"split 'train': .*hotpot_train_v1\.1.*Splits that are there: pilot"):
        make_tasks("hotpotqa", split="train", data_dir=str(tmp_path))
    assert len(make_tasks("hotpotqa", split="pilot", data_dir=str(tmp_path))) == 1
    # The set's own folder will do as well as the one above it.
    assert len(make_tasks("hotpotqa", split="pilot", data_dir=str(tmp_path / "hotpotqa"))) == 1


def test_a_changed_file_is_read_again(tmp_path):
    file = tmp_path / "mine.jsonl"
    write(file, lines([{"question": "old?", "answer": "a"}]))
    assert make_tasks("jsonl", path=str(file))[0].question == "old?"
    write(file, lines([{"question": "newer?", "answer": "a"}]))
    os.utime(file, ns=(1, 1))
    assert make_tasks("jsonl", path=str(file))[0].question == "newer?"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"question": "a?", "answer": "b"}\n{"question": ', "row 2: expected a JSON object"),
        ('{"question": "a?", "answer": "b"}\n[1]', "row 2: expected a JSON object, got list"),
        ('{"question": "a?", "answer": "b"}\n{"query": ""}', r"row 2: expected a text under 'question'"),
    ],
)
def test_a_bad_row_is_named(tmp_path, content, message):
    write(tmp_path / "bad.jsonl", content)
    tasks = make_tasks("jsonl", path=str(tmp_path / "bad.jsonl"))
    assert tasks[0].question == "a?"
    with pytest.raises(ConfigError, match=message):
        tasks[1]


def test_a_bad_json_file_is_named(tmp_path):
    write(tmp_path / "bad.json", "[1, 2")
    with pytest.raises(ConfigError, match="expected a JSON list or JSON lines"):
        len(make_tasks("jsonl", path=str(tmp_path / "bad.json")))
    write(tmp_path / "odd.json", '{"version": 1, "rows": []}')
    with pytest.raises(ConfigError, match="one under 'data'"):
        len(make_tasks("jsonl", path=str(tmp_path / "odd.json")))


@pytest.mark.parametrize(
    ("expression", "value"),
    [("1+2*3", 7), ("(1+2)*3", 9), ("-2--3", 1), ("8/4/2", 1), ("1,000*.5", 500), ("2*-3", -6), ("(1.50)", 1.5)],
)
def test_arithmetic_value(expression, value):
    assert arithmetic_value(expression) == value


@pytest.mark.parametrize("expression", ["", "1+", "(1", "1)", "1/0", "2**3", "x+1", "1 2+", "()", "1" * 400, "(" * 200])
def test_text_that_is_not_arithmetic_has_no_value(expression):
    assert arithmetic_value(expression) is None


def test_a_wrong_annotation_drops_the_plan():
    assert plan_from_annotations("<<1+1=2>> <<2*3=7>>") == ()
    assert plan_from_annotations("<<1+1=2>> <<x*3=7>>") == ()
    assert [step.query for step in plan_from_annotations("<<40=40>> <<+8=8>> <<40+8=48>>")] == ["40+8"]
    values = [step.result for step in plan_from_annotations("<<5*2=10.00>> <<1/2=.50>> <<3/4=3/4>> <<1/3=1/3>> <<2-12=-10.0>>")]
    assert values == ["10", "0.5", "0.75", "1/3", "-10"]
    # The 2 of the second step stands in the question too, so its origin is unknown.
    assert [step.needs for step in plan_from_annotations("<<1+1=2>> <<2*3=6>> <<6+2=8>>", "with 2 dogs")] == [(), (), (1,)]
