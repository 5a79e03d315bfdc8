"""Rows of question sets -> `Question`: the columns of HotpotQA, 2WikiMultiHopQA, MuSiQue, BeerQA, SQuAD, TriviaQA and others.

Which layout a row has shows in its keys, so one reader serves all sets and the user's own files.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Container, Mapping
from typing import Any, NamedTuple

import msgspec

from swirl_env.errors import ConfigError
from swirl_env.tasks.files.answers import boxed_answers, read_golds
from swirl_env.tasks.files.rows import Row

_QUESTION = ("question", "Question", "query", "question_text", "problem", "Prompt", "prompt", "input")
ID_COLUMNS = ("id", "_id", "qid", "question_id", "QuestionId", "ID")
_PASSAGES = ("context", "contexts", "paragraphs", "passages", "passage", "entity_pages", "search_results")
_BODY = ("Body", "body")
"""What SVAMP and ASDiv tell before they ask."""
_FINAL = re.compile(r"####\s*([^\n#]+?)\s*\Z")
_DECOMPOSITION = ("decomposition", "question_decomposition")
_COLUMNS = (_QUESTION, ID_COLUMNS, _PASSAGES, _BODY)
"""Groups of columns of which the first that is filled goes into a field of a task; all others go into `Task.meta` as they are."""
_READ = {*_DECOMPOSITION, "supporting_facts", "supporting_ids"}
"""Columns that are always read."""
_NESTED = ("evidences", "supporting_titles", "retrieved_titles", "context_titles", "context_ids")
"""Columns of `Task.meta` that some copies of the sets keep as JSON text."""


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
    """Supporting titles, if the row names passages by title."""
    ids: tuple[str, ...]
    """Supporting passages, if the row names them by id."""
    meta: dict[str, Any]


def read_question(row: Row, index: int, source: str, name: str = "", all_gold: bool = False) -> Question:
    """Reads a row.

    Args:
        row: the row.
        index: its position in the file.
        source: the file, for messages.
        name: prefix of the id of a row that has none.
        all_gold: whether every passage that the row brings along is a supporting one.

    Raises:
        ConfigError: if the row has no question, or a gold answer of an unknown form.
    """
    row = with_metadata(row)
    text = _question(row)
    if not text:
        raise ConfigError(f"{source}, row {index + 1}: expected a text under 'question'; got the keys {sorted(row)}.")
    number = _first(row, *ID_COLUMNS)
    number = None if number is None or not str(number).strip() else number
    golds, gold_columns = read_golds(row, f"{source}, row {index + 1}")
    golds, solution = _final_answers(golds)
    titles = tuple(dict.fromkeys([*_strings(row.get("supporting_titles")), *_fact_titles(row.get("supporting_facts"))]))
    paragraphs = read_paragraphs(row, frozenset(map(clean_title, titles)), all_gold)
    return Question(
        id=f"{name}{'-' if name else ''}{index}" if number is None else str(number),
        question=text,
        answer=golds[0] if golds and row.get("answerable") is not False else None,
        aliases=tuple(dict.fromkeys(gold for gold in golds[1:] if gold != golds[0])),
        paragraphs=paragraphs,
        titles=titles,
        ids=tuple(_strings(row.get("supporting_ids"))),
        meta={**_meta(row, gold_columns), **({"solution": solution} if solution and "solution" not in row else {})},
    )


def _question(row: Row) -> str:
    """Returns the question of a row, "" if it has none; what it tells before it asks comes first."""
    text = _first(row, *_QUESTION)
    if isinstance(text, Mapping):  # Natural Questions, ARC
        text = text.get("text") or text.get("stem")
    extra = row.get("extra_info")
    if not isinstance(text, str) and isinstance(extra, Mapping):  # verl keeps the question next to the chat
        text = extra.get("question")
    body = _first(row, *_BODY)
    if not isinstance(text, str) or not isinstance(body, str) or not body.strip():
        return text.strip() if isinstance(text, str) else ""
    return join_body(body, text)


def join_body(body: str, question: str) -> str:
    """Returns a question behind what it is about."""
    body = body.strip()
    return f"{body}{'' if body.endswith(('.', '?', '!', ',')) else '.'} {question.strip()}"


def _final_answers(golds: list[str]) -> tuple[list[str], str]:
    r"""Returns the answers without the solutions that end with them, and the first solution: ``#### 12``, ``\boxed{12}``."""
    texts = [(final[1], gold[: final.start()]) if (final := _FINAL.search(gold)) else (gold, "") for gold in golds]
    pairs = [(next(boxed_answers(text), text), before) for text, before in texts]
    return [text for text, _ in pairs], pairs[0][1].strip() if pairs else ""


