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


def _sum(question: str, text: str, expression: str, result: str) -> Shot:
    return Shot(question, (Call(text, expression, result),), "", result)


GSM8K = Prompt(
    "You solve word problems. First reason step by step in short sentences, each with its calculation. Then call math_exp with "
    "the last calculation. When its result comes back, call answer with that number.",
    "math_exp",
    (
        _sum(
            "A box holds 12 rows of 4 eggs. 3 eggs are added, then a third of all eggs is sold. How many are left?",
            "There are 12 rows of 4 eggs, which is 12 * 4 = 48 eggs. With 3 more eggs there are 48 + 3 = 51 eggs. A third of"
            " all eggs is sold, which is 51 / 3 = 17 eggs. The eggs that are left are 51 - 17.",
            "51 - 17",
            "34",
        ),
        _sum(
            "Tom earns $8 an hour. He works 6 hours a day on 5 days and then spends $90. How many dollars does he have left?",
            "Tom works 6 hours a day on 5 days, which is 6 * 5 = 30 hours. He earns $8 an hour, so he earns 30 * 8 = 240 "
            "dollars. He spends 90 dollars. What he has left is 240 - 90 dollars.",
            "240 - 90",
            "150",
        ),
        _sum(
            "Ann reads 20 pages on Monday, 50% more on Tuesday, and half as many as on both together on Wednesday. How many "
            "pages does she read in all?",
            "On Monday Ann reads 20 pages. On Tuesday she reads 50% more than 20, which is 20 * 1.5 = 30 pages. On both days"
            " together she reads 20 + 30 = 50 pages. On Wednesday she reads half of 50, which is 50 / 2 = 25 pages. In all "
            "she reads 20 + 30 + 25 pages.",
            "20 + 30 + 25",
            "75",
        ),
        _sum(
            "A pump fills 9 liters in 6 minutes. How many hours does it take to fill a tank of 270 liters?",
            "The pump fills 9 / 6 = 1.5 liters per minute. For 270 liters it takes 270 / 1.5 = 180 minutes. An hour has 60 "
            "minutes, so it takes 180 / 60 hours.",
            "180 / 60",
            "3",
        ),
        _sum(
            "A shop has 80 shirts. 25% of them are red and 3 more than that are blue. The rest is white. Each white shirt "
            "costs $6. How many dollars do all white shirts cost?",
            "25% of 80 shirts are red, which is 80 * 0.25 = 20 shirts. The blue shirts are 3 more than that, which is 20 + 3"
            " = 23 shirts. Red and blue together are 20 + 23 = 43 shirts. The rest is white, which is 80 - 43 = 37 shirts. "
            "Each white shirt costs $6, so they cost 37 * 6 dollars.",
            "37 * 6",
            "222",
        ),
        _sum(
            "Mia drinks 2 cups of tea in the morning and 3 in the evening. Each cup takes 5 grams of tea. How many grams of "
            "tea does she use in 4 weeks?",
            "Mia drinks 2 + 3 = 5 cups a day. Each cup takes 5 grams, so she uses 5 * 5 = 25 grams a day. A week has 7 days,"
            " so 4 weeks have 4 * 7 = 28 days. In 4 weeks she uses 25 * 28 grams.",
            "25 * 28",
            "700",
        ),
        _sum(
            "Ben and Zoe have 36 marbles together. Zoe has twice as many as Ben. How many marbles does Zoe have?",
            "Ben has 1 part and Zoe has 2 parts, which is 1 + 2 = 3 parts together. One part is 36 / 3 = 12 marbles. Zoe has"
            " 2 parts, which is 12 * 2 marbles.",
            "12 * 2",
            "24",
        ),
        _sum(
            "Leo bakes 24 loaves. Each costs him $1.50, and he sells them for three times that. What is his profit in dollars?",
            "Baking costs Leo 24 * 1.50 = 36 dollars. He sells each loaf for 1.50 * 3 = 4.50 dollars. For 24 loaves he gets "
            "24 * 4.50 = 108 dollars. His profit is 108 - 36 dollars.",
            "108 - 36",
            "72",
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
