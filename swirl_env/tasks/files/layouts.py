"""Rows of question sets -> `Question`: the columns of HotpotQA, 2WikiMultiHopQA, MuSiQue, BeerQA, SQuAD and of this project.

Which layout a row has shows in its keys, so one reader serves all sets and files of one's own.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from swirl_env.errors import ConfigError

_META = (
    "type level hops src rationale retrieved_titles context_titles context_ids supporting_titles evidences "
    "fast_graphrag_multihop_only"
).split()
"""Columns that go into `Task.meta` as they are."""


class Paragraph(NamedTuple):
    """One passage that a question brings along."""

    title: str
    text: str
    supporting: bool


class Question(NamedTuple):
    """What a row says, whatever its layout."""

    id: str
    question: str
    answer: str | None
    aliases: tuple[str, ...]
    paragraphs: tuple[Paragraph, ...]
    titles: tuple[str, ...]
    """Supporting titles, where the row names passages by title."""
    ids: tuple[str, ...]
    """Supporting passages, where the row names them by id."""
    meta: dict[str, Any]


def read_question(row: Mapping[str, Any], index: int, where: str, name: str = "", all_gold: bool = False) -> Question:
    """Reads a row.

    Args:
        row: the row.
        index: its position in the file.
        where: the file, for messages.
        name: prefix of the id of a row that has none.
        all_gold: whether every passage that the row brings along is a supporting one.

    Raises:
        ConfigError: where the row has no question.
    """
    text = _first(row, "question", "Question", "query")
    if not isinstance(text, str) or not text.strip():
        raise ConfigError(f"{where}, row {index + 1}: expected a text under 'question'; got the keys {sorted(row)}.")
    number = _first(row, "id", "_id", "qid", "question_id")
    golds = _golds(row)
    titles = tuple(dict.fromkeys([*_strings(row.get("supporting_titles")), *_fact_titles(row.get("supporting_facts"))]))
    paragraphs = read_paragraphs(row, frozenset(map(clean_title, titles)), all_gold)
    return Question(
        id=f"{name}{'-' if name else ''}{index}" if number is None else str(number),
        question=text.strip(),
        answer=golds[0] if golds and row.get("answerable") is not False else None,
        aliases=tuple(dict.fromkeys(gold for gold in golds[1:] if gold != golds[0])),
        paragraphs=paragraphs,
        titles=titles,
        ids=tuple(_strings(row.get("supporting_ids"))),
        meta=_meta(row),
    )


def read_paragraphs(
    row: Mapping[str, Any], titles: frozenset[str] = frozenset(), all_gold: bool = False
) -> tuple[Paragraph, ...]:
    """Reads the passages that a row brings along; those of `titles` (cleaned), or all, are supporting."""
    items = _contexts(_decoded(_first(row, "context", "contexts", "paragraphs", "passages")))
    read = (_paragraph(item, row) for item in items)
    return tuple(p._replace(supporting=p.supporting or all_gold or p.title in titles) for p in read if p.text)


def clean_title(title: str) -> str:
    """Returns a title as it is compared: HTML entities resolved, white space collapsed."""
    return " ".join(html.unescape(title).split())


def _first(row: Mapping[str, Any], *keys: str) -> Any:
    return next((row[key] for key in keys if row.get(key) is not None), None)


def _strings(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in _strings(item)]
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    return [str(value)]


def _golds(row: Mapping[str, Any]) -> list[str]:
    """Returns the gold answer and its aliases; SQuAD keeps its answers under ``answers.text``."""
    golds = []
    for key in ("answer", "answers", "aliases", "answer_aliases"):
        value = row.get(key)
        golds += _strings(value.get("text") if isinstance(value, Mapping) else value)
    return [gold.strip() for gold in golds if gold.strip()]


def _decoded(value: Any) -> Any:
    """Some copies on the hub keep nested columns as JSON text."""
    if isinstance(value, str) and value[:1] in "[{":
        try:
            return msgspec.json.decode(value)
        except msgspec.DecodeError:
            return value
    return value


def _fact_titles(facts: Any) -> list[str]:
    """Supporting facts are pairs of title and sentence, or (hub) a list of titles beside one of sentences."""
    facts = _decoded(facts)
    if isinstance(facts, Mapping):
        return _strings(facts.get("title"))
    return [str(fact[0]) for fact in facts or () if isinstance(fact, (list, tuple)) and fact]


def _paragraph(item: Any, row: Mapping[str, Any]) -> Paragraph:
    supporting = False
    if isinstance(item, Mapping):
        title = item.get("title")
        text = _first(item, "paragraph_text", "text", "contents", "sentences")
        supporting = item.get("is_supporting") is True
    elif isinstance(item, str):
        title, text = row.get("title"), item
    else:
        title, text = item[0], item[1] if len(item) > 1 else ""
    if isinstance(text, (list, tuple)):
        text = " ".join(str(sentence).strip() for sentence in text)
    return Paragraph(clean_title(str(title or "")), str(text or "").strip(), supporting)


def _contexts(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        # The hub's form of a list of records: a record of lists.
        texts = _first(value, "sentences", "text", "paragraph_text", "content") or []
        return list(zip(value.get("title") or [""] * len(texts), texts, strict=False))
    if isinstance(value, str):
        return [value]
    return [item for item in value or () if isinstance(item, (str, Mapping)) or (isinstance(item, (list, tuple)) and item)]


def _meta(row: Mapping[str, Any]) -> dict[str, Any]:
    meta = {key: _decoded(row[key]) for key in _META if row.get(key) is not None}
    steps = _first(row, "decomposition", "question_decomposition")
    if steps:
        meta["decomposition"] = [{"question": step.get("question"), "answer": step.get("answer")} for step in steps]
        meta.setdefault("hops", len(steps))
    return meta
