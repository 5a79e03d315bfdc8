"""Arithmetic stories: a quantity that things happen to, one sentence each, with the calculation that each one takes."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from math import gcd

from swirl_env.tasks.ledger.words import ASIDES, Theme
from swirl_env.types import CALCULATOR, PlanStep

_LARGEST = 200_000_000
_PERCENT = (4, 5, 8, 10, 12, 15, 20, 25, 30, 35, 40, 60, 75)


class Misfit(Exception):
    """A turn that does not fit the quantity: it would give halves of things, nothing at all, or far too much."""


def number_text(hundredths: int) -> str:
    """Writes a number given in hundredths, as all quantities are here: exact, and quicker than fractions."""
    whole, part = divmod(hundredths, 100)
    return f"{whole}.{part:02d}".rstrip("0") if part else str(whole)


class Story:
    """A story that grows turn by turn, together with its gold plan.

    Args:
        rng: decides everything that is left open.
        theme: what the story is about.
        person: whose story it is, by full name; later sentences use the first name.
        other: a second person, of another first name.
    """

    def __init__(self, rng: random.Random, theme: Theme, person: str, other: str) -> None:
        self.rng = rng
        self.theme = theme
        self.owner = person
        self.partner = other
        self.person = person.partition(" ")[0]
        self.other = other.partition(" ")[0]
        self.sentences: list[str] = []
        self.steps: list[PlanStep] = []
        self.stated: set[str] = set()
        """Numbers that the text states."""
        self.computed: set[str] = set()
        """Results of the plan so far."""
        self.value = 0
        """The quantity, in hundredths."""
        self.source: int | None = None
        """The plan step that gave `value`; None if the text did."""
        self.money = False

    def state(self, value: int) -> str:
        """Returns a whole number for the text, and notes it."""
        text = str(value)
        self.stated.add(text)
        return text

    def compute(self, expression: str, value: int, *needs: int | None) -> int:
        """Adds a plan step that gives `value` hundredths and returns its index.

        Raises:
            Misfit: if the value does not fit, or is not new.
        """
        text = number_text(value)
        if not 0 < value <= _LARGEST or text in self.stated or text in self.computed:
            raise Misfit
        self.computed.add(text)
        self.steps.append(PlanStep(CALCULATOR, expression, text, tuple(n for n in needs if n is not None)))
        return len(self.steps) - 1

    def become(self, expression: str, value: int, *needs: int | None) -> None:
        """Makes the outcome of a calculation the quantity that the story goes on with."""
        self.source = self.compute(expression, value, self.source, *needs)
        self.value = value

    @property
    def grain(self) -> int:
        """What the quantity must be a multiple of: a whole thing, or a hundredth of a crown."""
        return 1 if self.money else 100

    def pick_divisor(self, candidates: Sequence[int]) -> int:
        """Returns one of the candidates that the quantity can be divided by.

        Raises:
            Misfit: if there is none.
        """
        return self._pick([k for k in candidates if self.value % (k * self.grain) == 0])

    def pick_percentage(self) -> int:
        """Returns a percentage of the quantity that comes out even.

        Raises:
            Misfit: if there is none.
        """
        return self._pick([p for p in _PERCENT if self.value * p % (100 * self.grain) == 0])

    def _pick(self, fitting: list[int]) -> int:
        if not fitting:
            raise Misfit
        return self.rng.choice(fitting)

    @property
    def now(self) -> str:
        """The quantity as text."""
        return number_text(self.value)

    @property
    def unit(self) -> str:
        """What is being counted."""
        return "crowns" if self.money else self.theme.things

    def question(self) -> str:
        """Returns the story with its question at the end."""
        end = f"How many {self.unit} does {self.person} have in the end?"
        return " ".join([*self.sentences, end])


Turn = Callable[[Story], None]


def begin_plain(s: Story) -> None:
    """A first quantity that the text states."""
    n = s.rng.randint(12, 400)
    s.value = 100 * n
    s.sentences.append(f"{s.owner} has {s.theme.place} and begins with {s.state(n)} {s.theme.things}.")


def begin_product(s: Story) -> None:
    """Some boxes with some number of things each."""
    n, each = s.rng.randint(3, 40), s.rng.randint(4, 60)
    t = s.theme
    s.sentences.append(f"{s.owner} has {t.place} and fills {s.state(n)} {t.boxes} with {s.state(each)} {t.things} each.")
    s.become(f"{n} * {each}", 100 * n * each)


def begin_together(s: Story) -> None:
    """Two people's boxes put together."""
    a, b, c, d = (s.rng.randint(3, 40) for _ in range(4))
    t = s.theme
    s.sentences.append(
        f"{s.owner} and {s.partner} share {t.place}. {s.person} fills {s.state(a)} {t.boxes} with {s.state(b)} {t.things} each, "
        f"{s.other} fills {s.state(c)} {t.boxes} with {s.state(d)} {t.things} each and hands them all over to {s.person}."
    )
    one = s.compute(f"{a} * {b}", 100 * a * b)
    two = s.compute(f"{c} * {d}", 100 * c * d)
    s.become(f"{a * b} + {c * d}", 100 * (a * b + c * d), one, two)


