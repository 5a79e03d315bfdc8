"""The search index on disk: built once, shared by tools and processes, rebuilt if it is damaged."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fakes import corpus_of
from swirl_env.corpus import GeneratedCorpus
from swirl_env.errors import ConfigError
from swirl_env.registry import make_tool
from swirl_env.tools.search.tool import Search
from swirl_env.types import Passage, ToolResult

pytestmark = pytest.mark.usefixtures("own_cache")


def folders(cache: Path) -> list[str]:
    return sorted(path.name.split("-")[0] for path in cache.glob("search-v*/*"))


def test_one_index_serves_all_tools_of_a_process_and_goes_with_them(tmp_path: Path) -> None:
    one = Search(corpus=corpus_of("red kite"), cache_dir=str(tmp_path))
    other = make_tool("search", corpus=corpus_of("red kite"), cache_dir=str(tmp_path), top_k=1, snippet_chars=9)
    assert isinstance(other, Search) and one._opened is other._opened
    assert Search(corpus=corpus_of("red kite"), cache_dir=str(tmp_path), k1=2)._opened is not one._opened
    assert folders(tmp_path) == ["bm25", "bm25", "passages"], "passages are stored once for all options"


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
    assert folders(tmp_path) == ["bm25", "passages"], "damaged copies are put out of the way"


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
from swirl_env.tools.search import index
from swirl_env.tools.search.tool import Search
from swirl_env.types import Passage
corpus = MemoryCorpus(Passage(f"p{i}", "", f"tree number {i}") for i in range(3000))
print("ready", flush=True)
while not pathlib.Path(sys.argv[1], "go").exists():
    time.sleep(0.001)
build, built = index.build, []
index.build = lambda *args: built.append(1) or build(*args)
print(Search(corpus=corpus, cache_dir=sys.argv[1]).run(["number 5"])[0].data["ids"], len(built))
"""


def test_of_processes_that_ask_at_once_one_builds_and_the_others_wait(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BUILDER, str(tmp_path)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for worker in workers:
        assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
    (tmp_path / "go").write_text("")
    shown = [worker.communicate(timeout=60)[0] for worker in workers]
    assert all(worker.returncode == 0 for worker in workers)
    assert sorted(shown) == [f"['p5', 'p0', 'p1', 'p2', 'p3'] {built}\n" for built in (0, 0, 1)]
    assert folders(tmp_path) == ["bm25", "passages"], "no temporary folder is left"


def test_a_copy_in_another_process_maps_the_same_files() -> None:
    birds = Search(corpus=corpus_of("red kite", "café in Zürich"))
    data = pickle.dumps(birds)
    assert len(data) < 2000
    copy = pickle.loads(data)
    assert copy._opened is birds._opened and copy.run(["kite"]) == birds.run(["kite"])
