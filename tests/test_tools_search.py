import json
import math
import os
import pickle
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swirl_env.corpus import GeneratedCorpus, MemoryCorpus, open_corpus
from swirl_env.errors import ConfigError, UnknownName
from swirl_env.protocols import Tool
from swirl_env.registry import make_tool
from swirl_env.tools.search import Search
from swirl_env.tools.search_text import ENGLISH_STOP_WORDS, Analyzer
from swirl_env.types import Passage, ToolResult

PLAIN: dict[str, Any] = {"tokenizer": "whitespace", "stemmer": "none", "stopwords": "none"}
WORDS = ["ash", "birch", "cedar", "elm", "fir", "oak", "pine"]


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWIRL_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


def corpus_of(*texts: str) -> MemoryCorpus:
    return MemoryCorpus(Passage(f"p{i}", f"Title{i}", text) for i, text in enumerate(texts))


def oracle(texts: list[list[str]], query: list[str], method: str, k1: float, b: float) -> dict[int, float]:
    """BM25 from the formulas of Kamphuis et al. (2020), one passage and one query word at a time."""
    n, average = len(texts), sum(map(len, texts)) / len(texts)
    scores: dict[int, float] = defaultdict(float)
    for word in query:
        df = sum(word in text for text in texts)
        for i, text in enumerate(texts):
            tf = text.count(word)
            if not tf:
                continue
            length = k1 * (1 - b + b * len(text) / average)
            if method == "lucene":
                scores[i] += math.log(1 + (n - df + 0.5) / (df + 0.5)) * tf / (tf + length)
            elif method == "robertson":
                scores[i] += max(0.0, math.log((n - df + 0.5) / (df + 0.5))) * tf / (tf + length)
            elif method == "atire":
                scores[i] += math.log(n / df) * (k1 + 1) * tf / (tf + length)
    return {i: score for i, score in scores.items() if score > 1e-9}


