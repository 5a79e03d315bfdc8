"""The gold answers of a row, in every form that public question sets and training frameworks keep them.

====================================  =================================================
``answer``: text, number, bool, list  HotpotQA, MuSiQue, NQ-open, own files
``answer: {value, aliases}``          TriviaQA
``answers``: list, ``{text: [...]}``  BeerQA, SQuAD; also ``[{"text": ...}]``
``golden_answers``                    FlashRAG, Search-R1
``reward_model.ground_truth``         Search-R1, verl
``answers_objects``                   IRCoT, DROP (spans, number or date)
``possible_answers`` (JSON text)      PopQA
``target``, ``gold``...               benchmark suites
====================================  =================================================
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import msgspec

from swirl_env.errors import ConfigError

GOLD_COLUMNS = (
    *("answer", "answers", "Answer", "golden_answers", "gold_answers", "answers_objects", "gold_answer", "gold", "target"),
    *("targets", "final_answer", "correct_answer", "ground_truth", "ground_truths", "possible_answers", "reward_model"),
)
"""Columns that may hold the gold answer; the first that does is read (``answer`` and ``answers`` together)."""
ALIAS_COLUMNS = ("aliases", "answer_aliases")
_PARTS = ("value", "text", "answer", "span", "ground_truth", "target", "spans", "number", "date", "aliases")
"""Keys of an answer that is a record, in the order in which they are read."""


def read_golds(row: Mapping[str, object], source: str) -> tuple[list[str], set[str]]:
    """Returns the gold answer of a row followed by its aliases (empty if it has none), and the columns that were read.

    Raises:
        ConfigError: if an answer has a form that is not known.
    """
    golds: list[str] = []
    read = {"answer", "answers", *ALIAS_COLUMNS}
    for column in GOLD_COLUMNS:
        if not golds or column == "answers":
            golds += _texts(row.get(column), f"{source}: {column}")
            read.add(column)
    if golds:
        for column in ALIAS_COLUMNS:
            golds += _texts(row.get(column), f"{source}: {column}")
    return golds, read


def _texts(value: object, source: str) -> Iterator[str]:
    """Yields the answers in a value of any of the forms above, without blanks around them; empty ones are left out."""
    if isinstance(value, str):
        yield from _decoded_texts(value, source)
    elif isinstance(value, bool):
        yield "yes" if value else "no"
    elif isinstance(value, float) and not math.isfinite(value):
        return  # how tables write a missing value
    elif isinstance(value, Mapping):
        yield from _record_texts(value, source)
    elif (to_list := getattr(value, "tolist", None)) is not None:  # numpy, as Parquet readers give
        yield from _texts(to_list(), source)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item, source)
    elif value is not None:
        yield str(value)


def _decoded_texts(text: str, source: str) -> Iterator[str]:
    text = text.strip()
    # A list or record as JSON text, as some copies on the hub keep it. Text that only looks like one is an answer.
    if text[:1] + text[-1:] in ("[]", "{}") and len(text) > 1:
        try:
            decoded = msgspec.json.decode(text)
        except msgspec.DecodeError:
            pass
        else:
            if isinstance(decoded, Mapping) or all(isinstance(item, str) for item in decoded):
                yield from _texts(decoded, source)
                return
    if text:
        yield text


def _record_texts(record: Mapping[str, object], source: str) -> Iterator[str]:
    parts = {str(key).lower(): value for key, value in record.items()}
    if not parts.keys() & set(_PARTS):
        if record:
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
