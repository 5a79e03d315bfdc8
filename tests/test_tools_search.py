"""Search: rankings against the formulas and against bm25s, and what queries of any kind get."""

import json
import math
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import PLAIN_TERMS, corpus_of
from swirl_env.corpus import MemoryCorpus
from swirl_env.errors import ConfigError, UnknownName
from swirl_env.protocols import Tool
from swirl_env.registry import make_tool
from swirl_env.tools.search.text import ENGLISH_STOP_WORDS, Analyzer
from swirl_env.tools.search.tool import Search
from swirl_env.types import Passage

pytestmark = pytest.mark.usefixtures("own_cache")
WORDS = ["ash", "birch", "cedar", "elm", "fir", "oak", "pine"]


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
def test_ranking_agrees_with_the_formulas(texts: Any, word_lists: Any, method: Any, k1: float, b: float, top_k: int) -> None:
    corpus = MemoryCorpus([Passage(str(i), "", " ".join(text)) for i, text in enumerate(texts)])
    tool = Search(corpus=corpus, method=method, k1=k1, b=b, top_k=top_k, title_weight=0, **PLAIN_TERMS)
    for query, result in zip(word_lists, tool.run([" ".join(query) for query in word_lists]), strict=True):
        expected = oracle(texts, query, method, k1, b)
        hits = [int(i) for i in result.data["ids"]]
        scores = result.data["scores"]
        assert len(hits) == len(set(hits)) == min(top_k, len(expected))
        assert scores == pytest.approx([expected[i] for i in hits], rel=1e-5)
        best = sorted(expected.values(), reverse=True)[: len(hits)]
        assert scores == pytest.approx(best, rel=1e-5)
        ranks = list(zip([-s for s in scores], hits, strict=True))
        assert ranks == sorted(ranks), "score falling, then position rising"


@settings(max_examples=20, deadline=None)
@given(documents, queries, st.integers(1, 6), st.sampled_from(["lucene", "bm25l", "bm25+"]))
def test_numba_numpy_batches_and_single_queries_give_the_same_bits(texts: Any, word_lists: Any, top_k: int, method: Any) -> None:
    pytest.importorskip("numba")
    corpus = MemoryCorpus([Passage(str(i), "", " ".join(text)) for i, text in enumerate(texts)])
    plain = Search(corpus=corpus, top_k=top_k, numba="off", method=method)
    compiled = Search(corpus=corpus, top_k=top_k, numba="on", method=method)
    lines = [" ".join(query) for query in word_lists]
    batch = plain.run(lines)
    assert batch == compiled.run(lines)
    assert batch == [plain.run([line])[0] for line in lines]
    assert batch == plain.run(lines[::-1])[::-1]
    for line, result in zip(lines, batch, strict=True):
        assert plain.run([" ".join(reversed(line.split()))]) == [result], "the order of words makes no difference"


def test_numba_takes_over_after_many_queries_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.setattr("swirl_env.tools.search.index._LARGE", 10)
    monkeypatch.setattr("swirl_env.tools.search.index._WARM", 5)
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
    tool = Search(corpus=corpus_of(*map(" ".join, texts)), method=method, k1=1.2, b=0.7, top_k=3, title_weight=0, **PLAIN_TERMS)
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
        *["it", "at", "t", "well", "known", "u", "s", "cafe"]
    ]
    assert Analyzer("whitespace", "none", "none").terms("It's, The end.") == ["it's,", "the", "end."]
    assert len(ENGLISH_STOP_WORDS) == 33 and not terms(" ".join(ENGLISH_STOP_WORDS).title())


@pytest.mark.parametrize(
    ("options", "error", "message"),
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
def test_senseless_options_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_tool("search", **{"corpus": corpus_of("x"), **options})
