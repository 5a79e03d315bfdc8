"""The Atlas world: people, firms, schools, cities and regions, and one document for each fact about them.

Everything is computed from the entity's number on access, so a world of millions of documents takes no memory
and any document can be made on its own.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from typing import get_args

from swirl_env.corpus import GeneratedCorpus
from swirl_env.errors import ConfigError
from swirl_env.tasks.atlas.relations import KINDS, OF_KIND, PASTIMES, RELATIONS, Relation
from swirl_env.tasks.names import Names, Permutation, Split, mix
from swirl_env.types import Passage

VERSION = 2
"""Part of every fingerprint; to be raised whenever a world's documents or questions change."""

_SHARE = {"firm": 3, "school": 2, "city": 3, "region": 1}
_DOCUMENTS_A_SHARE = 84  # ten people with five documents each, and the documents of the shares above
_FEWEST = 100
_MONTHS = (
    "January February March April May June July August September October November December".split()
)  # fmt: skip


class World:
    """One fictional world.

    Args:
        documents: how many documents describe it (100 or more).
        split: ``train``, ``validation`` or ``test``; their entities never share a name.
        seed: which world of that size.
        words: how many words of each list its names are made of; None for as many as needed.
    """

    def __init__(self, documents: int, split: Split, seed: int, words: int | None = None) -> None:
        if documents < _FEWEST:
            raise ConfigError(f"A world needs at least {_FEWEST} documents; got {documents}.")
        if split not in get_args(Split):
            raise ConfigError(f"The splits of a generated world are {', '.join(get_args(Split))}; got {split!r}.")
        self.documents = documents
        self.split = split
        self.seed = seed
        digest = hashlib.blake2b(f"atlas {VERSION} {split} {seed} {documents} {words}".encode(), digest_size=16)
        self.fingerprint = digest.hexdigest()
        self._key = int(self.fingerprint[:16], 16)
        self.counts = _counts(documents)
        self._first: dict[str, int] = {}
        at = 0
        for kind in KINDS:
            self._first[kind] = at
            at += self.counts[kind] * len(OF_KIND[kind])
        self._facts = at
        self._names = {k: Names(k, n, split, self._key + 7 * i, words) for i, (k, n) in enumerate(self.counts.items())}
        self._links = {r.name: self._link(r, i) for i, r in enumerate(RELATIONS) if not r.is_value}
        self.corpus = GeneratedCorpus(self._passages, documents, self.fingerprint, self.passage)

    def _link(self, relation: Relation, number: int) -> Permutation:
        room = max(self.counts[relation.subject], self.counts[relation.object])
        return Permutation(room, self._key + 1_000 + 7 * number)

    def name(self, kind: str, entity: int) -> str:
        """Returns the name of an entity."""
        return self._names[kind](entity)

    def fact(self, relation: Relation, entity: int) -> int:
        """Returns the object of a relation: an entity's number, a day (as an ordinal), or an amount.

        Entities are shared out evenly, so none is the object of many more facts than the others.
        """
        if not relation.is_value:
            return self._links[relation.name](entity) % self.counts[relation.object]
        bits = mix(self._key ^ self.position(relation, entity))
        if relation.object == "amount":
            return (relation.low + bits % (relation.high - relation.low + 1)) * relation.step
        bits, day = divmod(bits, 28)
        bits, month = divmod(bits, 12)
        return ((relation.low + bits % (relation.high - relation.low + 1)) * 12 + month) * 28 + day

    def text(self, relation: Relation, fact: int) -> str:
        """Returns how a fact's object is written."""
        if not relation.is_value:
            return self.name(relation.object, fact)
        if relation.object == "amount":
            return str(fact)
        months, day = divmod(fact, 28)
        year, month = divmod(months, 12)
        return f"{day + 1} {_MONTHS[month]} {year}"

    def position(self, relation: Relation, entity: int) -> int:
        """Returns the position of the document that states a fact."""
        about = OF_KIND[relation.subject]
        return self._first[relation.subject] + entity * len(about) + about.index(relation)

    def passage(self, position: int) -> Passage:
        """Returns the document at a position."""
        if position >= self._facts:
            # A world has at most four documents more than facts: one on each of the first people.
            sentence = PASTIMES[position - self._facts].format(a=self.name("person", position - self._facts))
            return Passage(passage_id(position), "", sentence)
        kind = next(k for k in reversed(KINDS) if self._first[k] <= position)
        about = OF_KIND[kind]
        entity, place = divmod(position - self._first[kind], len(about))
        return self._passage(about[place], entity, position)

    def _passage(self, relation: Relation, entity: int, position: int) -> Passage:
        value = self.text(relation, self.fact(relation, entity))
        sentence = relation.sentences[mix(self._key + position) % len(relation.sentences)]
        return Passage(passage_id(position), "", sentence.format(a=self.name(relation.subject, entity), b=value))

    def _passages(self) -> Iterator[Passage]:
        position = 0
        for kind in KINDS:
            for entity in range(self.counts[kind]):
                for relation in OF_KIND[kind]:
                    yield self._passage(relation, entity, position)
                    position += 1
        for rest in range(position, self.documents):
            yield self.passage(rest)


def passage_id(position: int) -> str:
    """Returns the id of the document at a position."""
    return f"d{position}"


@functools.lru_cache(maxsize=64)
def world(documents: int, split: Split, seed: int, words: int | None = None) -> World:
    """Returns a world, the same object for the same arguments."""
    return World(documents, split, seed, words)


def _counts(documents: int) -> dict[str, int]:
    """Returns how many entities of each kind `documents` describe; people take what the others leave."""
    shares = documents / _DOCUMENTS_A_SHARE
    counts = {kind: max(round(share * shares), 2) for kind, share in _SHARE.items()}
    others = sum(n * len(OF_KIND[kind]) for kind, n in counts.items())
    return {"person": (documents - others) // len(OF_KIND["person"]), **counts}
