"""The user's own questions: any file of them, with or without a corpus."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple, cast

from swirl_env.errors import ConfigError
from swirl_env.protocols import Corpus
from swirl_env.tasks.files.layouts import ID_COLUMNS, has_answer, other_columns, read_paragraphs, read_question
from swirl_env.tasks.files.passages import find_corpus_file, find_evidence, load_library, open_corpus_once, pool_passages
from swirl_env.tasks.files.question_set import QuestionSet, Table, check_limit, require_answers
from swirl_env.tasks.files.rows import Location, Row, locate, read_rows
from swirl_env.types import Grading, Task

log = logging.getLogger(__name__)

_GRADINGS = ("text", "number")


class JsonlOptions(NamedTuple):
    """What decides how a row of the user's own file is read."""

    corpus_file: Location | None
    grading: Grading
    fields: tuple[tuple[str, str], ...]
    """Pairs of a known column and the name that the file has for it."""
    answered: bool
    """Whether the questions have gold answers."""


class JsonlTasks(QuestionSet[JsonlOptions]):
    """A file of questions: JSON lines (``.gz`` or not), a JSON list, or Parquet.

    Apart from the named columns, every layout that the known sets use is understood: ``context``, ``paragraphs``,
    ``supporting_facts`` and so on (see `read_question`).

    Args:
        path: the file.
        corpus_path: file of the passages to search; None takes ``corpus.*`` or ``<name>_corpus.*`` next to `path`, else the
            passages that the questions bring along; with none of these the corpus is None.
        split: a name for these questions; None takes the file's.
        limit: only the first questions.
        grading: ``text`` (exact match with aliases) or ``number`` (numeric equality).
        id_field: column of the id; a row without one gets its number.
        question_field: column of the question.
        answer_field: column of the gold answer: text, number, list of accepted answers, or any form that `read_golds` knows; None
            for questions without answers.
        aliases_field: column of other accepted answers.
        evidence_field: column of the ids of the supporting passages.
        titles_field: column of the titles of the supporting passages.
    """

    name = "jsonl"
    max_steps = 6

    def __init__(
        self,
        path: str,
        corpus_path: str | None = None,
        split: str | None = None,
        limit: int | None = None,
        grading: str = "text",
        id_field: str = "id",
        question_field: str = "question",
        answer_field: str | None = "answer",
        aliases_field: str = "aliases",
        evidence_field: str = "supporting_ids",
        titles_field: str = "supporting_titles",
    ) -> None:
        if grading not in _GRADINGS:
            raise ConfigError(f"grading: expected one of {', '.join(_GRADINGS)}; got {grading!r}.")
        self.limit = check_limit(limit)
        self.location = locate(path)
        stem = Path(path).name.split(".")[0]
        self.split = split or stem
        self.grading: Grading = cast("Grading", grading)
        self.corpus_file = locate(corpus_path) if corpus_path else find_corpus_file(self.location.folder, stem)
        self.answered = answer_field is not None
        self.fields = (
            ("id", id_field),
            ("question", question_field),
            ("answer", answer_field or "answer"),
            ("aliases", aliases_field),
            ("supporting_ids", evidence_field),
            ("supporting_titles", titles_field),
        )

    @property
    def corpus(self) -> Corpus | None:
        """The passages to search, None if there are none."""
        if self.corpus_file:
            return open_corpus_once(self.corpus_file)
        rows = read_rows(self.location)
        return pool_passages(self.location, self.split).corpus if len(rows) and read_paragraphs(rows[0]) else None

    @property  # follows the file, unlike the class attribute of the known sets
    def tools(self) -> tuple[str, ...]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        """Search if there is a corpus, the calculator if answers are numbers."""
        return (*(("search",) if self.corpus is not None else ()), *(("calculator",) if self.grading == "number" else ()))

    def options(self) -> JsonlOptions:
        """Returns everything that decides how a row is read."""
        return JsonlOptions(self.corpus_file, self.grading, self.fields, self.answered)

    @classmethod
    def read_table(cls, location: Location, split: str, options: JsonlOptions) -> Table:
        """Opens the file."""
        corpus_file, grading, fields, answered = options
        rows = read_rows(location)
        _check_names(rows, fields, location)
        if answered:
            fix = "Name it with answer_field=COLUMN, or pass answer_field=None for questions without answers."
            require_answers(rows, lambda row: has_answer(_renamed(row, fields)), location, fix)

        lacking: list[int] = []  # the first row read that has no answer

        def read(row: Row, index: int) -> Task:
            question = read_question(_renamed(row, fields), index, str(location), split)
            if question.answer is None and answered and row.get("answerable") is not False and not lacking:
                lacking.append(index)
                log.warning(
                    "%s, row %d has no gold answer: its episodes are not graded. Other rows may lack theirs too.",
                    location,
                    index + 1,
                )
            evidence = question.ids
            if not evidence and (question.titles or any(paragraph.supporting for paragraph in question.paragraphs)):
                library = load_library(corpus_file, None) if corpus_file else pool_passages(location, split)
                evidence = find_evidence(question, library)
            return Task(
                id=question.id,
                question=question.question,
                answer=question.answer,
                aliases=question.aliases,
                grading=grading,
                evidence=evidence,
                meta={**question.meta, **_covered(row, fields), "split": split},
            )

        id_field = dict(fields)["id"]
        return Table(rows, read, ids=ID_COLUMNS if id_field == "id" else (id_field,))


def _check_names(rows: Sequence[Row], fields: tuple[tuple[str, str], ...], location: Location) -> None:
    """Refuses a name of a column that no row has: it would be read as the usual one, or not at all."""
    for known, own in fields:
        if own != known and not any(own in row for row in rows):
            columns = sorted({str(key) for i in range(min(len(rows), 100)) for key in rows[i]})
            near = get_close_matches(own, columns, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{location}: expected a column {own!r}, but no row has one; the columns are {columns}.{hint}")


def _covered(row: Row, fields: tuple[tuple[str, str], ...]) -> dict[str, object]:
    """Returns the columns whose names others have taken: of a file with question_field="q", its own column "question"."""
    taken = {name: row[name] for name, own in fields if own != name and own in row and name in row}
    return other_columns(taken, ())


def _renamed(row: Row, fields: tuple[tuple[str, str], ...]) -> Row:
    """Returns the row under the names that `read_question` knows."""
    renamed = {own: name for name, own in fields if own != name}
    if not renamed:
        return row
    return dict(_pairs(row, renamed))


def _pairs(row: Row, renamed: Mapping[str, str]) -> Iterator[tuple[str, object]]:
    replaced = {renamed[key] for key in row if key in renamed}
    for key, value in row.items():
        if key in renamed:
            yield renamed[key], value
        elif key not in replaced:
            yield key, value
