"""Outside search engines: a retriever behind HTTP, tantivy, Qdrant, Lucene; a failed engine is never an empty result."""

import json
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fakes import corpus_of
from swirl_env.contract import assert_contract
from swirl_env.errors import ConfigError, DataNotFound, MissingExtra
from swirl_env.registry import make_tool
from swirl_env.tools.search.engines.lucene import check_java
from swirl_env.types import SEARCH

pytestmark = pytest.mark.usefixtures("own_cache")

ROWS = [
    {"id": "a", "contents": '"Red ""Kite"""\nThe red kite is a bird of prey.'},
    {"id": "b", "title": "Gull", "text": "A gull\nis a sea bird."},
    {"id": "c", "contents": "No title here, but a bird."},
]
EMPTY = {"ids": [], "titles": [], "scores": []}


class Retriever:
    """A server on loopback that speaks Search-R1's protocol over three passages, ranked by how many of the words they hold.

    Args:
        answer: from the number of a request and its body to what is sent in place of the answer: a status, bytes, or None.
        scores: whether the answers hold scores.
    """

    def __init__(self, answer: Callable[[int, Any], Any] = lambda n, body: None, scores: bool = True) -> None:
        self.bodies: list[Any] = []
        self.keys: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.bodies.append(body)
                outer.keys.append(self.headers.get("Authorization"))
                special = answer(len(outer.bodies) - 1, body)
                data = special if isinstance(special, bytes) else json.dumps({"result": outer.results(body, scores)}).encode()
                try:
                    self.send_response(special if isinstance(special, int) else 200)
                    self.end_headers()
                    self.wfile.write(data)
                except BrokenPipeError:
                    pass

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/retrieve"

    def results(self, body: Any, scores: bool) -> list[Any]:
        return [self.rank(query, body["topk"], scores) for query in body["queries"]]

    def rank(self, query: str, k: int, scores: bool) -> list[Any]:
        counts = [sum(word in json.dumps(row).lower() for word in query.lower().split()) for row in ROWS]
        best = sorted((i for i in range(3) if counts[i]), key=lambda i: (-counts[i], i))[:k]
        return [{"document": ROWS[i], "score": counts[i] / 2} if scores else ROWS[i] for i in best]

    def __enter__(self) -> "Retriever":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swirl_env.tools.search.engines.http._PAUSE_S", 0.0)


def test_an_http_retriever_is_asked_in_batches_and_read_as_it_answers() -> None:
    with Retriever() as server:
        tool = make_tool("search_http", url=server.url, top_k=2, batch_size=2)
        results = tool.run(["red bird", "gull", "xyzzy", "?!", "", "sea bird"])
        assert tool.tag == SEARCH
        assert [body["queries"] for body in server.bodies] == [["red bird", "gull"], ["xyzzy", "sea bird"]]
        assert all(body["topk"] == 2 and body["return_scores"] is True for body in server.bodies)
        assert results == [tool.run([query])[0] for query in ["red bird", "gull", "xyzzy", "?!", "", "sea bird"]]
    assert results[0].data == {"ids": ["a", "b"], "titles": ['Red "Kite"', "Gull"], "scores": [1.0, 0.5]}
    assert results[0].text == '[1] Red "Kite": The red kite is a bird of prey.\n[2] Gull: A gull is a sea bird.'
    assert results[1].data["ids"] == ["b"]
    for nothing in (2, 3, 4):
        assert results[nothing].error is None and results[nothing].data == EMPTY and "No results" in results[nothing].text


def test_answers_without_scores_keep_their_order() -> None:
    with Retriever(scores=False) as server:
        (result,) = make_tool("search_http", url=server.url).run(["bird"])
    assert result.data["ids"] == ["a", "b", "c"] and result.data["scores"] == sorted(result.data["scores"], reverse=True)


def test_a_key_is_sent_and_never_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIEVER_KEY", "s3cret")
    with Retriever() as server:
        tool = make_tool("search_http", url=server.url, api_key_env="RETRIEVER_KEY")
        assert tool.run(["gull"])[0].data["ids"] == ["b"]
        assert server.keys == ["Bearer s3cret"] and b"s3cret" not in pickle.dumps(tool)
    monkeypatch.delenv("RETRIEVER_KEY")
    with pytest.raises(ConfigError, match="RETRIEVER_KEY"):
        make_tool("search_http", url="http://127.0.0.1:1/retrieve", api_key_env="RETRIEVER_KEY")


