"""The passages of a question set: finding the corpus, and looking up passages by title or by content."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from swirl_env.corpus import CORPUS_ENDINGS, MemoryCorpus, open_corpus, to_passage
from swirl_env.errors import ConfigError, unknown_name
from swirl_env.protocols import Corpus
from swirl_env.tasks.files.layouts import Question, clean_title, read_paragraphs
from swirl_env.tasks.files.rows import Location, locate, read_rows
from swirl_env.types import Passage

CORE = "core"
"""Selection without the passages that come from the shard of pure distractors alone."""
_DISTRACTORS = "beir_shard68"


class Library(NamedTuple):
    """A corpus, with its passages by title and by content."""

    corpus: Corpus
    by_title: Mapping[str, tuple[str, ...]]
    by_content: Mapping[tuple[str, str], str]
    """(title, text) -> id; empty for a corpus that has a file of its own."""


def find_corpus_file(folder: Path | None, name: str) -> Location | None:
    """Returns the corpus file next to the questions: ``corpus.*``, or ``<name>_corpus.*`` as HippoRAG calls it.

    A single ``*_corpus.*`` of another name is taken too; with several of them, none is.
    """
    if folder is None:
        return None
    own = [folder / f"{stem}{ending}" for stem in ("corpus", f"{name}_corpus") for ending in CORPUS_ENDINGS]
    others = [file for ending in CORPUS_ENDINGS for file in folder.glob(f"*_corpus{ending}")]
    file = next((file for file in own if file.is_file()), others[0] if len(others) == 1 else None)
    return locate(file) if file else None


@functools.lru_cache(maxsize=8)
def open_corpus_once(location: Location) -> Corpus:
    """Opens a corpus file, once per process unless the file changes."""
    corpus = open_corpus(location.path)
    if next(iter(corpus), None) is None:
        raise ConfigError(f"{location}: expected passages, one row each; the file has no rows.")
    return corpus


@functools.lru_cache(maxsize=8)
def load_library(location: Location, src: str | None) -> Library:
    """Returns the library of a corpus file, restricted to the passages from `src` if one is named.

    Raises:
        UnknownName: if no passage comes from `src`.
    """
    corpus = open_corpus_once(location) if src is None else _selected(location, src)
    by_title: dict[str, tuple[str, ...]] = {}
    for passage in corpus:
        title = clean_title(passage.title)
        by_title[title] = (*by_title.get(title, ()), passage.id)
    return Library(corpus, by_title, {})


def _selected(location: Location, src: str) -> Corpus:
    passages: list[Passage] = []
    all_sources = {CORE}
    for index, row in enumerate(read_rows(location)):
        value = row.get("src") or ()
        sources = {value} if isinstance(value, str) else set(value)
        all_sources |= sources
        if src in sources or (src == CORE and sources != {_DISTRACTORS}):
            passages.append(to_passage(row, index, location.path))
    if not passages:
        raise unknown_name(f"source (corpus_src) in {location.path}", src, all_sources)
    return MemoryCorpus(passages)


@functools.lru_cache(maxsize=8)
def pool_passages(location: Location, name: str) -> Library:
    """Returns the passages that the questions of a file bring along, each once, with ids ``<name>-p<number>``."""
    by_content: dict[tuple[str, str], str] = {}
    passages: list[Passage] = []
    by_title: dict[str, tuple[str, ...]] = {}
    for row in read_rows(location):
        for paragraph in read_paragraphs(row):
            content = (paragraph.title, paragraph.text)
            if content not in by_content:
                passage = Passage(f"{name}-p{len(passages)}", *content)
                by_content[content] = passage.id
                by_title[paragraph.title] = (*by_title.get(paragraph.title, ()), passage.id)
                passages.append(passage)
    return Library(MemoryCorpus(passages), by_title, by_content)


def find_evidence(question: Question, library: Library) -> tuple[str, ...]:
    """Returns the ids of the passages that support a question.

    Exact passages if the question brings them along; otherwise, for each supporting title, all
    passages of that title. Titles that the corpus does not have are left out.
    """
    exact = [library.by_content.get((p.title, p.text)) for p in question.paragraphs if p.supporting]
    if exact and None not in exact:
        return tuple(dict.fromkeys(i for i in exact if i is not None))
    titles: Sequence[str] = question.titles or [p.title for p in question.paragraphs if p.supporting]
    return tuple(dict.fromkeys(i for title in titles for i in library.by_title.get(clean_title(title), ())))