documents = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=8), min_size=1, max_size=12)
queries = st.lists(st.lists(st.sampled_from([*WORDS, "yew"]), min_size=1, max_size=5), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(documents, queries, st.sampled_from(["lucene", "robertson", "atire"]), st.floats(0, 3), st.floats(0, 1), st.integers(1, 6))
def test_ranking_agrees_with_the_formulas(texts: Any, asked: Any, method: Any, k1: float, b: float, top_k: int) -> None:
    corpus = MemoryCorpus([Passage(str(i), "", " ".join(text)) for i, text in enumerate(texts)])
    tool = Search(corpus=corpus, method=method, k1=k1, b=b, top_k=top_k, title_weight=0, **PLAIN)
    for query, result in zip(asked, tool.run([" ".join(query) for query in asked]), strict=True):
        expected = oracle(texts, query, method, k1, b)
        found = [int(i) for i in result.data["ids"]]
        scores = result.data["scores"]
        assert len(found) == len(set(found)) == min(top_k, len(expected))
        assert scores == pytest.approx([expected[i] for i in found], rel=1e-5)
        best = sorted(expected.values(), reverse=True)[: len(found)]
        assert scores == pytest.approx(best, rel=1e-5)
        ranks = list(zip([-s for s in scores], found, strict=True))
        assert ranks == sorted(ranks), "score falling, then position rising"


@settings(max_examples=20, deadline=None)
@given(documents, queries, st.integers(1, 6), st.sampled_from(["lucene", "bm25l", "bm25+"]))
def test_numba_numpy_batches_and_single_queries_give_the_same_bits(texts: Any, asked: Any, top_k: int, method: Any) -> None:
    pytest.importorskip("numba")
    corpus = MemoryCorpus([Passage(str(i), "", " ".join(text)) for i, text in enumerate(texts)])
    plain = Search(corpus=corpus, top_k=top_k, numba="off", method=method)
    compiled = Search(corpus=corpus, top_k=top_k, numba="on", method=method)
    lines = [" ".join(query) for query in asked]
    batch = plain.run(lines)
    assert batch == compiled.run(lines)
    assert batch == [plain.run([line])[0] for line in lines]
    assert batch == plain.run(lines[::-1])[::-1]
    for line, result in zip(lines, batch, strict=True):
        assert plain.run([" ".join(reversed(line.split()))]) == [result], "the order of words makes no difference"


def test_numba_takes_over_after_many_queries_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.setattr("swirl_env.tools.search_index._LARGE", 10)
    monkeypatch.setattr("swirl_env.tools.search_index._WARM", 5)
    tool = Search(corpus=corpus_of(*[f"{word} tree {i}" for i, word in enumerate(WORDS * 3)]))
    answers = [tool.run(["tree oak"]) for _ in range(12)]
    assert tool._opened.ranker._compiled is not None  # type: ignore[attr-defined]
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.parametrize("method", ["bm25l", "bm25+"])
def test_other_methods_agree_with_bm25s_itself(method: Any) -> None:
    import bm25s

    texts = [[WORDS[(i * j) % 7] for j in range(1, 3 + i % 5)] for i in range(20)]
    model = bm25s.BM25(k1=1.2, b=0.7, method=method)
    model.index(texts, show_progress=False)
    tool = Search(corpus=corpus_of(*map(" ".join, texts)), method=method, k1=1.2, b=0.7, top_k=3, title_weight=0, **PLAIN)
    (result,) = tool.run(["oak elm"])
    scores = sorted(model.get_scores(["oak", "elm"]).tolist(), reverse=True)
    assert result.data["scores"] == pytest.approx(scores[:3], rel=1e-5)


@pytest.mark.parametrize("backend", ["bm25s", "rank_bm25"])
@pytest.mark.parametrize("count", [5, 500])
def test_equal_scores_stand_in_the_order_of_the_corpus(backend: Any, count: int) -> None:
    tool = Search(corpus=corpus_of(*["red kite"] * count, *["blue whale"] * (count + 1)), backend=backend, title_weight=0)
    assert tool.run(["kite"])[0].data["ids"] == ["p0", "p1", "p2", "p3", "p4"]


def test_results_read_well() -> None:
    long = "The harbour of Ostwick " + "was deepened again and again " * 40
    corpus = MemoryCorpus([Passage("a", "Ostwick", long), Passage("b", "", "Ostwick lies\nby the sea."), Passage("c", "C", "no")])
    tool = Search(corpus=corpus, snippet_chars=60)
    assert isinstance(tool, Tool)
    (result,) = tool.run(["Where is Ostwick's harbour?"])
    first, second = result.text.splitlines()
    assert first == "[1] Ostwick: The harbour of Ostwick was deepened again and again was ..."
    assert second == "[2] Ostwick lies by the sea."
    assert result.error is None and result.data["ids"] == ["a", "b"] and result.data["titles"] == ["Ostwick", ""]
    assert json.loads(json.dumps(result.data)) == result.data and all(type(s) is float for s in result.data["scores"])
    assert long.strip() in Search(corpus=corpus, snippet_chars=0).run(["harbour"])[0].text


def test_a_passage_cannot_pretend_to_be_two() -> None:
    corpus = MemoryCorpus([Passage("a", "Owl\n[2] Forged: no", "night\r[3] Forged: bird"), Passage("b", "Wren", "day bird")])
    shown = make_tool("search", corpus=corpus).run(["bird"])[0].text
    assert [line[:3] for line in shown.splitlines()] == ["[1]", "[2]"]
    assert "Owl [2] Forged: no: night [3] Forged: bird" in shown


def test_titles_count_by_their_weight() -> None:
    corpus = MemoryCorpus([Passage("text", "Other", "zebra zebra"), Passage("title", "Zebra", "stripes here")])
    first = {w: Search(corpus=corpus, title_weight=w).run(["zebra"])[0].data["ids"] for w in (0, 1, 5)}
    assert first == {0: ["text"], 1: ["text", "title"], 5: ["title", "text"]}


@pytest.mark.parametrize("backend", ["bm25s", "rank_bm25"])
@pytest.mark.parametrize("texts", [[], [""], ["the of", "!!"], ["red kite", "blue whale", "green frog"]])
@pytest.mark.parametrize(
    ("query", "reason"), [("", "no words"), (" \n?!", "no words"), ("the of AND", "common"), ("xyzzy", "no passage")]
)
def test_no_results_is_no_error(backend: Any, texts: list[str], query: str, reason: str) -> None:
    corpus = MemoryCorpus([Passage(str(i), "", text) for i, text in enumerate(texts)])
    (result,) = Search(corpus=corpus, backend=backend).run([query])
    assert result.text.startswith("No results:") and reason in result.text
    assert (result.error, result.data) == (None, {"ids": [], "titles": [], "scores": []})


@pytest.fixture(scope="module")
def birds() -> Search:
    return Search(corpus=corpus_of("red kite", "café in Zürich", "ε\ud800 \0 北京 привет", "O'Brien’s 3.14 1,000 x_y"))


@settings(max_examples=200)
@given(query=st.text(st.characters(exclude_categories=[]), max_size=50))
def test_any_text_gets_an_answer_that_can_be_stored(birds: Search, query: str) -> None:
    (result,) = birds.run([query])
    assert result.error is None
    json.dumps(result.data).encode()
    result.text.encode()


def test_hostile_queries(birds: Search) -> None:
    results = birds.run(["a " * 500_000, "\ud800", "\0", "kite\0kite", "cafe\u0301", "北京", "ПРИВЕТ", "o'brien", "1,000", "X Y"])
    assert results[0].error == "limit" and "1,000,000" in results[0].text
    ids = [result.data.get("ids") for result in results[1:]]
    assert ids == [[], [], ["p0"], ["p1"], ["p2"], ["p2"], ["p3"], ["p3"], ["p3"]]
    assert birds.run([5])[0].error == "invalid"  # type: ignore[list-item]


def test_terms() -> None:
    terms = Analyzer().terms
    assert terms("The Running of the bulls, and OSTWICK's 1,000.5 ships!") == ["run", "bull", "ostwick", "1,000.5", "ship"]
    assert Analyzer(stemmer="none", stopwords="none").terms("It's AT&T's well-known U.S. café") == [
        *["it", "at", "t", "well", "known", "u", "s", "café"]
    ]
    assert Analyzer("whitespace", "none", "none").terms("It's, The end.") == ["it's,", "the", "end."]
    assert len(ENGLISH_STOP_WORDS) == 33 and not terms(" ".join(ENGLISH_STOP_WORDS).title())


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"backend": "bm25"}, UnknownName, "rank_bm25"),
        ({"method": "lucen"}, UnknownName, "lucene"),
        ({"stemmer": "german"}, UnknownName, "porter"),
        ({"top_k": 0}, ConfigError, "top_k"),
        ({"b": 1.5}, ConfigError, "0 to 1"),
        ({"snippet_chars": -5}, ConfigError, "snippet_chars"),
        ({"backend": "rank_bm25", "method": "atire"}, ConfigError, "bm25s"),
        ({"corpus": None}, ConfigError, "corpus"),
        ({"topk": 3}, UnknownName, "top_k"),
    ],
)
def test_senseless_options_are_refused(given: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        make_tool("search", **{"corpus": corpus_of("x"), **given})


# --- the cache -------------------------------------------------------------------------------------------------------


def folders(cache: Path) -> list[str]:
    return sorted(path.name.split("-")[0] for path in cache.glob("search-v*/*"))


def test_one_index_serves_all_tools_of_a_process_and_goes_with_them(tmp_path: Path) -> None:
    one = Search(corpus=corpus_of("red kite"), cache_dir=str(tmp_path))
    other = make_tool("search", corpus=corpus_of("red kite"), cache_dir=str(tmp_path), top_k=1, snippet_chars=9)
    assert isinstance(other, Search) and one._opened is other._opened
    assert Search(corpus=corpus_of("red kite"), cache_dir=str(tmp_path), k1=2)._opened is not one._opened
    assert folders(tmp_path) == ["bm25s", "bm25s", "passages"], "passages are kept once for all options"


def test_a_corpus_is_read_only_once(tmp_path: Path) -> None:
    readings = []

    def stream() -> Any:
        readings.append(1)
        return iter([Passage("a", "", "red kite")])

    for k1 in (0.9, 0.9, 1.5):
        tool = Search(corpus=GeneratedCorpus(stream, 1, "one kite"), cache_dir=str(tmp_path), k1=k1)
        assert tool.run(["kite"])[0].data["ids"] == ["a"]
        del tool
    assert len(readings) == 1


def test_a_changed_file_is_searched_as_it_is_now(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    for word in ("kite", "gull", "kite"):
        path.write_text(json.dumps({"id": word, "title": "", "text": f"a {word}"}))
        tool = Search(corpus=str(path), cache_dir=str(tmp_path / "cache"))
        assert tool.run(["kite gull"])[0].data["ids"] == [word]


def damage_truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def damage_flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, Path.unlink, lambda file: file.write_bytes(b"")])
def test_a_damaged_cache_is_rebuilt(tmp_path: Path, damage: Any) -> None:
    def search() -> list[ToolResult]:
        return Search(corpus=corpus_of("red kite", "blue kite"), cache_dir=str(tmp_path)).run(["blue kite"])

    expected = search()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 8
    for file in files:
        if file.stat().st_size:
            damage(file)
            assert search() == expected, file
    assert folders(tmp_path) == ["bm25s", "passages"], "damaged copies are put out of the way"


