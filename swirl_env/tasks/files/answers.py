r"""The gold answers of a row, in every form that public question sets and training frameworks keep them.

====================================  =================================================
``answer``: text, number, bool, list  HotpotQA, MuSiQue, NQ-open, own files
``answer: {value, aliases}``          TriviaQA
``answers``: list, ``{text: [...]}``  BeerQA, SQuAD; also ``[{"text": ...}]``
``golden_answers``                    FlashRAG, Search-R1
``reward_model.ground_truth``         Search-R1, verl
``answers_objects``                   IRCoT, DROP (spans, number or date)
``possible_answers`` (JSON text)      PopQA
``answers_spans``                     DROP on the hub
``solution`` with ``\boxed{}``         MATH
``output: [{"answer": ...}]``         KILT
``target``, ``gold``...               benchmark suites
``choices`` and ``answerKey``         ARC, CommonsenseQA; MMLU's index and letters too
====================================  =================================================
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from string import ascii_uppercase

import msgspec

from swirl_env.errors import ConfigError

GOLD_COLUMNS = (
    *("answer", "answers", "Answer", "golden_answers", "gold_answers", "answers_objects", "gold_answer", "gold", "target"),
    *("targets", "final_answer", "correct_answer", "ground_truth", "ground_truths", "possible_answers", "reward_model"),
    *("answers_spans", "output"),
)
"""Columns that may hold the gold answer; the first that does is read (``answer`` and ``answers`` together)."""
KEY_COLUMNS = ("answerKey", "answer_key", "correct")
"""Columns that hold the label of one of the choices of a row."""
ALIAS_COLUMNS = ("aliases", "answer_aliases")
_PARTS = ("value", "text", "answer", "span", "ground_truth", "target", "spans", "number", "date", "aliases")
"""Keys of an answer that is a record, in the order in which they are read."""
_NO_ANSWER = {"provenance", "meta"}
"""Keys of KILT's records that only say where an answer comes from."""
_PRINTED = re.compile(r"\{\s*(?P<quote>['\"])\w+(?P=quote)\s*:|\[\s*(?:['\"{]|array\()")
"""How a record or list begins that was printed instead of stored."""
_BOXED = re.compile(r"\\f?boxed\s*\{")


def read_golds(row: Mapping[str, object], source: str) -> tuple[list[str], set[str]]:
    """Returns the gold answer of a row followed by its aliases (empty if it has none), and the columns that were read.

    Raises:
        ConfigError: if an answer has a form that is not known.
    """
    golds: list[str] = []
    choices = read_choices(row)
    read = {"answer", "answers", *ALIAS_COLUMNS}
    for column in (*GOLD_COLUMNS, *KEY_COLUMNS) if choices else GOLD_COLUMNS:
        if not golds or column == "answers":
            value = _choice(choices, row.get(column), f"{source}: {column}" if source else column)
            if column == "answers_spans" and isinstance(value, Mapping):
                value = value.get("spans")  # one span of every annotator, unlike the spans of other records
            golds += _texts(value, f"{source}: {column}" if source else column)
            read.add(column)
    if not golds:
        golds += boxed_answers(row.get("solution"))
    if golds:
        for column in ALIAS_COLUMNS:
            golds += _texts(row.get(column), f"{source}: {column}" if source else column)
    return golds, read


def read_choices(row: Mapping[str, object]) -> dict[str, str]:
    """Returns the choices that a row offers by their labels: A, B, C... unless it names them; empty if it offers none."""
    value = row.get("choices") if row.get("choices") is not None else row.get("options")
    if isinstance(value, str) and value[:1] in "[{":
        value = _decoded(value)
    if isinstance(value, Mapping) and {"label", "text"} <= value.keys():  # the hub's form of a list of records
        labels, texts = (list(part) if isinstance(part, Sequence) else [] for part in (value["label"], value["text"]))
    elif isinstance(value, Mapping):
        labels, texts = list(value), list(value.values())
    else:
        texts = list(value) if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else []
        if texts and all(isinstance(item, Mapping) and {"label", "text"} <= item.keys() for item in texts):
            labels, texts = [item["label"] for item in texts], [item["text"] for item in texts]
        else:
            labels = list(ascii_uppercase[: len(texts)])
    if len(labels) != len(texts) or not all(isinstance(text, str) for text in texts):
        return {}
    choices = {str(label): text.strip() for label, text in zip(labels, texts, strict=True)}
    if all(re.match(rf"\(?{re.escape(label)} ?[).:]", text) for label, text in choices.items()):  # AQuA: "B) 21.5"
        choices = {label: re.split(r"[).:]", text, maxsplit=1)[1].strip() for label, text in choices.items()}
    return choices


