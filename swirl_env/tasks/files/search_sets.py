"""Multi-hop question sets, answered by searching: HotpotQA, MuSiQue, 2WikiMultiHopQA, BeerQA, CofCA.

The corpus of a set is all its passages, as in the paper: the file ``corpus.jsonl`` (``.jsonl.gz``, ``.parquet``) next to
the questions; without one, the passages that the questions of the file bring along, pooled and without repeats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import msgspec

from swirl_env.errors import ConfigError, DataNotFound
from swirl_env.protocols import Corpus
from swirl_env.tasks.files.layouts import has_answer, read_question
from swirl_env.tasks.files.passages import Library, find_corpus_file, find_evidence, load_library, open_corpus_once, pool_passages
from swirl_env.tasks.files.question_set import QuestionSet, Table, require_answers
from swirl_env.tasks.files.rows import Location, Row, locate, read_rows
from swirl_env.types import Task


class SearchOptions(NamedTuple):
    """What decides which rows of a search set are read, and which passages are their evidence."""

    corpus_file: Location | None
    corpus_src: str | None
    drop_easy: bool = False


class SearchSet(QuestionSet[SearchOptions]):
    """Base of the sets that are answered by searching.

    Args:
        split: which part; None takes the first of `preferred` whose file is there.
        data_dir: folder that holds the set's folder; None takes the environment variable ``SWIRL_DATA_DIR``.
        limit: only the first questions (the corpus stays whole).
        hub: True downloads the set with the `datasets` library, a name (``"owner/name"`` or ``"owner/name:config"``) another
            copy of it. Without it nothing is ever downloaded.
        corpus_path: corpus file to search in place of the set's own.
        corpus_src: keep only the passages whose column ``src`` holds this; ``"core"`` drops HotpotQA's pure distractors;
            None or ``"full"`` keeps all.
        skip: how many questions at the beginning to leave out, e.g. those of demonstrations; `limit` counts from there.
    """

    tools = ("search",)
    max_steps = 6
    """The paper's five queries and the answer."""
    all_gold: ClassVar[bool] = False
    """Whether every passage that a question brings along supports its answer."""

    def __init__(
        self,
        split: str | None = None,
        data_dir: str | None = None,
        limit: int | None = None,
        hub: bool | str = False,
        corpus_path: str | None = None,
        corpus_src: str | None = None,
        skip: int = 0,
    ) -> None:
        super().__init__(split, data_dir, limit, hub, skip)
        self.corpus_src = None if corpus_src in (None, "full") else corpus_src
        self.corpus_file = locate(corpus_path) if corpus_path else find_corpus_file(self.location.folder, self.name)
        if self.corpus_src and self.corpus_file is None:
            raise ConfigError(f"corpus_src={corpus_src!r} chooses among the rows of a corpus file, but {self} has none.")

    @property
    def corpus(self) -> Corpus | None:
        """All passages of the set, opened on first use and shared in the process."""
        if self.corpus_file and not self.corpus_src:
            return open_corpus_once(self.corpus_file)
        library = self.open_library(self.location, self.corpus_file, self.corpus_src)
        if not len(library.corpus):
            raise DataNotFound(
                f"{self.name}, split {self.split!r}: the questions in {self.location} bring no passages along. "
                "Expected corpus.jsonl or corpus.jsonl.gz next to them, or corpus_path=FILE."
            )
        return library.corpus

    def options(self) -> SearchOptions:
        """Returns the corpus, which decides what passages are evidence."""
        return SearchOptions(self.corpus_file, self.corpus_src)

    @classmethod
    def open_library(cls, location: Location, corpus_file: Location | None, corpus_src: str | None) -> Library:
        """Opens the passages of a question file (once per process)."""
        return pool_passages(location, cls.name) if corpus_file is None else load_library(corpus_file, corpus_src)

    @classmethod
    def read_table(cls, location: Location, split: str, options: SearchOptions) -> Table:
        """Opens a question file."""
        corpus_file, corpus_src, drop_easy = options

        def read(row: Row, index: int) -> Task:
            question = read_question(row, index, str(location), f"{cls.name}-{split}", cls.all_gold)
            evidence = question.ids
            # The library is opened only if it is needed to look up the evidence.
            if not evidence and (question.titles or any(paragraph.supporting for paragraph in question.paragraphs)):
                evidence = find_evidence(question, cls.open_library(location, corpus_file, corpus_src))
            return Task(
                id=question.id,
                question=question.question,
                answer=question.answer,
                aliases=question.aliases,
                evidence=evidence,
                meta={**question.meta, "split": split},
            )

        rows = read_rows(location)
        if split not in cls.unanswered:
            require_answers(
                rows, has_answer, location, "Rename one of them to 'answer', or read the file with make_tasks('jsonl')."
            )
        return Table(rows, read, _is_not_easy if drop_easy else None)


