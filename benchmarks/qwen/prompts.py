"""What the 0.5B model is shown before each question: instructions, and worked conversations written for this benchmark.

Calls stand in the messages as text, bare JSON on a line of its own: this model writes them so, and after calls in its
template's tags it ends most messages before the call.
"""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Call:
    """What the assistant says before a call, the query, and what comes back."""

    text: str
    query: str
    result: str


@dataclass(frozen=True, slots=True)
class Shot:
    """A worked conversation."""

    question: str
    calls: tuple[Call, ...]
    text: str
    """What the assistant says before its answer."""
    answer: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """The system message and the conversations of a set of questions."""

    system: str
    tool: str
    shots: tuple[Shot, ...]

    def messages(self) -> list[dict[str, str]]:
        """Returns the conversations as the option `shots` takes them."""
        return [message for shot in self.shots for message in self._conversation(shot)]

    def _conversation(self, shot: Shot) -> list[dict[str, str]]:
        messages = [{"role": "user", "content": shot.question}]
        for call in shot.calls:
            messages.append({"role": "assistant", "content": _written(call.text, self.tool, query=call.query)})
            messages.append({"role": "tool", "content": call.result})
        return [*messages, {"role": "assistant", "content": _written(shot.text, "answer", answer=shot.answer)}]


def _written(text: str, name: str, **arguments: str) -> str:
    return f"{text}\n" * bool(text) + json.dumps({"name": name, "arguments": arguments})


def _sum(question: str, calculation: str, result: str) -> Shot:
    return Shot(question, (Call("", calculation, result),), "", result)


GSM8K = Prompt(
    "You solve word problems with the calculator. Call math_exp once: name every quantity in the order of the story, one "
    "short calculation each, separated by semicolons. The last one is what the problem asks for. When the result comes back,"
    " call answer with that number.",
    "math_exp",
    (
        _sum(
            "A box holds 12 rows of 4 eggs. 3 eggs are added, then a third of all eggs is sold. How many are left?",
            "eggs = 12 * 4; eggs_with_more = eggs + 3; eggs_left = eggs_with_more - (eggs_with_more / 3)",
            "34",
        ),
        _sum(
            "Tom earns $8 an hour. He works 6 hours a day on 5 days and then spends $90. How many dollars does he have left?",
            "hours = 6 * 5; dollars_earned = hours * 8; dollars_left = dollars_earned - 90",
            "150",
        ),
        _sum(
            "Ann reads 20 pages on Monday, 50% more on Tuesday, and half as many as on both together on Wednesday. How many "
            "pages does she read in all?",
            "pages_monday = 20; pages_tuesday = pages_monday * 1.5; pages_wednesday = (pages_monday + pages_tuesday) / 2; "
            "pages_in_all = pages_monday + pages_tuesday + pages_wednesday",
            "75",
        ),
        _sum(
            "A pump fills 9 liters in 6 minutes. How many hours does it take to fill a tank of 270 liters?",
            "liters_per_minute = 9 / 6; minutes = 270 / liters_per_minute; hours = minutes / 60",
            "3",
        ),
        _sum(
            "A shop has 80 shirts. 25% of them are red and 3 more than that are blue. The rest is white. Each white shirt "
            "costs $6. How many dollars do all white shirts cost?",
            "shirts = 80; red_shirts = shirts * 0.25; blue_shirts = red_shirts + 3; white_shirts = shirts - red_shirts - "
            "blue_shirts; dollars = white_shirts * 6",
            "222",
        ),
        _sum(
            "Sam is 6 years older than Eva. Eva is 3 times as old as Max, who is 4. How old will all three be together in 2 "
            "years?",
            "max = 4; eva = max * 3; sam = eva + 6; together_in_2_years = (max + 2) + (eva + 2) + (sam + 2)",
            "40",
        ),
        _sum(
            "Mia drinks 2 cups of tea in the morning and 3 in the evening. Each cup takes 5 grams of tea. How many grams of "
            "tea does she use in 4 weeks?",
            "cups_per_day = 2 + 3; grams_per_day = cups_per_day * 5; grams = grams_per_day * (4 * 7)",
            "700",
        ),
        _sum(
            "Ben and Zoe have 36 marbles together. Zoe has twice as many as Ben. How many marbles does Zoe have?",
            "parts = 1 + 2; marbles_ben = 36 / parts; marbles_zoe = marbles_ben * 2",
            "24",
        ),
        _sum(
            "Leo bakes 24 loaves. Each costs him $1.50, and he sells them for three times that. What is his profit in dollars?",
            "cost = 24 * 1.50; price_per_loaf = 1.50 * 3; income = 24 * price_per_loaf; profit = income - cost",
            "72",
        ),
        _sum(
            "A school buys 5 boxes of 30 pencils. It gives 2 pencils to each of 48 pupils. How many pencils are left?",
            "pencils = 5 * 30; pencils_given = 2 * 48; pencils_left = (pencils - pencils_given)",
            "54",
        ),
    ),
)
HOTPOTQA = Prompt(
    "You answer questions with the help of search_query. Search with a few words; passages come back. Search for one thing at a "
    "time and never send a query twice. When you know the answer, call answer with it, as short as possible.",
    "search_query",
    (
        Shot(
            "In which county was the author of Emma born?",
            (
                Call(
                    "First I look for the author of Emma.",
                    "Emma novel author",
                    "[1] Emma (novel): Emma is a novel about the perils of misconstrued romance, written by Jane Austen.\n"
                    "[2] Emma (given name): Emma is a feminine given name.",
                ),
                Call(
                    "Jane Austen wrote Emma. Now I look for where she was born.",
                    "Jane Austen born",
                    "[1] Jane Austen: Jane Austen was an English novelist. She was born in Steventon, Hampshire.\n"
                    "[2] Austen family: The Austens lived at the rectory of Steventon.",
                ),
            ),
            "She was born in Hampshire.",
            "Hampshire",
        ),
        Shot(
            "Which river is longer, the Danube or the Rhine?",
            (
                Call(
                    "First I look for the length of the Danube.",
                    "Danube river length",
                    "[1] Danube: The Danube flows through ten countries and is 2,850 km long.\n"
                    "[2] Danube Delta: The Danube Delta is the second largest river delta in Europe.",
                ),
                Call(
                    "The Danube is 2,850 km long. Now I look for the length of the Rhine.",
                    "Rhine river length",
                    "[1] Rhine: The Rhine begins in Switzerland, reaches the North Sea and is 1,230 km long.\n"
                    "[2] Rhine Gorge: The Rhine Gorge is a popular name for the Upper Middle Rhine Valley.",
                ),
            ),
            "2,850 km is more than 1,230 km.",
            "the Danube",
        ),
        Shot(
            "Were Marie Curie and Alfred Nobel born in the same country?",
            (
                Call(
                    "First I look for where Marie Curie was born.",
                    "Marie Curie born",
                    "[1] Marie Curie: Marie Curie was a physicist and chemist, born in Warsaw, Poland.\n"
                    "[2] Pierre Curie: Pierre Curie was a French physicist.",
                ),
                Call(
                    "Marie Curie was born in Poland. Now I look for where Alfred Nobel was born.",
                    "Alfred Nobel born",
                    "[1] Alfred Nobel: Alfred Nobel was a chemist and inventor, born in Stockholm, Sweden.\n"
                    "[2] Nobel Prize: The Nobel Prize is awarded in Stockholm and Oslo.",
                ),
            ),
            "Poland and Sweden are two countries.",
            "no",
        ),
    ),
)
PROMPTS = {"gsm8k": GSM8K, "hotpotqa": HOTPOTQA}
