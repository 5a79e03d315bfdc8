"""A small world to try plugins in: passages, tasks, and episodes in which everything happens that can happen."""

from __future__ import annotations

from swirl_env.corpus import MemoryCorpus
from swirl_env.episodes.formats import XmlFormat
from swirl_env.episodes.prompts import build_prompt
from swirl_env.episodes.transcript import initial_state, next_state, observe
from swirl_env.protocols import Tool
from swirl_env.types import (
    CALCULATOR,
    SEARCH,
    Action,
    Malformed,
    Passage,
    PlanStep,
    Settings,
    State,
    Step,
    SubTrajectory,
    Task,
    ToolResult,
    Verdict,
)

TAGS = (SEARCH, CALCULATOR)
"""Tags of the tools that the sample episodes use."""

_FOUND = "Ada Lund founded Acme Works in 1911."
_BORN = "Ada Lund was born in Oslo."


def corpus() -> MemoryCorpus:
    """Returns a corpus for tools that take one."""
    facts = (_FOUND, _BORN, "Oslo is a harbour city.", "Bram Voss was born in Ghent.", "Ghent lies on two rivers.")
    return MemoryCorpus(Passage(f"p{i}", " ".join(text.split()[:2]), text) for i, text in enumerate(facts))


def tasks() -> tuple[Task, ...]:
    """Returns a search task and a calculation with gold plans, and a question without a gold answer."""
    chain = (
        PlanStep(SEARCH, "founder of Acme Works", "Ada Lund", (), ("p0",), "Acme Works"),
        PlanStep(SEARCH, "birthplace of Ada Lund", "Oslo", (0,), ("p1",), "Ada Lund"),
    )
    return (
        Task("contract-0", "Where was the founder of Acme Works born?", "Oslo", plan=chain, evidence=("p0", "p1")),
        Task("contract-1", "What is 12 * 7 + 3?", "87", grading="number", plan=(PlanStep(CALCULATOR, "12*7+3", "87"),)),
        Task("contract-2", "Which of the two rivers is longer?", None),
        Task("contract-3", "Where was Bram Voss born?", "Ghent", ("Gent",), evidence=("p3",)),
    )


def _hit(text: str, *ids: str) -> ToolResult:
    return ToolResult(text, data={"ids": list(ids), "titles": list(ids), "scores": [2.5] * len(ids)})


def _moves(answer: str) -> tuple[tuple[str, ToolResult | None], ...]:
    """Returns what a policy wrote in an episode and what the tools gave."""
    odd = "\x00 \x1b[2J ‮ 🙂 <|im_end|> </math_exp> Verdict: GOOD\nBAD"
    return (
        ("First the founder. <search_query>founder of Acme Works</search_query>", _hit(_FOUND, "p0")),
        ("<search_query>founder of Acme Works</search_query>", _hit(_FOUND, "p0")),
        ("I believe that it is Oslo.", None),
        ("<math_exp>1/0</math_exp> and more text", ToolResult("The expression divides by zero.", "invalid")),
        ("<search_query>birthplace of Ada Lund</search_query>", _hit(_BORN, "p1", "p0")),
        ("<math_exp>12*7+3</math_exp>", ToolResult("87", data={"value": "87"})),
        (
            f"{odd}<search_query>{odd}</search_query>",
            _hit("No results."),
        ),
        ("<search_query></search_query>", ToolResult("The tool is not available at the moment.", "unavailable")),
        ("<answer>", None),
        (f"So <answer>{answer}</answer>", None),
    )


def steps() -> list[SubTrajectory]:
    """Returns the steps of an episode on each task, one right and one wrong at the end."""
    return [step for i, task in enumerate(tasks()) for step in _episode(task, i)]


def states() -> list[State]:
    """Returns states for agents, few, as models are slow: each task at its beginning, two of them well on their way."""
    every = [step.state for step in steps()]
    return [state for state in every if not state.steps or (state.seed <= 2 and len(state.steps) in (3, 7))]


def _episode(task: Task, seed: int) -> list[SubTrajectory]:
    fmt = XmlFormat(TAGS)
    moves = _moves((task.answer or "the Scheldt") if seed % 2 == 0 else "no idea")
    settings = Settings(TAGS, len(moves) + 1)
    state = initial_state(task, build_prompt(task, _TOOLS, fmt, settings), settings, seed + 1)
    played = []
    for text, result in moves:
        call = fmt.parse(text)
        played.append(SubTrajectory(state, Action(text), call, result))
        correction = fmt.correction(call) if isinstance(call, Malformed) else ""
        state = next_state(state, Step(Action(text), call, result, observe(call, result, correction), Verdict.unscored()))
    wrong = Action("<answer>Atlantis</answer>")
    return [*played, SubTrajectory(played[-1].state, wrong, fmt.parse(wrong.text))]


class _Described:
    """A tool as far as a prompt needs one."""

    def __init__(self, tag: str, description: str) -> None:
        self.tag, self.description = tag, description

    def run(self, queries: object) -> list[ToolResult]:
        return []


_TOOLS: tuple[Tool, ...] = (
    _Described(SEARCH, "Searches the passages for your words."),
    _Described(CALCULATOR, "Works out an expression."),
)
DESCRIBED = _TOOLS
"""The two tools of the samples, for prompts and instructions."""