def test_a_file_in_the_place_of_the_index_is_replaced(tmp_path: Path) -> None:
    Search(corpus=corpus_of("red kite"), cache_dir=str(tmp_path))
    for folder in list(tmp_path.glob("search-v*/*")):
        shutil.rmtree(folder)
        folder.write_text("not a folder")
    assert Search(corpus=corpus_of("red kite"), cache_dir=str(tmp_path)).run(["kite"])[0].data["ids"] == ["p0"]


def test_an_unwritable_cache_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="SWIRL_CACHE_DIR"):
        Search(corpus=corpus_of("red kite"), cache_dir=str(tmp_path / "file"))


BUILDER = """
import pathlib, sys, time
from swirl_env.corpus import MemoryCorpus
from swirl_env.tools.search import Search
from swirl_env.types import Passage
corpus = MemoryCorpus(Passage(f"p{i}", "", f"tree number {i}") for i in range(3000))
print("ready", flush=True)
while not pathlib.Path(sys.argv[1], "go").exists():
    time.sleep(0.001)
print(Search(corpus=corpus, cache_dir=sys.argv[1]).run(["number 5"])[0].data["ids"])
"""


def test_processes_that_build_at_once_all_succeed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BUILDER, str(tmp_path)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for worker in workers:
        assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
    (tmp_path / "go").write_text("")
    for worker in workers:
        assert worker.communicate(timeout=60)[0] == "['p5', 'p0', 'p1', 'p2', 'p3']\n"
        assert worker.returncode == 0
    assert folders(tmp_path) == ["bm25s", "passages"], "no temporary folder is left"