BAD = [
    b"not json",
    b"\xff\xfe",
    b"[]",
    b"{}",
    b'{"result": null}',
    b'{"result": []}',
    b'{"result": [[], [], []]}',
    b'{"result": [5]}',
    b'{"result": [[5]]}',
    b'{"result": [[{"document": {"id": "a"}, "score": 1}]]}',
    b'{"result": [[{"document": {"text": "x"}, "score": "high"}]]}',
    b'{"result": [[{"document": {"text": "x"}, "score": 1e999}]]}',
    b'{"result": [[{"document": {"text": "x"}, "score": true}]]}',
    400,
    404,
    500,
    503,
]


@pytest.mark.parametrize("answer", BAD, ids=[str(answer) for answer in BAD])
@pytest.mark.usefixtures("quick")
def test_a_retriever_that_fails_is_unavailable(answer: Any) -> None:
    with Retriever(lambda n, body: answer) as server:
        (result,) = make_tool("search_http", url=server.url, retries=1).run(["gull"])
        assert result.error == "unavailable" and result.data == {} and "No results" not in result.text
        assert len(server.bodies) == (2 if answer in (500, 503) else 1), "only what may pass is asked again"


@pytest.mark.usefixtures("quick")
def test_a_server_that_nobody_answers_at_is_unavailable_and_a_slow_one_times_out() -> None:
    with Retriever() as server:
        url = server.url
    assert [r.error for r in make_tool("search_http", url=url, retries=1).run(["gull", "kite"])] == ["unavailable"] * 2
    with Retriever(lambda n, body: time.sleep(0.4)) as server:
        tool = make_tool("search_http", url=server.url, timeout_s=0.1)
        assert [r.error for r in tool.run(["gull", "kite"])] == ["timeout"] * 2 and len(server.bodies) == 1


@pytest.mark.usefixtures("quick")
def test_a_busy_server_is_asked_again_and_one_bad_query_spoils_no_batch() -> None:
    with Retriever(lambda n, body: 503 if n < 2 else None) as server:
        assert make_tool("search_http", url=server.url).run(["gull"])[0].data["ids"] == ["b"]
    with Retriever(lambda n, body: 400 if "boom" in " ".join(body["queries"]) else None) as server:
        results = make_tool("search_http", url=server.url).run(["gull", "boom", "sea bird"])
    assert [r.error for r in results] == [None, "unavailable", None] and results[2].data["ids"][0] == "b"


@pytest.mark.parametrize(
    "options", [{"url": "ftp://x/y"}, {"url": "localhost:8000"}, {"url": 5}, {"timeout_s": 0}, {"retries": -1}]
)
def test_senseless_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="Expected"):
        make_tool("search_http", **{"url": "http://127.0.0.1:1/retrieve", **options})


def test_the_http_tool_keeps_the_contract_of_tools() -> None:
    with Retriever() as server:
        assert_contract("tool", "search_http", url=server.url)


def test_an_environment_runs_on_an_http_retriever_by_configuration(swirl: Any, tmp_path: Path) -> None:
    with Retriever() as server:
        words = ["task=atlas", "agent=scripted", "tool=[search_http]", f"tool.search_http.url={server.url}", "n=2", "out=run"]
        code, _, err = swirl("generate", *words)
        assert code == 0, err
        assert server.bodies
    calls = [
        step["result"].get("error")
        for line in (tmp_path / "run" / "trajectories").rglob("*.jsonl")
        for row in map(json.loads, line.read_text().splitlines())
        for step in row.get("steps", [])
        if step.get("result")
    ]
    assert calls and set(calls) == {None}


@pytest.fixture
def tantivy_tool() -> Callable[..., Any]:
    pytest.importorskip("tantivy")
    return lambda *texts, **options: make_tool("search_tantivy", corpus=corpus_of(*texts), **options)


