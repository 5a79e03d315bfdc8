"""Building the search index in parts: the same bytes however it is cut or interrupted, the same scores as other engines."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import PLAIN_TERMS
from swirl_env.corpus import GeneratedCorpus, MemoryCorpus
from swirl_env.tools.search import build, storage
from swirl_env.tools.search.index import Bm25Index
from swirl_env.tools.search.text import Analyzer
from swirl_env.tools.search.tool import Search
from swirl_env.tools.search.words import END, DictTable, Table, join_words
from swirl_env.types import Passage

pytestmark = pytest.mark.usefixtures("own_cache")

TEXTS = ["The red kite's 3.14 nests", "café in Zürich, 1,000 m", "", "北京 O’Brien said", "of the and", "x_y ＿z a'b.c 4.5.6, d."]


def passages_of(count: int, seed: int = 0, words: int = 400) -> list[Passage]:
    """Passages of words whose frequencies fall as in natural text, some with other scripts."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, words + 1)
    texts = rng.choice(words, size=(count, 12), p=weights / weights.sum())
    return [
        Passage(
            f"p{i}", f"Title {row[0]}", " ".join(f"w{j}" for j in row[: 2 + i % 10]) + (" " + TEXTS[i % 6] if i % 7 == 0 else "")
        )
        for i, row in enumerate(texts.tolist())
    ]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def built(folder: Path, passages: list[Passage], **options: Any) -> dict[str, bytes]:
    """Returns the files of an index of passages."""
    (folder / "passages").mkdir(parents=True)
    (folder / "index").mkdir()
    storage.PassageStore.write(folder / "passages", MemoryCorpus(passages))
    build.build(folder / "index", storage.PassageStore(folder / "passages"), build.IndexOptions(**options))
    return files_of(folder / "index")


@pytest.mark.parametrize("method", ["lucene", "bm25l"])
def test_parts_of_any_size_and_compiled_loops_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Any
) -> None:
    passages = passages_of(100)
    whole = built(tmp_path / "whole", passages, method=method)
    assert set(whole) == {f"{name}.npy" for name in ("scores", "passages", "starts", "bounds", "absent", "count", "terms")} | {
        "terms.bin"
    }
    for words, block, letters, postings in [(60, 1, 1, 1), (200, 7, 1 << 20, 50), (500, 64, 300, 10_000)]:
        monkeypatch.setattr(build, "_WORDS", words)
        monkeypatch.setattr(build, "_PASSAGES", block)
        monkeypatch.setattr(build, "_LETTERS", letters)
        monkeypatch.setattr(build, "_POSTINGS", postings)
        assert built(tmp_path / f"cut{words}", passages, method=method) == whole
    pytest.importorskip("numba")
    monkeypatch.setattr(build, "_MANY", 1)
    assert build.load_compiled() is not None
    assert built(tmp_path / "compiled", passages, method=method) == whole