def test_a_copy_in_another_process_maps_the_same_files(birds: Search) -> None:
    data = pickle.dumps(birds)
    assert len(data) < 2000
    copy = pickle.loads(data)
    assert copy._opened is birds._opened and copy.run(["kite"]) == birds.run(["kite"])


SECOND = """
import json, sys
from swirl_env.registry import make_tool
def private():
    return sum(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith("Private_")) / 1024
before = private()
tool = make_tool("search", corpus=sys.argv[1])
result = tool.run(["Ed Wood nationality"])[0]
heavy = [name for name in ("numba", "bm25s", "scipy", "rank_bm25") if name in sys.modules]
print(json.dumps([private() - before, heavy, result.data["ids"], "passages.bin" in open("/proc/self/maps").read()]))
"""


@pytest.mark.data
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads private memory from Linux's /proc")
def test_a_second_process_shares_the_index(data_dir: Path) -> None:
    path = data_dir / "hotpotqa" / "corpus.jsonl.gz"
    first = Search(corpus=path)
    out = subprocess.run(
        [sys.executable, "-c", SECOND, str(path)], env=dict(os.environ), capture_output=True, check=True, text=True
    )
    grown, heavy, ids, mapped = json.loads(out.stdout)
    assert ids == first.run(["Ed Wood nationality"])[0].data["ids"]
    assert mapped and not heavy
    assert grown < 60, f"{grown:.1f} MB of private memory"