def test_tantivy_ranks_the_passages(tantivy_tool: Callable[..., Any]) -> None:
    tool = tantivy_tool("a red kite over the sea", "kite kite", "北京 in spring", "", "the gull's café", top_k=3)
    results = tool.run(["Kites", "red sea", "北京", "the", "xyzzy", "CAFE gulls", "title2"])
    assert [r.data["ids"] for r in results] == [["p1", "p0"], ["p0"], ["p2"], [], [], ["p4"], ["p2"]]
    assert all(r.error is None for r in results) and results[0].text.startswith("[1] Title1: kite kite")
    assert pickle.loads(pickle.dumps(tool)).run(["red sea"]) == tool.run(["red sea"])


def test_tantivy_scores_are_its_own_bm25(tantivy_tool: Callable[..., Any]) -> None:
    """k1 = 1.2, b = 0.75, idf as Lucene's; lengths up to 40 words are exact in tantivy's byte."""
    import math

    texts = ["kite sea", "kite kite owl", "sea owl elk fox", "elk"]
    (result,) = tantivy_tool(*texts, title_weight=0).run(["kite sea"])
    average = sum(len(text.split()) for text in texts) / 4

    def score(text: str) -> float:
        total = 0.0
        for word in ("kite", "sea"):
            df, tf = sum(word in t.split() for t in texts), text.split().count(word)
            length = 1.2 * (1 - 0.75 + 0.75 * len(text.split()) / average)
            total += math.log(1 + (4 - df + 0.5) / (df + 0.5)) * 2.2 * tf / (tf + length)
        return total

    expected = {f"p{i}": score(text) for i, text in enumerate(texts) if score(text)}
    assert dict(zip(result.data["ids"], result.data["scores"], strict=True)) == pytest.approx(expected, rel=1e-5)


HOSTILE = [
    '"',
    "kite AND (",
    "*",
    "terms:kite",
    "kite~9",
    "\ud800 kite",
    "\0",
    "a^5 [1 TO 2]",
    "kite" * 400,
    "/x/",
    "+kite -kite",
]


def test_tantivy_reads_a_query_as_words(tantivy_tool: Callable[..., Any]) -> None:
    tool = tantivy_tool("red kite", "gull")
    assert all(result.error is None for result in tool.run(HOSTILE))
    assert [r.data["ids"] for r in tool.run(["terms:kite", "+kite -kite"])] == [["p0"], ["p0"]]


def test_tantivy_is_built_once_and_built_again_after_a_kill(tantivy_tool: Callable[..., Any], tmp_path: Path) -> None:
    tool = tantivy_tool("red kite", cache_dir=str(tmp_path))
    (folder,) = tmp_path.glob("search-v*/tantivy-*")
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert tantivy_tool("red kite", cache_dir=str(tmp_path)).run(["kite"]) == tool.run(["kite"])
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    left = folder.with_name(f".building-{folder.name}")
    folder.rename(left)
    (left / "manifest.json").unlink()
    assert tantivy_tool("red kite", cache_dir=str(tmp_path)).run(["kite"]) == tool.run(["kite"])


def test_tantivy_keeps_the_contract_of_tools(tantivy_tool: Callable[..., Any]) -> None:
    assert_contract("tool", "search_tantivy", corpus=corpus_of("red kite", "gull"))


@pytest.fixture(scope="module")
def qdrant_tool() -> Callable[..., Any]:
    pytest.importorskip("qdrant_client")
    from test_tools_search_dense import Letters

    return lambda **options: make_tool("search_qdrant", **{"collection": "birds", "embedder": Letters(), **options})


TEXTS = ("aaaaa bbb", "bbb ccc", "zzz", "abc abc")


@pytest.mark.slow
def test_qdrant_finds_what_the_exact_dense_search_finds(qdrant_tool: Callable[..., Any], tmp_path: Path) -> None:
    from test_tools_search_dense import Letters

    exact = make_tool("search", backend="dense", embedder=Letters(), corpus=corpus_of(*TEXTS), top_k=3)
    tool = qdrant_tool(location=str(tmp_path / "store"), corpus=corpus_of(*TEXTS), fill=True, top_k=3)
    for query in ("abc", "z abc", "bbb aaa"):
        (ours,), (theirs,) = tool.run([query]), exact.run([query])
        assert ours.data["ids"] == theirs.data["ids"] and ours.text == theirs.text
        assert ours.data["scores"] == pytest.approx(theirs.data["scores"], rel=1e-5)
    assert tool.run(["", "?!"])[0].data == EMPTY
    tool._client.delete("birds", points_selector=[2, 3])
    tool._client.close()
    again = qdrant_tool(location=str(tmp_path / "store"), corpus=corpus_of(*TEXTS), fill=True, top_k=4)
    assert sorted(again.run(["abc"])[0].data["ids"]) == ["p0", "p1", "p2", "p3"], "an interrupted filling goes on"


