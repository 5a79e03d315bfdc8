import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swirl_env.cache import cache_root, file_fingerprint
from swirl_env.corpus import DatasetCorpus, GeneratedCorpus, JsonlCorpus, MemoryCorpus, ParquetCorpus, open_corpus
from swirl_env.errors import ConfigError, DataNotFound
from swirl_env.protocols import Corpus
from swirl_env.types import Passage

PASSAGES = [Passage("a", "Alpha", "first text"), Passage("b", "", "second\nline"), Passage("c", "Çédille", "третий 三")]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWIRL_CACHE_DIR", str(tmp_path / "cache"))


def rows(passages: list[Passage]) -> list[dict[str, str]]:
    return [{"id": p.id, "title": p.title, "text": p.text} for p in passages]


def write_jsonl(path: Path, lines: list[dict[str, object]] | list[dict[str, str]]) -> Path:
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def corpora(folder: Path) -> dict[str, Corpus]:
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist([{**row, "extra": 1} for row in rows(PASSAGES)])
    pq.write_table(table, folder / "c.parquet", row_group_size=2)
    return {
        "memory": MemoryCorpus(PASSAGES),
        "jsonl": open_corpus(write_jsonl(folder / "c.jsonl", rows(PASSAGES))),
        "gz": open_corpus(str(write_jsonl(folder / "c.jsonl.gz", rows(PASSAGES)))),
        "parquet": open_corpus(folder / "c.parquet"),
        "dataset": open_corpus(datasets.Dataset.from_list(rows(PASSAGES))),
        "generated": GeneratedCorpus(lambda: iter(PASSAGES), 3, "f", item=PASSAGES.__getitem__),
        "stream": GeneratedCorpus(lambda: iter(PASSAGES), 3, "f"),
    }


def test_every_corpus_gives_the_same_passages_in_order_and_by_position(tmp_path: Path) -> None:
    for name, corpus in corpora(tmp_path).items():
        assert isinstance(corpus, Corpus), name
        assert list(corpus) == PASSAGES, name
        assert list(corpus) == PASSAGES, f"{name}: a second reading"
        assert len(corpus) == 3, name
        assert [corpus[i] for i in (0, 1, 2, -1, -3)] == [*PASSAGES, PASSAGES[2], PASSAGES[0]], name
        for beyond in (3, -4):
            with pytest.raises(IndexError):
                corpus[beyond]
        assert corpus.fingerprint == corpus.fingerprint and isinstance(corpus.fingerprint, str), name


def test_open_corpus_chooses_by_type_and_suffix(tmp_path: Path) -> None:
    by_name = corpora(tmp_path)
    kinds = {"jsonl": JsonlCorpus, "gz": JsonlCorpus, "parquet": ParquetCorpus, "dataset": DatasetCorpus}
    for name, kind in kinds.items():
        assert type(by_name[name]) is kind
    assert open_corpus(by_name["memory"]) is by_name["memory"]
    assert list(open_corpus(PASSAGES)) == PASSAGES
    beir = tmp_path / "scifact"
    beir.mkdir()
    write_jsonl(beir / "corpus.jsonl", [{"_id": "7", "title": "T", "text": "x", "metadata": {}}])
    assert list(open_corpus(beir)) == [Passage("7", "T", "x")]


@pytest.mark.parametrize(
    ("row", "passage"),
    [
        ({"_id": 12, "title": None, "text": "x"}, Passage("12", "", "x")),
        ({"text": "no id"}, Passage("0", "", "no id")),
        ({"id": "x", "contents": "Anserini"}, Passage("x", "", "Anserini")),
        ({"idx": 3, "title": "T", "paragraph_text": "MuSiQue", "is_supporting": True}, Passage("3", "T", "MuSiQue")),
        ({"title": "T", "text": ["One. ", " Two."]}, Passage("0", "T", "One. Two.")),
    ],
)
def test_layouts(tmp_path: Path, row: dict[str, object], passage: Passage) -> None:
    assert list(open_corpus(write_jsonl(tmp_path / "c.jsonl", [row]))) == [passage]


def test_blank_lines_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('\n{"id":"a","text":"x"}\n\n  \n{"id":"b","text":"y"}')
    corpus = JsonlCorpus(path)
    assert (len(corpus), corpus[1].id, [p.id for p in corpus]) == (2, "b", ["a", "b"])


@pytest.mark.parametrize(
    ("content", "message"), [("{oops\n", "row 1"), ("[1]\n", "list"), ('{"title": "x"}\n', "text"), (b"\xff\n", "row 1")]
)
def test_bad_rows_are_named(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=message):
        list(JsonlCorpus(path))


def test_what_is_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match="nowhere"):
        open_corpus(tmp_path / "nowhere.jsonl")
    (tmp_path / "c.csv").write_text("x")
    for source in (tmp_path / "c.csv", 5, None, ["text"]):
        with pytest.raises(ConfigError, match=r"Expected a corpus"):
            open_corpus(source)


def test_one_split_of_a_dataset_is_needed() -> None:
    import datasets

    splits = datasets.DatasetDict({"train": datasets.Dataset.from_list(rows(PASSAGES))})
    with pytest.raises(ConfigError, match="train"):
        open_corpus(splits)


passages = st.lists(st.builds(Passage, st.text(max_size=3), st.text(max_size=3), st.text(max_size=3)), max_size=4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(passages, passages)
def test_fingerprint_follows_content(one: list[Passage], other: list[Passage]) -> None:
    assert (MemoryCorpus(one).fingerprint == MemoryCorpus(other).fingerprint) == (one == other)


def test_fingerprint_takes_lone_surrogates() -> None:
    assert MemoryCorpus([Passage("a", "", "\ud800")]).fingerprint != MemoryCorpus([Passage("a", "", "?")]).fingerprint


def test_a_changed_file_has_a_new_fingerprint_though_size_and_time_stay(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    seen = []
    for letter in "abc":
        path.write_text(json.dumps({"id": letter, "text": letter}))
        os.utime(path, (1_000_000_000, 1_000_000_000))
        seen.append(JsonlCorpus(path).fingerprint)
        assert JsonlCorpus(path).fingerprint == seen[-1]
    assert len(set(seen)) == 3


def test_the_fingerprint_of_a_settled_file_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_jsonl(tmp_path / "c.jsonl", rows(PASSAGES))
    fresh = file_fingerprint(path)
    assert not (cache_root() / "fingerprints").exists(), "it was written this very moment and may change unseen"
    monkeypatch.setattr("swirl_env.cache._SETTLED_NS", -1)
    assert file_fingerprint(path) == fresh
    (note,) = (cache_root() / "fingerprints").iterdir()
    note.write_text("0" * 32)
    assert file_fingerprint(path) == "0" * 32, "read from the note"
    note.write_text("garbage")
    assert file_fingerprint(path) == fresh


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SWIRL_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr("swirl_env.cache._SETTLED_NS", -1)
    assert len(file_fingerprint(write_jsonl(tmp_path / "c.jsonl", rows(PASSAGES)))) == 32


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_root("given") == Path("given")
    assert cache_root() == tmp_path / "cache"
    monkeypatch.delenv("SWIRL_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "swirl-env"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache" / "swirl-env"


@pytest.mark.parametrize("content", [b"", b"PAR1 not really"])
def test_a_damaged_parquet_file_is_named(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "c.parquet").write_bytes(content)
    with pytest.raises(ConfigError, match=r"c\.parquet: expected a Parquet file"):
        len(open_corpus(tmp_path / "c.parquet"))