def _choice(choices: Mapping[str, str], value: object, source: str) -> object:
    """Returns the text of the choice that an answer names by its label or, counted from 0, its place; else the answer."""
    if isinstance(value, bool) or not isinstance(value, (int, str)) or not choices or value in choices.values():
        return value
    label = str(value).strip()
    if label in choices:
        return choices[label]
    if isinstance(value, int) and 0 <= value < len(choices):
        return list(choices.values())[value]
    if label.isdigit():
        raise ConfigError(f"{source}: expected the text, the label or the index of one of {len(choices)} choices; got {value!r}.")
    return value


def _texts(value: object, source: str) -> Iterator[str]:
    """Yields the answers in a value of any of the forms above, without blanks around them; empty ones are left out."""
    if isinstance(value, str):
        yield from _decoded_texts(value, source)
    elif isinstance(value, bytes):
        yield from _decoded_texts(value.decode("utf-8", "replace"), source)
    elif isinstance(value, bool):
        yield "yes" if value else "no"
    elif isinstance(value, float) and not math.isfinite(value):
        return  # how tables write a missing value
    elif isinstance(value, Mapping):
        yield from _record_texts(value, source)
    elif (to_list := getattr(value, "tolist", None)) is not None:  # numpy, as Parquet readers give
        yield from _texts(to_list(), source)
    elif isinstance(value, list) and value and all(isinstance(item, tuple) and len(item) == 2 for item in value):
        yield from _record_texts(dict(value), source)  # a map column of Parquet
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item, source)
    elif value is not None:
        yield str(value)


def _decoded_texts(text: str, source: str) -> Iterator[str]:
    text = text.strip()
    # A list or record as JSON text, as some copies on the hub keep it. Text that only looks like one is an answer.
    if text[:1] + text[-1:] in ("[]", "{}") and len(text) > 1:
        decoded = _decoded(text)
        if isinstance(decoded, Mapping) or (isinstance(decoded, list) and (not decoded or _PRINTED.match(text))):
            yield from _texts(decoded, source)
            return
        if decoded is None and _PRINTED.match(text):
            raise ConfigError(f"{source}: expected an answer; got a record that was printed as text: {text[:80]!r}.")
    if text:
        yield text


def _decoded(text: str) -> object:
    """Returns what JSON, or the printed form of Python's own lists and records, stands for; None if it is neither."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        pass
    try:
        return ast.literal_eval(text) if _PRINTED.match(text) else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def boxed_answers(solution: object) -> Iterator[str]:
    r"""Yields what stands in the last ``\boxed{}`` of a solution, with its braces balanced."""
    starts = list(_BOXED.finditer(solution)) if isinstance(solution, str) else []
    if not starts or not isinstance(solution, str):
        return
    depth, begin = 1, starts[-1].end()
    for place in range(begin, len(solution)):
        depth += (solution[place] == "{") - (solution[place] == "}")
        if depth == 0:
            yield from [text] if (text := solution[begin:place].strip()) else []
            return


def _record_texts(record: Mapping[str, object], source: str) -> Iterator[str]:
    parts = {str(key).lower(): value for key, value in record.items()}
    if not parts.keys() & set(_PARTS):
        if record and not parts.keys() <= _NO_ANSWER:
            keys = f"expected an answer as text or under one of {', '.join(_PARTS)}; got the keys {sorted(parts)}"
            raise ConfigError(f"{source}: {keys}.")
        return
    for key in _PARTS:
        value = parts.get(key)
        if key == "spans" and isinstance(value, (list, tuple)) and value:
            yield ", ".join(map(str, value))  # several spans are one answer
        elif key == "date" and isinstance(value, Mapping):
            date = " ".join(str(value[part]) for part in ("day", "month", "year") if value.get(part))
            yield from [date] if date else []
        else:
            yield from _texts(value, source)
