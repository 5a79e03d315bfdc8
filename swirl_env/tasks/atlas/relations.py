"""The relations of the Atlas world: how documents state them, how a query asks for them, how questions name them.

The two ends of a relation differ in kind (person -> firm -> city -> region ...): a search that sees bags of words cannot tell
"A is B's tutor" from "B is A's tutor". Every phrasing of a relation holds the key words of its query.
"""

from __future__ import annotations

from typing import NamedTuple


class Relation(NamedTuple):
    """A fact that each entity of a kind has exactly one of."""

    name: str
    subject: str
    """Kind of entity that it is about."""
    object: str
    """Kind of entity that it leads to, or ``date`` or ``amount``."""
    query: str
    """What an expert asks a search for; ``{a}`` stands for the subject."""
    sentences: tuple[str, ...]
    """How documents state it; ``{b}`` stands for the object."""
    phrases: tuple[str, ...]
    """How questions name its object."""
    more: str = ""
    """For dates and amounts: the end of a question that asks for the later or the larger one."""
    less: str = ""
    """The same for the earlier or the smaller one."""
    unit: str = ""
    low: int = 0
    high: int = 0
    """Years that dates lie in, or the range of `amount / step`."""
    step: int = 1

    @property
    def is_value(self) -> bool:
        """Whether the object is a date or an amount, which leads nowhere."""
        return self.object in ("date", "amount")