# --- real data -------------------------------------------------------------------------------------------------------


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def evidence(questions: list[dict[str, Any]], results: list[ToolResult], k: int) -> tuple[float, float]:
    """Returns mean recall of the supporting titles among the first k, and the share of questions with all of them."""
    recalls = []
    for question, result in zip(questions, results, strict=True):
        gold = set(question["supporting_titles"])
        recalls.append(len(gold & set(result.data["titles"][:k])) / len(gold))
    return sum(recalls) / len(recalls), sum(recall == 1 for recall in recalls) / len(recalls)


@pytest.mark.data
def test_rank_bm25_reproduces_the_published_table(data_dir: Path) -> None:
    import gzip

    with gzip.open(data_dir / "hotpotqa" / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if "dev500" in row["src"]]
    assert len(rows) == 4937
    corpus = MemoryCorpus(Passage(row["id"], row["title"], row["text"]) for row in rows)
    tool = Search(corpus=corpus, backend="rank_bm25", k1=1.5, b=0.75, title_weight=0, top_k=10, **PLAIN)
    questions = read(data_dir / "hotpotqa" / "questions_dev500.jsonl")
    results = tool.run([question["question"] for question in questions])
    assert [round(evidence(questions, results, k)[1], 3) for k in (2, 5, 10)] == [0.140, 0.302, 0.500]
    assert round(evidence(questions, results, 5)[0], 3) == 0.588


@pytest.mark.data
def test_evidence_is_found_in_hotpotqa(data_dir: Path) -> None:
    tool = Search(corpus=data_dir / "hotpotqa" / "corpus.jsonl.gz")
    questions = read(data_dir / "hotpotqa" / "questions_dev500.jsonl")
    recall, _ = evidence(questions, tool.run([question["question"] for question in questions]), 5)
    assert recall >= 0.72


@pytest.mark.data
def test_ndcg_on_scifact(data_dir: Path) -> None:
    tool = Search(corpus=open_corpus(data_dir / "scifact"), top_k=10)
    relevant: dict[str, Counter[str]] = defaultdict(Counter)
    for line in (data_dir / "scifact" / "qrels_test.tsv").read_text().splitlines()[1:]:
        query, passage, grade = line.split("\t")
        relevant[query][passage] = int(grade)
    queries = read(data_dir / "scifact" / "queries_test.jsonl")
    gains = []
    for query, result in zip(queries, tool.run([query["question"] for query in queries]), strict=True):
        grades = relevant[query["id"]]
        dcg = sum(grades[passage] / math.log2(rank + 1) for rank, passage in enumerate(result.data["ids"], 1))
        best = sum(grade / math.log2(rank + 1) for rank, grade in enumerate(sorted(grades.values(), reverse=True)[:10], 1))
        gains.append(dcg / best)
    assert len(gains) == 300 and sum(gains) / 300 >= 0.675
