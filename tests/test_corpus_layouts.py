"""The layouts in which collections of passages are shipped: DPR, FlashRAG and Search-R1, Atlas, MS MARCO, Parquet in parts."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swirl_env.corpus import TsvCorpus, open_corpus, stream_from
from swirl_env.errors import ConfigError, DataNotFound, UnknownName
from swirl_env.registry import make_tool
from swirl_env.types import Passage

pytestmark = pytest.mark.usefixtures("own_cache")

AARON = Passage("1", "Aaron", 'Aaron ( or ; "Ahärôn") is a prophet,\nhigh priest.')
EIFFEL = Passage("2", 'The "Iron Lady"', "The Eiffel Tower\tis 330 m tall.")
EMPTY = Passage("3", "", "No title here.")
PASSAGES = [AARON, EIFFEL, EMPTY]


def dpr(passages: list[Passage], **options: Any) -> bytes:
    """Returns a table as DPR's ``psgs_w100.tsv``: id, text, title, quotation marks doubled inside of fields that need them."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter="\t", **options)
    writer.writerow(["id", "text", "title"])
    writer.writerows([[p.id, p.text, p.title] for p in passages])
    return file.getvalue().encode()


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def flashrag(passage: Passage) -> dict[str, str]:
    """Returns a row as wiki18_100w.jsonl: the title in quotation marks on a line of its own in front of the text."""
    return {"id": passage.id, "contents": f'"{passage.title}"\n{passage.text}'}


def check(corpus: Any, passages: list[Passage] = PASSAGES) -> None:
    """Checks all ways to read a corpus."""
    assert list(corpus) == passages and len(corpus) == len(passages)
    assert [corpus[i] for i in range(len(passages))] == passages
    for start in range(len(passages) + 1):
        assert list(stream_from(corpus, start)) == passages[start:], start


@pytest.mark.parametrize("options", [{}, {"lineterminator": "\n"}, {"quoting": csv.QUOTE_ALL}])
@pytest.mark.parametrize("ending", [".tsv", ".tsv.gz"])
def test_dpr_tables(tmp_path: Path, options: dict[str, Any], ending: str) -> None:
    path = tmp_path / f"psgs_w100{ending}"
    data = dpr(PASSAGES, **options)
    path.write_bytes(gzip.compress(data) if ending == ".tsv.gz" else data)
    check(open_corpus(path))
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + data) if ending == ".tsv.gz" else b"\xef\xbb\xbf" + data)
    check(open_corpus(path))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.text(), st.text()).filter(lambda p: not set("".join(p)) & set("\r\x00\ud800")), max_size=5))
def test_dpr_tables_of_any_text(tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]) -> None:
    passages = [Passage(str(i), *pair) for i, pair in enumerate(pairs)]
    try:
        data = dpr(passages, lineterminator="\n")
    except UnicodeEncodeError:
        return
    path = tmp_path_factory.mktemp("tsv") / "c.tsv"
    path.write_bytes(data)
    check(open_corpus(path), passages)


def test_tables_without_header_or_quotation_marks(tmp_path: Path) -> None:
    path = tmp_path / "collection.tsv"
    path.write_text('0\t"Quoted" from the start\n1\tsecond "half\n')
    options = {"path": str(path), "columns": ["id", "text"], "quotes": False}
    check(open_corpus(options), [Passage("0", "", '"Quoted" from the start'), Passage("1", "", 'second "half')])
    with pytest.raises(ConfigError, match=r"expected a header.*columns="):
        list(open_corpus(path))
    with pytest.raises(ConfigError, match=r"row 1: expected 3 fields.*quotes=false"):
        list(open_corpus({"path": str(path), "columns": ["id", "text", "title"]}))


def test_flashrag_and_search_r1(tmp_path: Path) -> None:
    path = tmp_path / "wiki-18.jsonl"
    path.write_bytes(jsonl([flashrag(p) for p in PASSAGES]))
    check(open_corpus(path))
    with_title = [{"id": p.id, "title": p.title, "text": p.text, "contents": f"{p.title}\n{p.text}"} for p in PASSAGES]
    path.write_bytes(jsonl(with_title))
    check(open_corpus(path))
    path.write_bytes(jsonl([{"id": "1", "contents": "Aaron\na prophet"}, {"id": "2", "contents": "one line"}]))
    check(open_corpus(path), [Passage("1", "", "Aaron\na prophet"), Passage("2", "", "one line")])
    titled = open_corpus({"path": str(path), "title_line": True})
    check(titled, [Passage("1", "Aaron", "a prophet"), Passage("2", "", "one line")])
    assert titled.fingerprint != open_corpus(path).fingerprint, "other passages, another index"