@pytest.mark.parametrize("method", ["lucene", "robertson", "atire", "bm25l", "bm25+"])
def test_a_sharded_index_scores_as_bm25s_does(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import bm25s

    monkeypatch.setattr(build, "_WORDS", 500)
    passages = passages_of(250, seed=1)
    tool = Search(corpus=passages, method=method, k1=1.2, b=0.7, top_k=250, title_weight=2)
    analyzer = Analyzer()
    model = bm25s.BM25(k1=1.2, b=0.7, method=method)
    terms = [analyzer.passage_terms(p.title) * 2 + analyzer.passage_terms(p.text) for p in passages]
    model.index(terms, show_progress=False)
    for query in ("w3 kite", "w1 w9 title w100 w100", "zurich 1,000 w7 b.c", "x y z"):
        known = [term for term in analyzer.terms(query) if term in model.vocab_dict]
        scores = model.get_scores(known)
        (result,) = tool.run([query])
        ids = [int(name[1:]) for name in result.data["ids"]]
        assert result.data["scores"] == pytest.approx(scores[ids].tolist(), rel=1e-5)
        if method in ("lucene", "robertson", "atire"):
            assert len(ids) == (scores > 0).sum()
        best = np.sort(scores)[::-1][: len(ids)]
        assert result.data["scores"] == pytest.approx(best.tolist(), rel=1e-5)


def test_a_sharded_index_ranks_as_rank_bm25_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """With terms that less than half of the passages hold, Okapi is Robertson's formula times k1 + 1."""
    monkeypatch.setattr(build, "_WORDS", 100)
    passages = [Passage(p.id, "", p.text.removeprefix("w0 ").replace("w0", "x")) for p in passages_of(200, seed=2, words=2_000)]
    options: dict[str, Any] = {"corpus": passages, "k1": 1.5, "b": 0.75, "title_weight": 0, "top_k": 50, **PLAIN_TERMS}
    ours, reference = Search(method="robertson", **options), Search(backend="rank_bm25", **options)
    for query in ("w5 w9", "w20 w30 w2", "w11 w300 w11"):
        a, b = ours.run([query])[0].data, reference.run([query])[0].data
        assert len(a["ids"]) > 3
        assert a["scores"] == pytest.approx([score / 2.5 for score in b["scores"]], rel=1e-5)
        rounded = [
            sorted(zip((round(-s, 4) for s in scores), ids, strict=True))
            for scores, ids in ((a["scores"], a["ids"]), ([s / 2.5 for s in b["scores"]], b["ids"]))
        ]
        assert [i for _, i in rounded[0]] == [i for _, i in rounded[1]]


def tables() -> list[Table]:
    compiled = build.load_compiled()
    return [DictTable()] + ([compiled.CompiledTable(0xFF)] if compiled is not None else [])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.text(max_size=12), st.one_of(st.text(max_size=60), st.text("aB1.,'_ \t\n\x00\x1fé北", max_size=60))),
        max_size=6,
    ),
    st.integers(0, 2),
    st.sampled_from(["words", "whitespace"]),
)
def test_passages_fall_into_the_words_of_the_analyzer(texts: Any, title_weight: int, splitter: Any) -> None:
    texts = [tuple(part.encode("utf-8", "replace") for part in pair) for pair in texts]
    analyzer = Analyzer(splitter)
    expected = [analyzer.split(title.decode()) * title_weight + analyzer.split(text.decode()) for title, text in texts]
    for table in tables():
        numbers = table.number(join_words(texts, analyzer, title_weight)).tolist()
        words = [word.decode("utf-8", "surrogatepass") for word in table.words()]
        assert len(set(words)) == len(words)
        split = [list(group) for is_end, group in itertools.groupby(numbers, lambda n: n == END) if not is_end]
        assert numbers.count(END) == len(texts)
        assert [[words[n] for n in own] for own in split] == [own for own in expected if own]


def test_a_compiled_table_grows() -> None:
    pytest.importorskip("numba")
    compiled = build.load_compiled()
    words = [f"word{i}".encode() for i in range(70_000)] + [b"x" * 3_000_000, b"word5"]
    table = compiled.CompiledTable(0xFF)
    numbers = table.number(np.frombuffer(b" ".join(words), np.uint8))
    assert numbers.tolist() == [*range(70_001), 5] and table.words() == words[:-1]


def test_longer_lists_are_only_looked_up_and_the_ranking_stays_exact() -> None:
    passages = passages_of(4_000, seed=3, words=3_000)
    tools = [Search(corpus=passages, top_k=5, numba="off")]
    if build.load_compiled() is not None:
        tools.append(Search(corpus=passages, top_k=5, numba="on"))
    whole = Search(corpus=passages, top_k=4_000, numba="off")
    index = tools[0]._opened.ranker
    assert isinstance(index, Bm25Index)
    pruned = []
    add_rest = index._add_rest
    index._add_rest = lambda *a: pruned.append(1) or add_rest(*a)  # type: ignore[method-assign,assignment,return-value,func-returns-value]
    rng = np.random.default_rng(0)
    queries = [" ".join(passages[i].text.split()[:8]) for i in rng.integers(0, 4_000, 150)]
    queries += ["w1 w2 w3 w900", "w0", "w0 w1 title kite", "w7 w7 w7 w1"]
    expected = [result.data for result in whole.run(queries)]
    for tool in tools:
        for wanted, result in zip(expected, tool.run(queries), strict=True):
            assert result.data["ids"] == wanted["ids"][:5] and result.data["scores"] == wanted["scores"][:5]
    assert len(pruned) > 50


