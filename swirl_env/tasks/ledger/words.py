"""What the arithmetic stories of Ledger are about."""

from __future__ import annotations

from typing import NamedTuple


class Theme(NamedTuple):
    """A situation with things that can be counted, filled into something, lost and sold."""

    place: str
    """With its article."""
    things: str
    boxes: str
    gets: str
    loses: str
    spoilt: str


THEMES: tuple[Theme, ...] = (
    Theme("an orchard", "apples", "crates", "picks {k} more apples", "gives {k} apples to a neighbour", "are bruised"),
    Theme("a bakery", "rolls", "baskets", "bakes {k} more rolls", "sends {k} rolls to a school", "come out burnt"),
    Theme("a library", "books", "shelves", "is given {k} more books", "lends {k} books to a museum", "are too worn to keep"),
    Theme("a pottery", "bowls", "kilns", "shapes {k} more bowls", "hands {k} bowls to a fair", "crack in the fire"),
    Theme("a print shop", "posters", "rolls", "prints {k} more posters", "puts up {k} posters in town", "are smudged"),
    Theme("a fish farm", "trout", "ponds", "hatches {k} more trout", "sets {k} trout free", "are too small"),
    Theme("a nursery", "seedlings", "trays", "sows {k} more seedlings", "plants {k} seedlings in a park", "wither"),
    Theme(
        "a toy workshop",
        "puppets",
        "chests",
        "carves {k} more puppets",
        "donates {k} puppets to a hospital",
        "have loose strings",
    ),
    Theme("a dairy", "cheeses", "racks", "ripens {k} more cheeses", "serves {k} cheeses at a feast", "turn sour"),
    Theme("a bee yard", "jars of honey", "boxes", "fills {k} more jars of honey", "trades {k} jars of honey for wax", "leak"),
    Theme("a tailor shop", "shirts", "trunks", "sews {k} more shirts", "sends {k} shirts to a theatre", "are cut wrong"),
    Theme("a candle shop", "candles", "cartons", "dips {k} more candles", "lights {k} candles at a fair", "are bent"),
    Theme("a flower shop", "tulips", "buckets", "buys {k} more tulips", "ties {k} tulips into wreaths", "fade overnight"),
    Theme("a vineyard", "bottles", "cases", "fills {k} more bottles", "ships {k} bottles to an inn", "have bad corks"),
    Theme(
        "a stationery", "notebooks", "parcels", "binds {k} more notebooks", "passes {k} notebooks to a club", "have torn covers"
    ),
    Theme("a quarry", "paving stones", "carts", "cuts {k} more paving stones", "lays {k} paving stones in a yard", "are chipped"),
)

ASIDES: tuple[str, ...] = (
    "{p} opened the business {k} years ago.",
    "The workshop lies {k} miles from the coast.",
    "It is day {k} of the season.",
    "{q}, a friend, is {k} years old.",
)
"""Sentences with a number that plays no part."""
