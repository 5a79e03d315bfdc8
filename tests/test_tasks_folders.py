"""Data folders as they are downloaded: shards, HippoRAG's corpora, 2Wiki's aliases, MuSiQue-Full's ids, empty files."""

import json

import pytest

from swirl_env import make_tasks
from swirl_env.corpus import open_corpus
from swirl_env.errors import ConfigError

ROW = {"id": "a", "question": "Who?", "answer": "Ada", "supporting_titles": ["Zig"]}


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.suffix != ".json"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) if lines else json.dumps(rows), encoding="utf-8")


@pytest.mark.parametrize(
    ("folder", "pattern"),
    [
        ("", "test-{:05d}-of-00003.jsonl"),
        ("data", "test-{:05d}-of-00003.jsonl"),
        ("main", "test-{:05d}-of-00003-0123456789abcdef.jsonl"),
    ],
)
def test_the_shards_of_a_hub_copy_are_one_set(folder, pattern, tmp_path):
    for shard in range(3):
        rows = [{"question": f"{shard}+{i}?", "answer": f"#### {shard + i}"} for i in range(2 + shard)]
        write(tmp_path / "gsm8k" / folder / pattern.format(shard), rows)
    tasks = make_tasks("gsm8k", data_dir=str(tmp_path))
    assert len(tasks) == 2 + 3 + 4
    assert [task.question for task in tasks] == [f"{shard}+{i}?" for shard in range(3) for i in range(2 + shard)]
    assert tasks.find(tasks[5].id) == tasks[5] and len({task.id for task in tasks}) == 9


def test_parquet_shards_of_a_configuration(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    for shard in range(2):
        file = tmp_path / "hotpotqa" / "distractor" / f"validation-{shard:05d}-of-00002.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.table({"id": [f"s{shard}"], "question": ["Who?"], "answer": ["Ada"]}), file)
    assert [task.id for task in make_tasks("hotpotqa", split="dev", data_dir=str(tmp_path))] == ["s0", "s1"]


def test_the_parquet_conversion_of_the_hub(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    for part in range(2):
        file = tmp_path / "gsm8k" / "main" / "test" / f"{part:04d}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.table({"question": [f"{part}?"], "answer": [f"#### {part}"]}), file)
    assert [task.answer for task in make_tasks("gsm8k", data_dir=str(tmp_path))] == ["0", "1"]


def test_a_missing_shard_is_named(tmp_path):
    for shard in (0, 2):
        write(tmp_path / "gsm8k" / f"test-{shard:05d}-of-00003.jsonl", [{"question": "1?", "answer": "1"}])
    with pytest.raises(ConfigError, match=r"expected the shards 0 to 2 of 'test'.*got \[0, 2\]"):
        make_tasks("gsm8k", data_dir=str(tmp_path))


@pytest.mark.parametrize(
    "passages",
    [
        [{"idx": 0, "title": "Zig", "text": "A car."}, {"idx": 1, "title": "Zag", "text": "A firm."}],
        {"Zig": ["A car."], "Zag": ["A", "firm."]},
    ],
)
def test_hipporag_keeps_all_sets_in_one_folder(passages, tmp_path):
    write(tmp_path / "hotpotqa.json", [ROW])
    write(tmp_path / "hotpotqa_corpus.json", passages)
    write(tmp_path / "musique.json", [{**ROW, "paragraphs": [{"title": "Zag", "paragraph_text": "x", "is_supporting": True}]}])
    write(tmp_path / "musique_corpus.json", [{"title": "Zag", "text": "x"}])
    tasks = make_tasks("hotpotqa", data_dir=str(tmp_path))
    assert (tasks.split, tasks[0].answer, len(tasks.corpus)) == ("hippo", "Ada", 2)
    assert [(p.title, p.text) for p in tasks.corpus] == [("Zig", "A car."), ("Zag", "A firm.")]
    assert tasks[0].evidence == (tasks.corpus[0].id,)
    assert len(make_tasks("musique", data_dir=str(tmp_path)).corpus) == 1
    own = make_tasks("jsonl", path=str(tmp_path / "musique.json"))
    assert [p.title for p in own.corpus] == ["Zag"]


def test_aliases_of_2wiki_are_read(tmp_path):
    folder = tmp_path / "2wikimultihopqa"
    write(folder / "dev.json", [{**ROW, "answer_id": "Q1"}, {**ROW, "id": "b", "answer_id": "Q9"}, {**ROW, "id": "c"}])
    names = [{"Q_id": "Q1", "aliases": ["Ada L.", "Ada"], "demonyms": ["Adan"]}, {"Q_id": "Q2", "aliases": ["x"], "demonyms": []}]
    folder.joinpath("id_aliases.json").write_text("".join(json.dumps(row) + "\n" for row in names))
    tasks = make_tasks("2wikimultihopqa", data_dir=str(tmp_path))
    assert [task.aliases for task in tasks] == [("Ada L.", "Adan"), (), ()]
    assert tasks[0].meta["answer_id"] == "Q1"


def test_repeated_ids_are_told_apart(tmp_path):
    rows = [ROW, {**ROW, "answerable": False}, {**ROW, "id": "b"}, ROW, {**ROW, "id": "a-2"}]
    write(tmp_path / "musique" / "musique_full_v1.0_dev.jsonl", rows)
    tasks = make_tasks("musique", split="full_dev", data_dir=str(tmp_path))
    ids = [task.id for task in tasks]
    assert len(set(ids)) == 5 and (ids[0], ids[2], ids[4]) == ("a", "b", "a-2")
    assert [tasks.find(name) for name in ids] == list(tasks)
    assert (tasks[1].answer, tasks[1].meta["answerable"]) == (None, False)
    write(tmp_path / "own.jsonl", [{"n": 7, "question": "a?", "answer": "b"}] * 3)
    own = make_tasks("jsonl", path=str(tmp_path / "own.jsonl"), id_field="n")
    assert [task.id for task in own] == ["7", "7-2", "7-3"]


@pytest.mark.parametrize(
    ("name", "content"),
    [("q.jsonl", b""), ("q.jsonl", b"\n \n"), ("q.json", b"[]"), ("q.json", b'{"data": []}'), ("q.json", b" ")],
)
def test_an_empty_file_of_questions_is_refused(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match="the file has no rows"):
        len(make_tasks("jsonl", path=str(tmp_path / name)))


@pytest.mark.parametrize(
    ("name", "content"), [("corpus.jsonl", b""), ("corpus.jsonl", b"\n"), ("corpus.json", b"[]"), ("corpus.json", b"{}")]
)
def test_an_empty_corpus_file_is_refused(name, content, tmp_path):
    write(tmp_path / "q.jsonl", [ROW])
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match="expected passages"):
        _ = make_tasks("jsonl", path=str(tmp_path / "q.jsonl")).corpus


@pytest.mark.parametrize("content", ["[1]", '"text"', "[", '{"a": 1}'])
def test_a_json_corpus_of_another_form_is_refused(content, tmp_path):
    (tmp_path / "corpus.json").write_text(content)
    with pytest.raises(ConfigError, match=r"corpus\.json"):
        list(open_corpus(tmp_path))