def stream(passages: list[Passage], starts: list[int], stop: int | None = None) -> GeneratedCorpus:
    """A corpus that notes where its streams start, and is interrupted before the passage `stop`."""

    def item(i: int) -> Passage:
        if i == stop:
            raise KeyboardInterrupt
        return passages[i]

    corpus = GeneratedCorpus(lambda: map(item, range(len(passages))), len(passages), "interrupted", item)
    original = corpus.stream_from
    corpus.stream_from = lambda start: starts.append(start) or original(start)  # type: ignore[method-assign,assignment,return-value,func-returns-value]
    return corpus


def test_copying_passages_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_CHUNK", 100)
    monkeypatch.setattr(storage, "_TOGETHER", 10)
    passages, starts = passages_of(950), list[int]()
    for stop in (333, 785):
        with pytest.raises(KeyboardInterrupt):
            Search(corpus=stream(passages, starts, stop), cache_dir=str(tmp_path))
    tool = Search(corpus=stream(passages, starts), cache_dir=str(tmp_path))
    assert starts == [300, 700]
    assert list(tool._opened.passages) == passages
    assert not list(tmp_path.glob("search-v*/.building-*"))


def test_an_interrupted_copy_whose_files_are_too_short_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_CHUNK", 100)
    monkeypatch.setattr(storage, "_TOGETHER", 10)
    passages, starts = passages_of(250), list[int]()
    with pytest.raises(KeyboardInterrupt):
        Search(corpus=stream(passages, starts, 240), cache_dir=str(tmp_path))
    (content,) = tmp_path.glob("search-v*/.building-*/passages.bin")
    os.truncate(content, 5)
    assert list(Search(corpus=stream(passages, starts), cache_dir=str(tmp_path))._opened.passages) == passages
    assert starts == []


KILLED = """
import os, signal, sys
from swirl_env.tools.search import build
from swirl_env.tools.search.tool import Search
from test_tools_search_build import passages_of
build._WORDS, build._PASSAGES = 400, 16
write, parts = build._write_part, []
def counting(target, *rest):
    if len(parts) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    parts.append(target)
    write(target, *rest)
build._write_part = counting
Search(corpus=passages_of(300), cache_dir=sys.argv[1])
"""


def test_a_killed_build_goes_on_with_its_next_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    child = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment, check=False)
    assert child.returncode == -signal.SIGKILL
    written: list[str] = []
    write = build._write_part
    monkeypatch.setattr(build, "_WORDS", 400)
    monkeypatch.setattr(build, "_PASSAGES", 16)
    monkeypatch.setattr(build, "_write_part", lambda target, *rest: written.append(target.name) or write(target, *rest))
    Search(corpus=passages_of(300), cache_dir=str(tmp_path))
    assert written[0] == "000004" and len(written) > 2
    (index,) = tmp_path.glob("search-v*/bm25-*")
    own = files_of(index)
    del own["manifest.json"]
    assert own == built(tmp_path / "whole", passages_of(300))


def test_a_build_killed_while_it_removes_its_parts_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remove = shutil.rmtree

    def killed(folder: Path, **options: Any) -> None:
        if (half := Path(folder) / "000000" / "starts").exists():
            half.unlink()
            raise KeyboardInterrupt
        remove(folder, **options)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            Search(corpus=passages_of(300), cache_dir=str(tmp_path))
    Search(corpus=passages_of(300), cache_dir=str(tmp_path))
    (index,) = tmp_path.glob("search-v*/bm25-*")
    own = files_of(index)
    del own["manifest.json"]
    assert own == built(tmp_path / "whole", passages_of(300))


def test_a_build_that_cannot_be_finished_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[Passage]:
        yield Passage("a", "", "kite")
        raise ValueError("row 2 is odd")

    with pytest.raises(ValueError, match="row 2"):
        Search(corpus=GeneratedCorpus(broken, 2, "broken"), cache_dir=str(tmp_path))
    assert not list(tmp_path.glob("search-v*/*"))