RELATIONS: tuple[Relation, ...] = (
    Relation(
        "employer", "person", "firm", "employer of {a}",
        ("The employer of {a} is {b}.", "{b} is the employer of {a}.", "{a} names {b} as employer.",
         "For years {b} has been the employer of {a}."),
        ("the employer of {a}", "the firm employing {a}"),
    ),
    Relation(
        "school", "person", "school", "school attended by {a}",
        ("The school attended by {a} was {b}.", "{a} attended the school called {b}.", "{b} is the school that {a} attended.",
         "As a child {a} attended {b}, a school."),
        ("the school attended by {a}", "the school once attended by {a}"),
    ),
    Relation(
        "birthplace", "person", "city", "birthplace of {a}",
        ("The birthplace of {a} is {b}.", "{b} is the birthplace of {a}.", "{a} has {b} as birthplace.",
         "A plaque in {b} marks the birthplace of {a}."),
        ("the birthplace of {a}", "the city of birth of {a}"),
    ),
    Relation(
        "birth date", "person", "date", "birth date of {a}",
        ("The birth date of {a} is {b}.", "{b} is the birth date of {a}.", "Records give {b} as the birth date of {a}."),
        ("the birth date of {a}", "the date of birth of {a}"),
        "was born later", "was born earlier", low=1930, high=1999,
    ),
    Relation(
        "salary", "person", "amount", "salary of {a}",
        ("The salary of {a} is {b} crowns.", "{a} draws a salary of {b} crowns.", "A salary of {b} crowns is paid to {a}."),
        ("the salary of {a}", "the salary paid to {a}"),
        "has the higher salary", "has the lower salary", "crowns", 120, 990, 10,
    ),
    Relation(
        "headquarters", "firm", "city", "headquarters of {a}",
        ("The headquarters of {a} are in {b}.", "{a} has its headquarters in {b}.",
         "{b} is home to the headquarters of {a}.", "Visitors find the headquarters of {a} in {b}."),
        ("the headquarters city of {a}", "the city with the headquarters of {a}"),
    ),
    Relation(
        "founder", "firm", "person", "founder of {a}",
        ("The founder of {a} is {b}.", "{b} is the founder of {a}.", "{a} has {b} as its founder.",
         "{b} is remembered as the founder of {a}."),
        ("the founder of {a}", "the person who founded {a}"),
    ),
    Relation(
        "established", "firm", "date", "date {a} was established",
        ("{a} was established on the date of {b}.", "The date on which {a} was established is {b}.",
         "{b} is the date when {a} was established."),
        ("the date of establishment of {a}", "the day of the establishment of {a}"),
        "was established later", "was established earlier", low=1850, high=1999,
    ),
    Relation(
        "staff", "firm", "amount", "staff of {a}",
        ("The staff of {a} numbers {b} people.", "{a} has a staff of {b} people.", "{b} people form the staff of {a}."),
        ("the number of staff of {a}", "the size of the staff of {a}"),
        "has the larger staff", "has the smaller staff", "people", 20, 990, 5,
    ),
    Relation(
        "campus", "school", "city", "campus of {a}",
        ("The campus of {a} is in {b}.", "{a} has its campus in {b}.", "{b} is home to the campus of {a}.",
         "Guests reach the campus of {a} from {b}."),
        ("the campus city of {a}", "the city with the campus of {a}"),
    ),
    Relation(
        "principal", "school", "person", "principal of {a}",
        ("The principal of {a} is {b}.", "{b} is the principal of {a}.", "{a} has {b} as its principal.",
         "{b} took over as principal of {a}."),
        ("the principal of {a}", "the person serving as principal of {a}"),
    ),
    Relation(
        "opened", "school", "date", "date {a} opened",
        ("{a} opened on the date of {b}.", "The date on which {a} opened is {b}.", "{b} is the date when {a} opened."),
        ("the opening date of {a}", "the day of the opening of {a}"),
        "opened later", "opened earlier", low=1800, high=1999,
    ),
    Relation(
        "pupils", "school", "amount", "pupils of {a}",
        ("The number of pupils of {a} is {b}.", "{a} has {b} pupils.", "{b} pupils go to {a}."),
        ("the number of pupils of {a}", "the number of pupils at {a}"),
        "has more pupils", "has fewer pupils", "pupils", 12, 240, 10,
    ),
    Relation(
        "region", "city", "region", "region of {a}",
        ("The region of {a} is {b}.", "{a} lies in the region of {b}.", "{b} is the region around {a}.",
         "On the map {a} is in {b}, a region."),
        ("the region of {a}", "the region around {a}"),
    ),
    Relation(
        "mayor", "city", "person", "mayor of {a}",
        ("The mayor of {a} is {b}.", "{b} is the mayor of {a}.", "{a} elected {b} as mayor.",
         "Voters made {b} the mayor of {a}."),
        ("the mayor of {a}", "the person serving as mayor of {a}"),
    ),
    Relation(
        "population", "city", "amount", "population of {a}",
        ("The population of {a} is {b} people.", "{a} has a population of {b} people.",
         "A count put the population of {a} at {b} people."),
        ("the population of {a}", "the size of the population of {a}"),
        "has the larger population", "has the smaller population", "people", 11, 980, 1_000,
    ),
    Relation(
        "charter", "city", "date", "date of the charter of {a}",
        ("The date of the charter of {a} is {b}.", "{a} received its charter on the date of {b}.",
         "{b} is the date of the charter of {a}."),
        ("the date of the charter of {a}", "the day of the charter of {a}"),
        "received its charter later", "received its charter earlier", low=1500, high=1899,
    ),
    Relation(
        "governor", "region", "person", "governor of {a}",
        ("The governor of {a} is {b}.", "{b} is the governor of {a}.", "{a} has {b} as its governor.",
         "The people of {a} chose {b} as governor."),
        ("the governor of {a}", "the person serving as governor of {a}"),
    ),
    Relation(
        "area", "region", "amount", "area of {a}",
        ("The area of {a} is {b} square miles.", "{a} has an area of {b} square miles.",
         "An area of {b} square miles belongs to {a}."),
        ("the area of {a}", "the size of the area of {a}"),
        "has the larger area", "has the smaller area", "square miles", 11, 950, 50,
    ),
)  # fmt: skip
"""All relations; an entity has one document for each relation of its kind."""

KINDS: tuple[str, ...] = ("person", "firm", "school", "city", "region")

OF_KIND: dict[str, tuple[Relation, ...]] = {k: tuple(r for r in RELATIONS if r.subject == k) for k in KINDS}
"""Kind -> relations about it, in the order of an entity's documents."""

TO_KIND: dict[str, tuple[Relation, ...]] = {k: tuple(r for r in RELATIONS if r.object == k) for k in KINDS}
"""Kind -> relations that lead to it."""

PASTIMES: tuple[str, ...] = (
    "{a} plays the cello.", "{a} plays chess by post.", "{a} keeps bees.", "{a} paints ships.", "{a} collects stamps.",
)  # fmt: skip
"""Documents that no question needs: they fill a world up to its number of documents."""
