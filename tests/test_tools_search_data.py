"""Search over the shared data: figures that are known from elsewhere, and one index for all processes."""

import gzip
import json
import math
import os
import subprocess
import sys
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from fakes import PLAIN_TERMS
from swirl_env.corpus import MemoryCorpus, open_corpus
from swirl_env.tools.search.tool import Search
from swirl_env.types import Passage, ToolResult

pytestmark = [pytest.mark.data, pytest.mark.usefixtures("own_cache")]


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


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def evidence(questions: list[dict[str, Any]], results: list[ToolResult], k: int) -> tuple[float, float]:
    """Returns mean recall of the supporting titles among the first k, and the share of questions with all of them."""
    recalls = []
    for question, result in zip(questions, results, strict=True):
        gold = set(question["supporting_titles"])
        recalls.append(len(gold & set(result.data["titles"][:k])) / len(gold))
    return sum(recalls) / len(recalls), sum(recall == 1 for recall in recalls) / len(recalls)


def test_rank_bm25_reproduces_the_published_table(data_dir: Path) -> None:
    with gzip.open(data_dir / "hotpotqa" / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if "dev500" in row["src"]]
    assert len(rows) == 4937
    corpus = MemoryCorpus(Passage(row["id"], row["title"], row["text"]) for row in rows)
    tool = Search(corpus=corpus, backend="rank_bm25", k1=1.5, b=0.75, title_weight=0, top_k=10, **PLAIN_TERMS)
    questions = read(data_dir / "hotpotqa" / "questions_dev500.jsonl")
    results = tool.run([question["question"] for question in questions])
    assert [round(evidence(questions, results, k)[1], 3) for k in (2, 5, 10)] == [0.140, 0.302, 0.500]
    assert round(evidence(questions, results, 5)[0], 3) == 0.588


def test_evidence_is_found_in_hotpotqa(data_dir: Path) -> None:
    tool = Search(corpus=data_dir / "hotpotqa" / "corpus.jsonl.gz")
    questions = read(data_dir / "hotpotqa" / "questions_dev500.jsonl")
    recall, _ = evidence(questions, tool.run([question["question"] for question in questions]), 5)
    assert recall >= 0.726


STROKES = {
    "ø": "o",
    "Ø": "O",
    "ł": "l",
    "Ł": "L",
    "đ": "d",
    "Đ": "D",
    "ı": "i",
    "æ": "ae",
    "Æ": "Ae",
    "ß": "ss",
    "ð": "d",
    "’": "'",
}


def plain(title: str) -> str:
    letters = unicodedata.normalize("NFD", "".join(STROKES.get(letter, letter) for letter in title))
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def test_accented_titles_are_found_when_typed_plainly(data_dir: Path) -> None:
    path = data_dir / "hotpotqa" / "corpus.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        titles = [json.loads(line)["title"] for line in lines]
    accented = [title for title in titles if plain(title) != title]
    results = Search(corpus=path).run([plain(title) for title in accented])
    misses = [title for title, result in zip(accented, results, strict=True) if title not in result.data["titles"]]
    assert len(accented) > 2_000 and not misses


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
    assert len(gains) == 300 and sum(gains) / 300 >= 0.6819
