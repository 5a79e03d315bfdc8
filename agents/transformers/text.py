"""Text <-> token ids in pieces: no piece turns into a control token, and pieces read as if encoded in one go."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerFast

from swirl_env.agents.transformers.interfaces import Tokenizer
from swirl_env.episodes.reasoning import CLOSE, OPEN, THINK_MARK
from swirl_env.episodes.transcript import clean

_TAG = re.compile(r"</?([A-Za-z_][\w.-]*)>")
_ANCHORS = ("\n", "|", "0", "x", "~")
"""Texts to put before a piece that continues another, in the order in which they are tried."""
_REMEMBERED = 1 << 14
"""Texts whose ids are remembered, and the other way round: results of tools come again, in the small worlds most of them."""
_SHORT_TEXT, _SHORT_IDS = 384, 128
"""Characters and ids up to which they are remembered: pages do not come again, and thousands of them would fill the memory."""
_NAMED = ("bos", "eos", "pad", "unk", "cls", "sep", "mask")
CHANNEL, MESSAGE, START, END = "<|channel|>", "<|message|>", "<|start|>", "<|end|>"
_FINAL = "final"


class _Added(NamedTuple):
    """A token that the tokenizer knows by name."""

    id: int
    lstrip: bool
    """Whether it takes the blanks before it along."""
    rstrip: bool
    """Whether it takes the blanks behind it along."""


class TextCodec:
    """Encodes and decodes pieces of a conversation.

    Four kinds of special tokens are told apart:

    - *tags*: pairs such as ``<tool_call>`` and ``</tool_call>`` that no template writes; they are text, in both directions;
    - *channels* (``<|channel|>analysis<|message|>``): every channel but ``final`` decodes to a ``<think>`` block;
    - *marks of reasoning* in a model's own spelling (``[THINK]``, ``<seed:think>``, ``<|START_THINKING|>``): they decode to
      ``<think>`` and ``</think>``;
    - all others structure the conversation: no text becomes one, and decoding leaves them out.

    SentencePiece tokenizers put a blank before a text. A piece that continues another is encoded and decoded behind an
    anchor, whose ids are then cut off, so that it gets none.

    Args:
        tokenizer: a transformers tokenizer.
        written: all that the template writes: added tokens in it are control tokens though they are not marked special.
    """

    def __init__(self, tokenizer: Tokenizer, written: str) -> None:
        self.tokenizer = tokenizer
        self._backend = _backend(tokenizer)
        self.special_ids = special_ids(tokenizer)
        """Ids that the tokenizer marks as special."""
        added = {i: str(token) for i, token in tokenizer.added_tokens_decoder.items()}
        self.added_ids = frozenset(added)
        self.known_ids = frozenset(tokenizer.get_vocab().values()) | self.added_ids
        """Ids that stand for a token."""
        self.tags = _tags(tokenizer, {i: name for i, name in added.items() if i in self.special_ids}, written)
        """Special tokens that are text, by name."""
        tag_ids = frozenset(self.tags.values())
        free = tag_ids | self._unknown()
        self.controls = {
            name: i
            for i, name in added.items()
            if i not in free and (i in self.special_ids or (name in written and name.strip()))
        }
        """Control tokens by name: special ones, and added ones that the template writes."""
        self.control_ids = frozenset(self.controls.values()) | (self.special_ids - free)
        self.hidden_ids = self.special_ids - tag_ids
        """Ids that decoding leaves out."""
        self._marks = {
            i: CLOSE if mark["close"] else OPEN
            for i, name in added.items()
            if i not in tag_ids and (mark := THINK_MARK.fullmatch(name.strip())) is not None
        }
        """Added tokens that open or close a think block."""
        self._channels = {name: self.controls[name] for name in (CHANNEL, MESSAGE, START, END) if name in self.controls}
        self.channel_ids = frozenset(self._channels.values()) if {CHANNEL, MESSAGE} <= self._channels.keys() else frozenset()
        """Control tokens of a model that writes into channels, as gpt-oss does."""
        self._tag_split = re.compile("(" + "|".join(map(re.escape, self.tags)) + ")") if self.tags else None
        self._anchored = all(self._raw(f"{anchor}y") != [*self._raw(anchor), *self._raw("y")] for anchor in _ANCHORS)
        self._blank_after_added = self._anchored and self._adds_blank_after_added()
        self._anchor_ids = self._raw("\n")
        self._anchor_text = self._plain_decode(self._anchor_ids)
        self._encoded = functools.lru_cache(maxsize=_REMEMBERED)(self._encode)
        self._encoded_around = functools.lru_cache(maxsize=_REMEMBERED)(self._encode_around)
        self._decoded = functools.lru_cache(maxsize=_REMEMBERED)(self._decode)
        self._added = {
            name: _Added(i, bool(getattr(token, "lstrip", False)), bool(getattr(token, "rstrip", False)))
            for i, token in tokenizer.added_tokens_decoder.items()
            if (name := str(token))
        }
        names = sorted(self._added, key=len, reverse=True)
        self._added_name = re.compile("(" + "|".join(map(re.escape, names)) + ")") if names else None
        self._split_added = functools.lru_cache(maxsize=1024)(self._split_at_added)

    def encode(self, text: str, before: int | None) -> tuple[int, ...]:
        """Returns the ids of a text that stands behind the id `before` (None at the start): no control token among them."""
        return self._encode_once(text, self._continues(before))

    def _encode_once(self, text: str, inside: bool) -> tuple[int, ...]:
        return (self._encoded if len(text) <= _SHORT_TEXT else self._encode)(text, inside)

    def encode_around(self, pieces: Sequence[tuple[str, bool]], before: int | None) -> tuple[int, ...]:
        """Returns the ids of what stands between two actions: messages, and what the template writes around them.

        Text up to the next added token is encoded in one go, as the tokenizer would encode the whole conversation, so it does
        not matter where a message ends and the template goes on.

        Args:
            pieces: texts, each with whether the template wrote it; only then may control tokens be in it.
            before: the id in front; None at the start.
        """
        short = sum([len(piece) for piece, _ in pieces]) <= _SHORT_TEXT
        return (self._encoded_around if short else self._encode_around)(tuple(pieces), self._continues(before))

    def _continues(self, before: int | None) -> bool:
        """Returns whether a text behind an id has to be encoded as the continuation of another, without a blank of its own."""
        return self._anchored and before is not None and (before not in self.added_ids or not self._blank_after_added)

    def _encode_around(self, pieces: tuple[tuple[str, bool], ...], inside: bool) -> tuple[int, ...]:
        ids: list[int] = []
        text, strip = "", False
        for piece, trusted in pieces:
            for part in self._split_added(piece) if trusted else (piece,):
                token = self._added.get(part) if trusted else None
                if token is None:
                    text += part
                    continue
                text = text.rstrip() if token.lstrip else text
                ids += self._encode_once(text.lstrip() if strip else text, inside)
                ids.append(token.id)
                text, strip, inside = "", token.rstrip, self._continues(token.id)
        return (*ids, *self._encode_once(text.lstrip() if strip else text, inside))

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of sampled ids. Control tokens are left out: they structure the conversation and are no text."""
        return (self._decoded if len(ids) <= _SHORT_IDS else self._decode)(tuple(ids))

    def _decode(self, ids: tuple[int, ...]) -> str:
        if self.channel_ids and self._channels[CHANNEL] in ids:
            return "".join(self._decode_channels(ids))
        return self._visible(ids)

    def _visible(self, ids: Sequence[int]) -> str:
        if self._marks.keys().isdisjoint(ids):
            return self._text(ids)
        text, start = "", 0
        for at, i in enumerate(ids):
            if i in self._marks:
                text += self._text(ids[start:at]) + self._marks[i]
                start = at + 1
        return text + self._text(ids[start:])

    def _text(self, ids: Sequence[int]) -> str:
        ids = [i for i in ids if i not in self.hidden_ids]
        if not self._anchored:
            return self._plain_decode(ids)
        return self._plain_decode([*self._anchor_ids, *ids])[len(self._anchor_text) :]

    def _decode_channels(self, ids: Sequence[int]) -> Iterator[str]:
        """Yields the text of messages in channels; all but those of the final channel as think blocks."""
        message, headers = self._channels[MESSAGE], (self._channels[CHANNEL], self._channels.get(START))
        body: list[int] = []
        in_header, thinking = False, False
        for i in (*ids, None):
            if i is not None and i not in self.channel_ids:
                body.append(i)
                continue
            text, body = self._visible(body), []
            if in_header and i == message:
                thinking = text.split()[:1] != [_FINAL]
                yield OPEN if thinking else ""
            elif not in_header:
                yield text
                if thinking and i is not None:
                    yield CLOSE
                    thinking = False
            in_header = i in headers

    def _split_at_added(self, text: str) -> tuple[str, ...]:
        """Returns the names of added tokens in a text, and what is between them."""
        return (text,) if self._added_name is None else tuple(filter(None, self._added_name.split(text)))

    def _encode(self, text: str, inside: bool) -> tuple[int, ...]:
        text = clean(text)
        if not text:
            return ()
        pieces = [text] if self._tag_split is None else self._tag_split.split(text)
        ids: list[int] = []
        for piece in filter(None, pieces):
            if piece in self.tags:
                ids.append(self.tags[piece])
            else:
                after_tag = bool(ids) and self._anchored and not self._blank_after_added
                ids += self._encode_text(piece, after_tag if ids else inside)
        return tuple(ids)

    def _encode_text(self, text: str, inside: bool) -> list[int]:
        """Returns ids of `text` with no control token among them, however the text is spelled."""
        ids = self._continued(text, inside)
        if self.control_ids.isdisjoint(ids):
            return ids
        # Added tokens that are not marked special are found in spite of `split_special_tokens`: cut their names in two.
        pieces = [text]
        for name in self.controls:
            pieces = [part for piece in pieces for part in _halve(piece, name)]
        ids = [i for k, piece in enumerate(pieces) for i in self._continued(piece, inside or k > 0)]
        if self.control_ids.isdisjoint(ids):
            return ids
        # A normaliser made the name out of other characters. Single characters make none; were one a token, it is dropped.
        ids = [i for k, char in enumerate(text) for i in self._continued(char, inside or k > 0)]
        return [i for i in ids if i not in self.control_ids]

    def _continued(self, text: str, inside: bool) -> list[int]:
        """Returns the ids of `text`, behind an anchor if it continues other text."""
        if inside and self._anchored:
            for anchor in _ANCHORS:
                before = self._raw(anchor)
                ids = self._raw(anchor + text)
                if before and ids[: len(before)] == before:
                    return ids[len(before) :]
        return self._raw(text)

    def _unknown(self) -> frozenset[int]:
        """Returns the id that unknown characters become, which any text may hold; none if the tokenizer knows all bytes."""
        return frozenset(i for i in self._raw("\U000f1234") if i == self.tokenizer.unk_token_id)

    def _adds_blank_after_added(self) -> bool:
        """Returns whether a text right behind an added token gets a blank, as the start of a text does."""
        name = next((name for name, i in self.controls.items() if self._raw(name, False) == [i]), None)
        return name is None or self._raw(f"{name}x", False)[1:] == self._raw("x")

    def _raw(self, text: str, split_special_tokens: bool = True) -> list[int]:
        if (backend := self._backend) is None:
            return list(self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=split_special_tokens))
        # What transformers does for one text, in a quarter of the time: others may have set these for theirs.
        if backend.truncation is not None:
            backend.no_truncation()
        if backend.padding is not None:
            backend.no_padding()
        backend.encode_special_tokens = split_special_tokens
        ids: list[int] = backend.encode(text, add_special_tokens=False).ids
        return ids

    def _plain_decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _backend(tokenizer: Any) -> Any:
    """Returns the tokenizer inside that of transformers; None if encoding is more than to ask it."""
    kind = type(tokenizer)
    plain = isinstance(tokenizer, PreTrainedTokenizerFast) and all(
        getattr(kind, name, None) is getattr(PreTrainedTokenizerFast, name, None)
        for name in ("encode", "_encode_plus", "_batch_encode_plus")
    )
    return tokenizer.backend_tokenizer if plain else None


