"""Ranks passages by the inner product of embeddings, exactly; embeddings are computed once and memory-mapped."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import numpy as np

from swirl_env.tools.search.embedders import Embedder, Vectors
from swirl_env.tools.search.storage import PassageStore, map_array
from swirl_env.types import Passage

TEXT_VERSION = 1
"""Version of the text that a passage is embedded as; part of an index's name."""

_log = logging.getLogger(__name__)
_PART = 512
"""Passages that are embedded before a part is written."""
_ROWS = 1 << 16
"""Vectors that are multiplied at once."""


class DenseIndex:
    """The embeddings of all passages, and the search among them.

    Args:
        folder: what `build` wrote.
        embedder: the model that the passages were embedded with.
    """

    def __init__(self, folder: Path, embedder: Embedder) -> None:
        self._vectors = map_array(folder / "vectors.npy")
        self._embedder = embedder

    @staticmethod
    def build(folder: Path, passages: PassageStore, embedder: Embedder, parts: Path) -> None:
        """Writes the embeddings of all passages to `folder`.

        Args:
            folder: an empty folder.
            passages: the passages.
            embedder: the model.
            parts: folder of finished parts: a build that was killed goes on from there.
        """
        # Texts of similar length are embedded together, as padding is work.
        lengths = np.array([len(passage_text(passage)) for passage in passages], dtype=np.int64)
        order = np.argsort(lengths, kind="stable")
        parts.mkdir(parents=True, exist_ok=True)
        starts = range(0, len(order), _PART)
        for done, start in enumerate(starts):
            part = parts / f"{start:09}.npy"
            if not part.is_file():
                texts = [passage_text(passages[int(i)]) for i in order[start : start + _PART]]
                _save(part, embedder.embed_passages(texts))
                if done % 20 == 0:
                    _log.info("Embedding %s passages: %.0f %%.", f"{len(order):,}", 100 * start / len(order))
        rows = [np.load(parts / f"{start:09}.npy") for start in starts]
        vectors = np.zeros((len(order), rows[0].shape[1] if rows else 0), dtype=np.float32)
        if rows:
            vectors[order] = np.concatenate(rows)
        np.save(folder / "vectors.npy", vectors)
        shutil.rmtree(parts, ignore_errors=True)

    def top(self, query: str, k: int) -> list[tuple[int, float]]:
        """Returns positions and scores of the `k` best passages: score falling, then position rising."""
        if not len(self._vectors):
            return []
        vector = self._embedder.embed_query(query)
        scores = np.concatenate([self._vectors[i : i + _ROWS] @ vector for i in range(0, len(self._vectors), _ROWS)])
        best = _best(scores, k)
        return [(int(position), float(scores[position])) for position in best]


def passage_text(passage: Passage) -> str:
    """Returns the text that a passage is embedded as."""
    return f"{passage.title}: {passage.text}" if passage.title else passage.text


def _best(scores: Vectors, k: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Returns the positions of the `k` highest scores, equal scores by position."""
    if k < len(scores):
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        candidates = np.flatnonzero(scores >= least)
    else:
        candidates = np.arange(len(scores))
    return candidates[np.argsort(-scores[candidates], kind="stable")[:k]]


def _save(path: Path, vectors: Vectors) -> None:
    """Writes an array whole or not at all: a killed build leaves no half part."""
    aside = path.with_name(f"{path.stem}.{os.getpid()}.tmp.npy")
    np.save(aside, vectors)
    os.replace(aside, path)