def test_atlas_sections_and_own_columns(tmp_path: Path) -> None:
    path = tmp_path / "text-list-100-sec.jsonl"
    path.write_bytes(jsonl([{"id": "7", "title": "Aaron", "section": "Life", "text": "was a prophet"}]))
    check(open_corpus(path), [Passage("7", "Aaron", "was a prophet")])
    own = {"path": str(path), "title": "section", "id": "title"}
    check(open_corpus(own), [Passage("Aaron", "Life", "was a prophet")])
    with pytest.raises(ConfigError, match=r"row 1: expected a column 'name'; got the keys"):
        list(open_corpus({"path": str(path), "id": "name"}))
    with pytest.raises(ConfigError, match="expected a text under one of body"):
        list(open_corpus({"path": str(path), "text": "body"}))


def test_parquet_in_many_files(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"id": p.id, "url": "x", "title": p.title, "text": p.text} for p in PASSAGES]
    for number, part in enumerate((rows[:2], [], rows[2:])):
        schema = pa.schema([(name, pa.string()) for name in ("id", "url", "title", "text")])
        pq.write_table(pa.Table.from_pylist(part, schema=schema), tmp_path / f"train-0000{number}.parquet", row_group_size=1)
    check(open_corpus(str(tmp_path / "train-*.parquet")))
    check(open_corpus({"path": [tmp_path / f"train-0000{number}.parquet" for number in (0, 1, 2)]}))
    check(
        open_corpus({"path": str(tmp_path / "train-*.parquet"), "title": "url"}), [Passage(p.id, "x", p.text) for p in PASSAGES]
    )
    with pytest.raises(DataNotFound, match="match"):
        open_corpus(str(tmp_path / "test-*.parquet"))


def test_rows_of_many_files_without_ids_get_different_ones(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_bytes(jsonl([{"text": f"{name} one"}, {"text": f"{name} two"}]))
    assert [p.id for p in open_corpus(str(tmp_path / "*.jsonl"))] == ["a-0", "a-1", "b-0", "b-1"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"paht": "x"}, UnknownName, "path"),
        ({"path": 5}, ConfigError, "path or a list of paths"),
        ({"path": []}, ConfigError, "path or a list of paths"),
        ({"path": "c.tsv", "columns": "id"}, ConfigError, "a list of names"),
        ({"path": "c.tsv", "quotes": "no"}, ConfigError, "true or false"),
        ({"path": "c.tsv", "title": 3}, ConfigError, "name of a column"),
        ({"path": "nowhere.tsv"}, DataNotFound, "nowhere"),
    ],
)
def test_senseless_options_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_corpus(options)


def test_a_table_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.tsv").write_bytes(b"id\ttext\n1\t\xff\xfe\n")
    with pytest.raises(ConfigError, match=r"c\.tsv, byte 8: expected tab-separated UTF-8"):
        list(TsvCorpus(tmp_path / "c.tsv"))
    assert len(dpr([Passage("1", "", "x" * 300_000)])) > 131_072
    (tmp_path / "long.tsv").write_bytes(dpr([Passage("1", "", "x" * 300_000)]))
    assert len(next(iter(open_corpus(tmp_path / "long.tsv"))).text) == 300_000


def test_a_search_tool_takes_a_layout_from_the_command_line(tmp_path: Path, swirl: Any) -> None:
    path = tmp_path / "wiki.tsv"
    path.write_bytes(dpr(PASSAGES))
    (result,) = make_tool("search", corpus={"path": str(path), "title": "id"}).run(["prophet"])
    assert result.data["titles"] == ["1"]
    corpus = f"tool.search.corpus={{path: '{path}', title: id}}"
    code, _, err = swirl("generate", "task=atlas", "agent=scripted", "tool=[search]", corpus, "n=1", "out=run")
    assert code == 0, err