def special_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Returns the ids of all tokens that a tokenizer marks as special."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(tokenizer.all_special_ids) | frozenset(added)


def _tags(tokenizer: Tokenizer, special: dict[int, str], written: str) -> dict[str, int]:
    """Returns the special tokens that are text: the two of an XML tag, neither of which structures a conversation."""
    named = {getattr(tokenizer, f"{name}_token_id", None) for name in _NAMED}
    tags = {name: i for i, name in special.items() if i not in named and _TAG.fullmatch(name)}
    free = {name: i for name, i in tags.items() if name in (OPEN, CLOSE) or name not in written}
    known = {*free, *(str(token) for token in tokenizer.added_tokens_decoder.values())}
    return {name: i for name, i in free.items() if _twin(name) in known and (_twin(name) in free or _twin(name) not in written)}


def _twin(name: str) -> str:
    """Returns the other token of a tag."""
    return f"<{name[2:]}" if name.startswith("</") else f"</{name[1:]}"


def _halve(text: str, name: str) -> list[str]:
    """Returns `text` in pieces, none of which holds `name`."""
    head, tail = name[:1], name[1:]
    parts = text.split(name)
    return [*(piece for part in parts[:-1] for piece in (part + head, tail) if piece), parts[-1]] if len(parts) > 1 else parts