class HotpotQA(SearchSet):
    """HotpotQA (Yang et al. 2018): two-hop questions over Wikipedia abstracts.

    Splits: ``dev500`` (default), ``train100``, ``dev_hippo_matched``, ``demos``; of the official files ``train``, ``dev``
    (default if there is no ``dev500``), ``dev_fullwiki``, ``test`` (without answers); ``hippo`` (HippoRAG's).

    Args:
        split: which part (above).
        data_dir: as for `SearchSet`.
        limit: as for `SearchSet`.
        hub: as for `SearchSet`.
        corpus_path: as for `SearchSet`.
        corpus_src: as for `SearchSet`.
        drop_easy: leave out the questions of level "easy", as the paper does in training.
        skip: as for `SearchSet`.
    """

    name = "hotpotqa"
    files = {
        "dev500": ("questions_dev500",),
        "train100": ("questions_train100",),
        "dev_hippo_matched": ("questions_dev_hippo_matched",),
        "demos": ("questions_ircot_demos",),
        "train": ("hotpot_train_v1.1", "train"),
        "dev": ("hotpot_dev_distractor_v1", "dev", "validation"),
        "dev_fullwiki": ("hotpot_dev_fullwiki_v1",),
        "test": ("hotpot_test_fullwiki_v1", "test"),
        "hippo": ("hotpotqa",),
    }
    preferred = ("dev500", "dev", "hippo")
    hub_name = "hotpotqa/hotpot_qa:distractor"
    hub_splits = {"train": "train", "dev": "validation"}
    homepage = "https://hotpotqa.github.io"

    def __init__(
        self,
        split: str | None = None,
        data_dir: str | None = None,
        limit: int | None = None,
        hub: bool | str = False,
        corpus_path: str | None = None,
        corpus_src: str | None = None,
        drop_easy: bool = False,
        skip: int = 0,
    ) -> None:
        super().__init__(split, data_dir, limit, hub, corpus_path, corpus_src, skip)
        self.drop_easy = drop_easy

    def options(self) -> SearchOptions:
        """Returns the corpus, and whether easy questions are left out."""
        return super().options()._replace(drop_easy=self.drop_easy)


def _is_not_easy(row: Row) -> bool:
    return bool(row.get("level") != "easy")


class MuSiQue(SearchSet):
    """MuSiQue (Trivedi et al. 2022): questions of 2 to 4 hops with aliases and decompositions; options as `SearchSet`.

    Splits: ``dev`` (default), ``train``, ``test`` of the official files; ``train100`` (default if there is no ``dev``),
    ``demos``, ``hippo`` (HippoRAG's). In MuSiQue-Full (``full_train``, ``full_dev``, ``full_test``) half of the questions
    cannot be answered; each shares its id with one that can, so the second of the two has ``-2`` added to its id.
    """

    name = "musique"
    files = {
        "train100": ("questions_train100",),
        "demos": ("questions_ircot_demos",),
        "train": ("musique_ans_v1.0_train", "train"),
        "dev": ("musique_ans_v1.0_dev", "dev", "validation"),
        "test": ("musique_ans_v1.0_test", "test"),
        "full_train": ("musique_full_v1.0_train",),
        "full_dev": ("musique_full_v1.0_dev",),
        "full_test": ("musique_full_v1.0_test",),
        "hippo": ("musique",),
    }
    preferred = ("dev", "train100", "hippo")
    unanswered = ("test", "full_test")
    hub_name = "dgslibisey/MuSiQue"
    hub_splits = {"train": "train", "dev": "validation"}
    homepage = "https://github.com/StonyBrookNLP/musique"