def gain(s: Story) -> None:
    """Some more."""
    k = s.rng.randint(5, 300)
    if s.money:
        s.sentences.append(f"{s.person} adds {s.state(k)} crowns of savings.")
    else:
        s.sentences.append(f"{s.person} {s.theme.gets.format(k=s.state(k))}.")
    s.become(f"{s.now} + {k}", s.value + 100 * k)


def lose(s: Story) -> None:
    """Some fewer."""
    k = s.rng.randint(3, max(4, s.value // 150))
    if s.money:
        s.sentences.append(f"{s.person} pays {s.state(k)} crowns in rent.")
    else:
        s.sentences.append(f"{s.person} {s.theme.loses.format(k=s.state(k))}.")
    s.become(f"{s.now} - {k}", s.value - 100 * k)


def multiply(s: Story) -> None:
    """A whole multiple."""
    k = s.rng.randint(2, 9)
    if s.money:
        s.sentences.append(f"All of this happens in each of {s.state(k)} weeks, and {s.person} saves the money.")
    else:
        s.sentences.append(f"A good season makes the stock {s.state(k)} times as large.")
    s.become(f"{s.now} * {k}", s.value * k)


def divide(s: Story) -> None:
    """One of several equal parts."""
    k = s.pick_divisor(range(2, 13))
    s.sentences.append(f"{s.person} divides the {s.unit} into {s.state(k)} equal parts and keeps one of them.")
    s.become(f"{s.now} / {k}", s.value // k)


def keep_fraction(s: Story) -> None:
    """A fraction of it."""
    below = s.pick_divisor(range(3, 9))
    above = s.rng.choice([k for k in range(2, below) if gcd(k, below) == 1])
    s.sentences.append(f"{s.person} keeps {s.state(above)}/{s.state(below)} of the {s.unit} and gives the rest away.")
    s.become(f"{s.now} * {above} / {below}", s.value // below * above)


def lose_percent(s: Story) -> None:
    """A percentage less: two calculations."""
    p = s.pick_percentage()
    if s.money:
        s.sentences.append(f"{s.person} pays {s.state(p)} percent of it in tax.")
    else:
        s.sentences.append(f"{s.state(p)} percent of the {s.theme.things} {s.theme.spoilt} and have to go.")
    part = s.value * p // 100
    index = s.compute(_percent(s, p), part, s.source)
    s.become(f"{s.now} - {number_text(part)}", s.value - part, index)


def gain_percent(s: Story) -> None:
    """A percentage more: two calculations."""
    p = s.pick_percentage()
    s.sentences.append(f"{'Interest' if s.money else 'A lucky find'} adds {s.state(p)} percent to the {s.unit}.")
    part = s.value * p // 100
    index = s.compute(_percent(s, p), part, s.source)
    s.become(f"{s.now} + {number_text(part)}", s.value + part, index)


def sell(s: Story) -> None:
    """Everything turned into money."""
    hundredths = 25 * s.rng.randint(8, 50)
    price = number_text(hundredths)
    s.stated.add(price)
    s.sentences.append(f"{s.person} sells all of them for {price} crowns each.")
    s.money = True
    s.become(f"{s.now} * {price}", s.value // 100 * hundredths)


def _percent(s: Story, p: int) -> str:
    return f"{p}% of {s.now}" if s.rng.random() < 0.5 else f"{s.now} * {p} / 100"


BEGINNINGS: tuple[tuple[Turn, int], ...] = ((begin_plain, 0), (begin_product, 1), (begin_together, 3))
"""Ways to begin, with the number of calculations that each takes."""

TURNS: tuple[tuple[Turn, int], ...] = (
    (gain, 1), (lose, 1), (multiply, 1), (divide, 1), (keep_fraction, 1), (lose_percent, 2), (gain_percent, 2), (sell, 1),
)  # fmt: skip
"""Things that happen, with the number of calculations that each takes."""


def draw_plot(rng: random.Random, operations: int) -> list[Turn]:
    """Draws a beginning and turns that take `operations` calculations in all, none twice in a row, and one sale at most."""
    turn, cost = rng.choice([b for b in BEGINNINGS if b[1] <= operations])
    turns = [turn]
    remaining = operations - cost
    while remaining:
        fitting = [t for t in TURNS if t[1] <= remaining and t[0] is not turns[-1] and not (t[0] is sell and sell in turns)]
        turn, cost = rng.choice(fitting)
        turns.append(turn)
        remaining -= cost
    return turns


def write_story(rng: random.Random, turns: Sequence[Turn], theme: Theme, person: str, other: str) -> Story:
    """Returns a story that takes `turns`.

    Raises:
        Misfit: if a turn did not fit; try again.
    """
    story = Story(rng, theme, person, other)
    for turn in turns:
        turn(story)
    if rng.random() < 0.3:
        aside = rng.choice(ASIDES).format(p=story.person, q=story.other, k=story.state(rng.randint(3, 60)))
        story.sentences.insert(rng.randint(1, len(story.sentences)), aside)
    if not story.stated.isdisjoint(story.computed):
        raise Misfit
    return story