def has_answer(row: Row) -> bool:
    """Whether a row has a gold answer, also one that is declared unanswerable."""
    return bool(read_golds(with_metadata(row), "")[0])


def read_paragraphs(row: Row, titles: frozenset[str] = frozenset(), all_gold: bool = False) -> tuple[Paragraph, ...]:
    """Reads the passages that a row brings along; those of `titles` (cleaned), or all, are supporting."""
    row = with_metadata(row)
    items = _contexts(_decoded(_first(row, *_PASSAGES)))
    read = (_paragraph(item, row) for item in items)
    return tuple(p._replace(supporting=p.supporting or all_gold or p.title in titles) for p in read if p.text)


def with_metadata(row: Row) -> Row:
    """Returns a row with the columns that FlashRAG keeps one level deeper, under ``metadata``."""
    inner = row.get("metadata")
    return {**inner, **{key: row[key] for key in row if key != "metadata"}} if isinstance(inner, Mapping) else row


def clean_title(title: str) -> str:
    """Returns a title as it is compared: HTML entities resolved, white space collapsed."""
    return " ".join(html.unescape(title).split())


def _first(row: Row, *keys: str) -> Any:
    key = _first_key(row, *keys)
    return row[key] if key else None


def _first_key(row: Row, *keys: str) -> str:
    return next((key for key in keys if row.get(key) is not None), "")


def _strings(value: object) -> list[str]:
    if value is None:
        return []
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in _strings(item)]
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    return [str(value)]


def _decoded(value: Any) -> Any:
    """Some copies on the hub keep nested columns as JSON text."""
    if isinstance(value, str) and value[:1] in "[{":
        try:
            return msgspec.json.decode(value)
        except msgspec.DecodeError:
            return value
    return value


def _fact_titles(facts: object) -> list[str]:
    """Supporting facts are pairs of title and sentence, or (hub) a list of titles and one of sentences."""
    facts = _decoded(facts)
    if isinstance(facts, Mapping):
        return _strings(facts.get("title"))
    pairs = facts if isinstance(facts, (list, tuple)) else ()
    return [str(pair[0]) for pair in pairs if isinstance(pair, (list, tuple)) and pair]


def _paragraph(item: object, row: Row) -> Paragraph:
    supporting = False
    if isinstance(item, Mapping):
        title = item.get("title")
        text = _first(item, "paragraph_text", "text", "contents", "sentences")
        supporting = item.get("is_supporting") is True
    elif isinstance(item, str):
        title, text = row.get("title"), item
    elif isinstance(item, (list, tuple)):
        title, text = item[0], item[1] if len(item) > 1 else ""
    else:
        return Paragraph("", "", False)
    if isinstance(text, (list, tuple)):
        text = " ".join(str(sentence).strip() for sentence in text)
    return Paragraph(clean_title(str(title or "")), str(text or "").strip(), supporting)


def _contexts(value: object) -> list[object]:
    if isinstance(value, Mapping):
        # The hub's form of a list of records: a record of lists.
        texts = _first(value, "sentences", "text", "paragraph_text", "content", "wiki_context", "search_context") or []
        return list(zip(value.get("title") or [""] * len(texts), texts, strict=False))
    if isinstance(value, str):
        return [value]
    items = value if isinstance(value, (list, tuple)) else ()
    return [item for item in items if isinstance(item, (str, Mapping)) or (isinstance(item, (list, tuple)) and item)]


def _meta(row: Row, gold_columns: set[str]) -> dict[str, Any]:
    used = {key for columns in _COLUMNS if (key := _first_key(row, *columns))}
    meta = other_columns(row, _READ | used | gold_columns)
    for key in _NESTED:
        if key in meta:
            meta[key] = _decoded(meta[key])
    steps = _decoded(_first(row, *_DECOMPOSITION))
    if isinstance(steps, list) and all(isinstance(step, Mapping) for step in steps) and steps:
        meta["decomposition"] = [{"question": step.get("question"), "answer": step.get("answer")} for step in steps]
        meta.setdefault("hops", len(steps))
    elif steps:
        meta["decomposition"] = storable(steps)
    return meta


def other_columns(row: Row, read: Container[str]) -> dict[str, Any]:
    """Returns the columns of a row that are not among `read`, as values that can be stored; empty ones are left out."""
    return {str(key): storable(value) for key, value in row.items() if key not in read and value is not None}


def storable(value: object) -> Any:
    """Returns a value as JSON holds it: Parquet files also have dates, bytes, decimals, arrays and missing numbers."""
    if isinstance(value, Mapping):
        return {str(key): storable(item) for key, item in value.items()}
    if (to_list := getattr(value, "tolist", None)) is not None:
        value = to_list()
    if isinstance(value, (list, tuple, set)):
        return [storable(item) for item in value]
    if value is None or isinstance(value, (bool, str)):
        return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)