class TwoWiki(SearchSet):
    """2WikiMultiHopQA (Ho et al. 2020): comparison, inference and bridge questions; options as `SearchSet`.

    Splits: ``dev`` (default), ``train``, ``test`` of the official files; ``demos`` (default if there is no ``dev``),
    ``retrieval101`` (101 questions with evidence but without answers), ``hippo`` (HippoRAG's). If the official file
    ``id_aliases.json`` is next to the questions, its names for the answer are aliases.
    """

    name = "2wikimultihopqa"
    files = {
        "demos": ("questions_ircot_demos",),
        "retrieval101": ("retrieval_queries101",),
        "train": ("train",),
        "dev": ("dev", "validation"),
        "test": ("test",),
        "hippo": ("2wikimultihopqa",),
    }
    preferred = ("dev", "demos", "hippo")
    unanswered = ("test", "retrieval101")
    hub_name = "framolfese/2WikiMultihopQA"
    homepage = "https://github.com/Alab-NII/2wikimultihop"

    @classmethod
    def read_table(cls, location: Location, split: str, options: SearchOptions) -> Table:
        """Opens a question file, with the aliases of ``id_aliases.json``."""
        table = super().read_table(location, split, options)
        aliases = _id_aliases(location.folder)
        return table if aliases is None else table.map(lambda task: _add_aliases(task, aliases))


def _id_aliases(folder: Path | None) -> Mapping[str, Sequence[str]] | None:
    """Returns Wikidata id -> other names from the official ``id_aliases.json``, None without that file."""
    file = None if folder is None else folder / "id_aliases.json"
    if file is None or not file.is_file():
        return None
    aliases: dict[str, list[str]] = {}
    for row in read_rows(locate(file)):
        names = [row.get(key) or () for key in ("aliases", "demonyms")]
        aliases.setdefault(str(row.get("Q_id")), []).extend(str(name) for part in names for name in part)
    return aliases


def _add_aliases(task: Task, aliases: Mapping[str, Sequence[str]]) -> Task:
    names = aliases.get(str(task.meta.get("answer_id")), ())
    new = [name for name in dict.fromkeys([*task.aliases, *names]) if name != task.answer]
    return msgspec.structs.replace(task, aliases=tuple(new)) if task.answer is not None else task


class BeerQA(SearchSet):
    """BeerQA (Qi et al. 2021): open-domain questions of one, two and more hops; options as `SearchSet`.

    Splits: ``dev`` (default), ``train``, ``test`` (without answers). Each question brings along its gold paragraphs alone,
    so a pooled corpus has no distractors other than those of other questions: name a bigger one with `corpus_path`.
    """

    name = "beerqa"
    files = {
        "train": ("beerqa_train_v1.0", "train"),
        "dev": ("beerqa_dev_v1.0", "dev", "validation"),
        "test": ("beerqa_test_questions_v1.0", "test"),
    }
    preferred = ("dev",)
    homepage = "https://beerqa.github.io"
    all_gold = True


class CofCA(SearchSet):
    """CofCA (Wu et al. 2024): multi-hop questions over factual and counterfactually edited passages; options: `SearchSet`.

    Splits: ``test`` (default; all of it), ``factual`` and ``counterfactual`` if the files are separate. Any layout that
    `read_question` knows is read (HotpotQA's, MuSiQue's, or ``question``, ``answer``, ``passages``).
    """

    name = "cofca"
    files = {
        "test": ("cofca", "CofCA", "test"),
        "factual": ("factual", "cofca_factual"),
        "counterfactual": ("counterfactual", "cofca_counterfactual"),
    }
    preferred = ("test",)
    homepage = "https://arxiv.org/abs/2402.11924"