@pytest.mark.slow
def test_qdrant_that_fails_is_unavailable(qdrant_tool: Callable[..., Any]) -> None:
    from qdrant_client import models

    absent = qdrant_tool(location=":memory:")
    assert [r.error for r in absent.run(["abc", "bcd"])] == ["unavailable"] * 2
    odd = qdrant_tool(location=":memory:")
    parameters = models.VectorParams(size=26, distance=models.Distance.COSINE)
    odd._client.create_collection("birds", vectors_config=parameters)
    odd._client.upsert("birds", [models.PointStruct(id=1, vector=[1.0] * 26, payload={"name": "no text"})])
    assert odd.run(["abc"])[0].error == "unavailable"
    nobody = qdrant_tool(location="http://127.0.0.1:1", timeout_s=1)
    assert nobody.run(["abc"])[0].error == "unavailable"
    with pytest.raises(ConfigError, match="cannot be reached"):
        qdrant_tool(location="http://127.0.0.1:1", timeout_s=1, fill=True, corpus=corpus_of("x"))
    with pytest.raises(ConfigError, match="needs a corpus"):
        qdrant_tool(location=":memory:", fill=True)


@pytest.mark.parametrize(("engine", "package"), [("tantivy", "tantivy"), ("qdrant", "qdrant_client")])
def test_an_engine_that_is_not_installed_names_its_extra(engine: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]
    monkeypatch.delitem(sys.modules, f"swirl_env.tools.search.engines.{engine}", raising=False)
    with pytest.raises(MissingExtra, match=rf"needs '{package}'.*pip install 'swirl-env\[{engine}\]'"):
        make_tool(f"search_{engine}")


def test_lucene_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataNotFound, match=r"Lucene index at .*pyserini\.index\.lucene"):
        make_tool("search_lucene", index=str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"package 'pyserini' and Java 21 or newer; pyserini is not installed"):
        check_java()


@pytest.mark.slow
def test_lucene_searches_an_index_of_pyserini(tmp_path: Path) -> None:
    try:
        check_java()
    except ConfigError as absent:
        pytest.skip(str(absent))
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (ROWS[0], ROWS[2])))
    words = [
        "--collection",
        "JsonCollection",
        "--input",
        str(tmp_path / "rows"),
        "--index",
        str(tmp_path / "index"),
        "--storeRaw",
    ]
    subprocess.run([sys.executable, "-m", "pyserini.index.lucene", *words], check=True, capture_output=True)
    tool = make_tool("search_lucene", index=str(tmp_path / "index"))
    results = tool.run(["red kites", "bird", "xyzzy", *HOSTILE])
    assert [r.data["ids"] for r in results[:3]] == [["a"], ["a", "c"], []]
    assert results[0].data["titles"] == ['Red "Kite"'] and all(r.error is None for r in results)
    assert pickle.loads(pickle.dumps(tool)).run(["bird"]) == results[1:2]


def java(folder: Path, shown: str) -> str:
    """Writes a java that says what version it is, and returns its home."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "java").write_text(f"#!/bin/sh\necho '{shown}' >&2\n")
    (folder / "bin" / "java").chmod(0o755)
    return str(folder)


@pytest.mark.parametrize(
    ("shown", "have"),
    [
        ('openjdk version "17.0.15" 2025-04-15', "Java 17"),
        ('java version "1.8.0_292"', "Java 8"),
        ("segmentation fault", "no Java"),
        ('openjdk version "21" 2023-09-19', None),
        ('openjdk version "25.0.2" 2026-01-20', None),
    ],
)
def test_lucene_needs_a_new_java(shown: str, have: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setenv("JAVA_HOME", java(tmp_path / "jdk", shown))
    if have is None:
        check_java()
    else:
        with pytest.raises(ConfigError, match=f"needs Java 21 or newer; there is {have} in JAVA_HOME"):
            check_java()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="there is no Java in JAVA_HOME"):
        check_java()
