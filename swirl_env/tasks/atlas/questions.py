"""Questions over an Atlas world: walks from fact to fact, their gold plans, and how they are put into words."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from swirl_env.errors import ConfigError
from swirl_env.tasks.atlas.relations import KINDS, OF_KIND, TO_KIND, Relation
from swirl_env.tasks.atlas.world import World, passage_id
from swirl_env.types import SEARCH, PlanStep

_TRIES = 2_000


class Walk(NamedTuple):
    """A start entity and the relations followed from it; fact i is the object of relation i."""

    start: int
    relations: tuple[Relation, ...]
    facts: tuple[int, ...]

    @property
    def subjects(self) -> tuple[int, ...]:
        """The entity that each relation is followed from."""
        return (self.start, *self.facts[:-1])

    def entities(self) -> list[tuple[str, int]]:
        """Returns all entities on the walk, with their kinds."""
        entities = [(r.subject, e) for r, e in zip(self.relations, self.subjects, strict=True)]
        last = self.relations[-1]
        return entities if last.is_value else [*entities, (last.object, self.facts[-1])]


def follow(world: World, start: int, relations: Sequence[Relation]) -> Walk:
    """Returns the walk along `relations` from an entity."""
    facts: list[int] = []
    at = start
    for relation in relations:
        at = world.fact(relation, at)
        facts.append(at)
    return Walk(start, tuple(relations), tuple(facts))


def draw_chain(world: World, rng: random.Random, hops: int, values: bool = True) -> Walk:
    """Draws a walk of `hops` relations that meets no entity twice; the last may lead to a date or an amount if `values`."""
    for _ in range(_TRIES):
        kind = rng.choice(KINDS)
        relations: list[Relation] = []
        for left in range(hops, 0, -1):
            relation = rng.choice([r for r in OF_KIND[kind] if (values and left == 1) or not r.is_value])
            relations.append(relation)
            kind = relation.object
        walk = follow(world, rng.randrange(world.counts[relations[0].subject]), relations)
        if _all_different([walk]):
            return walk
    raise _too_small(world, hops)


def draw_pair(world: World, rng: random.Random, hops: int, last: Sequence[Relation]) -> tuple[Walk, Walk]:
    """Draws two walks, `hops` relations together, that end in the same relation (one of `last`) with different values."""
    for _ in range(_TRIES):
        end = rng.choice(last)
        first = rng.randint(1, hops - 1)
        one, two = (draw_to(world, rng, end, n) for n in (first, hops - first))
        if one.facts[-1] != two.facts[-1] and _all_different([one, two]):
            return one, two
    raise _too_small(world, hops)


def draw_to(world: World, rng: random.Random, end: Relation, hops: int) -> Walk:
    """Draws a walk of `hops` relations of which `end` is the last."""
    relations = [end]
    while len(relations) < hops:
        relations.insert(0, rng.choice(TO_KIND[relations[0].subject]))
    return follow(world, rng.randrange(world.counts[relations[0].subject]), relations)


def draw_single(world: World, rng: random.Random, hops: int, last: Sequence[Relation]) -> Walk:
    """Draws a walk that ends in one of `last` and meets no entity twice."""
    for _ in range(_TRIES):
        walk = draw_to(world, rng, rng.choice(last), hops)
        if _all_different([walk]):
            return walk
    raise _too_small(world, hops)


def _all_different(walks: Sequence[Walk]) -> bool:
    entities = [entity for walk in walks for entity in walk.entities()]
    return len(set(entities)) == len(entities)


def _too_small(world: World, hops: int) -> ConfigError:
    return ConfigError(f"A world of {world.documents} documents is too small for questions of {hops} hops. Ask for more.")


def plan(world: World, walks: Sequence[Walk]) -> list[PlanStep]:
    """Returns the searches that walks take, one per relation."""
    steps: list[PlanStep] = []
    for walk in walks:
        for i, (relation, subject, fact) in enumerate(zip(walk.relations, walk.subjects, walk.facts, strict=True)):
            name = world.name(relation.subject, subject)
            steps.append(
                PlanStep(
                    SEARCH,
                    relation.query.format(a=name),
                    world.text(relation, fact),
                    (len(steps) - 1,) if i else (),
                    (passage_id(world.position(relation, subject)),),
                    name,
                )
            )
    return steps


def phrase(world: World, rng: random.Random, start: int, relations: Sequence[Relation], kind: str) -> str:
    """Returns the words for what `relations` lead to from an entity of `kind`, e.g. "the mayor of the birthplace of X"."""
    words = world.name(kind, start)
    for relation in relations:
        words = rng.choice(relation.phrases).format(a=words)
    return words


def chain_question(world: World, rng: random.Random, walk: Walk) -> str:
    """Returns the question whose answer is the end of a walk."""
    words = phrase(world, rng, walk.start, walk.relations, walk.relations[0].subject)
    word = "Who" if walk.relations[-1].object == "person" else "What"
    return rng.choice(("{word} is {words}?", "Name {words}.")).format(word=word, words=words)


def comparison_question(world: World, rng: random.Random, pair: tuple[Walk, Walk], more: bool) -> str:
    """Returns the question which of two walks' last subjects has the larger (or smaller, earlier, later) value."""
    one, two = (phrase(world, rng, w.start, w.relations[:-1], w.relations[0].subject) for w in pair)
    last = pair[0].relations[-1]
    rest = last.more if more else last.less
    if rng.random() < 0.5:
        word = "Who" if last.subject == "person" else f"Which {last.subject}"
        return f"{word} {rest}: {one} or {two}?"
    return f"Of {one} and {two}, {'who' if last.subject == 'person' else 'which'} {rest}?"
