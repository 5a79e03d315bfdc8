"""Lucene through Pyserini: an index that Anserini or Pyserini built. Needs Java 21 (extra `lucene`)."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from swirl_env.errors import ConfigError, DataNotFound
from swirl_env.tools.search.engines.engine import Engine, EngineError
from swirl_env.tools.search.engines.http import read_document
from swirl_env.tools.search.results import Hit, check_numbers, whole
from swirl_env.types import Passage

JAVA = 21
"""The oldest Java that Pyserini's Lucene runs on."""


class LuceneSearch(Engine):
    """Ranks by Lucene's BM25 in an index with stored documents (``--storeRaw`` or ``--storeContents``).

    Args:
        index: folder of the index.
        top_k: how many passages to return.
        k1: how slowly repetitions of a term in a passage stop counting.
        b: how strongly long passages are penalised, 0 to 1.
        threads: how many queries of a batch are searched at once.
        snippet_chars: how much of each passage is shown, in characters; 0 for all of it.
        max_query_chars: the longest query that is searched for.
    """

    def __init__(
        self,
        *,
        index: str,
        top_k: int = 5,
        k1: float = 0.9,
        b: float = 0.4,
        threads: int = 1,
        snippet_chars: int = 600,
        max_query_chars: int = 2000,
    ) -> None:
        super().__init__(top_k, snippet_chars, max_query_chars)
        check_numbers(
            [
                ("k1", k1, "a number from 0", isinstance(k1, (int, float)) and k1 >= 0),
                ("b", b, "a number from 0 to 1", isinstance(b, (int, float)) and 0 <= b <= 1),
                ("threads", threads, "a whole number from 1", whole(threads, 1)),
            ]
        )
        folder = Path(index).expanduser()
        if not any(folder.glob("segments_*")):
            raise DataNotFound(f"Expected a Lucene index at {folder}; there is none. Build one with pyserini.index.lucene.")
        check_java()
        self._options: dict[str, Any] = {
            **{"index": index, "top_k": top_k, "k1": k1, "b": b, "threads": threads},
            **{"snippet_chars": snippet_chars, "max_query_chars": max_query_chars},
        }
        from pyserini.search.lucene import LuceneSearcher  # pyright: ignore[reportMissingImports]  # needs Java, so not in [all]

        self._threads = threads
        self._searcher: Any = LuceneSearcher(str(folder))
        self._searcher.set_bm25(k1, b)

    def __reduce__(self) -> tuple[object, ...]:
        return functools.partial(LuceneSearch, **self._options), ()

    def find(self, queries: Sequence[str]) -> list[list[Hit]]:
        """Returns the best passages of each query."""
        names = [str(i) for i in range(len(queries))]
        answers = self._searcher.batch_search(list(queries), names, k=self.top_k, threads=self._threads)
        return [[self._hit(hit) for hit in answers.get(name, [])] for name in names]

    def _hit(self, hit: Any) -> Hit:
        document = self._searcher.doc(hit.docid)
        raw = document.raw() if document is not None else None
        if raw is None:
            raise EngineError(f"the index stores no text of {hit.docid!r}; build it with --storeRaw")
        return _passage(raw, hit.docid), float(hit.score)


def _passage(raw: str, name: str) -> Passage:
    """Returns the passage of a stored document: a JSON object as in a collection, else plain text."""
    try:
        row = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        row = None
    passage = read_document({"id": name, **row} if isinstance(row, dict) else {"text": raw}, 0)
    return msgspec.structs.replace(passage, id=name)


def check_java() -> None:
    """Checks that Pyserini and its Java are there.

    Raises:
        ConfigError: if one of them is missing or too old.
    """
    if importlib.util.find_spec("pyserini") is None:
        raise ConfigError(
            f"The Lucene search needs the package 'pyserini' and Java {JAVA} or newer; pyserini is not installed. "
            "Install it with: pip install 'swirl-env[lucene]'"
        )
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    shown = ""
    if java is not None:
        try:
            shown = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=False).stderr
        except (OSError, subprocess.SubprocessError):
            shown = ""
    version = re.search(r'version "(?:1\.)?(\d+)', shown)
    if version is None or int(version[1]) < JAVA:
        have = f"Java {version[1]}" if version else "no Java"
        raise ConfigError(
            f"The Lucene search needs Java {JAVA} or newer; there is {have}{' in JAVA_HOME' if home else ''}. "
            "Install a newer JDK and set JAVA_HOME to it."
        )
