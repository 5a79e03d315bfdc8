"""Small plugins with known behaviour, for tests of the rooms above them."""

from collections.abc import Sequence
from typing import Any

from swirl_env.corpus import MemoryCorpus
from swirl_env.types import Action, Answer, Passage, State, SubTrajectory, Task, ToolCall, ToolResult, Verdict

PLAIN_TERMS: dict[str, Any] = {"tokenizer": "whitespace", "stemmer": "none", "stopwords": "none"}
"""Options of the search tool with which words are terms as they stand."""


def corpus_of(*texts: str) -> MemoryCorpus:
    """Passages p0, p1, ... with the titles Title0, Title1, ..."""
    return MemoryCorpus(Passage(f"p{i}", f"Title{i}", text) for i, text in enumerate(texts))


class EchoTool:
    """Gives back the query in capitals; notes the size of each batch."""

    tag = "echo"
    description = "Repeats what you write, louder."

    def __init__(self) -> None:
        self.batches: list[int] = []

    def run(self, queries: Sequence[str]) -> list[ToolResult]:
        self.batches.append(len(queries))
        return [ToolResult(q.upper()) for q in queries]


class BrokenTool(EchoTool):
    """Raises at every call."""

    tag = "broken"

    def run(self, queries: Sequence[str]) -> list[ToolResult]:
        raise RuntimeError("out of order")


class CallJudge:
    """A call is worth 0.5, a right answer 1, anything else 0."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def judge(self, steps: Sequence[SubTrajectory]) -> list[Verdict]:
        self.batches.append(len(steps))
        return [self._one(s) for s in steps]

    def _one(self, s: SubTrajectory) -> Verdict:
        if isinstance(s.call, ToolCall):
            return Verdict.good("a call", "call", reward=0.5)
        if isinstance(s.call, Answer) and s.call.text == s.state.task.answer:
            return Verdict.good("right", "call")
        return Verdict.bad("wrong", "call")


class Evens:
    """Calls actions of an even number of characters GOOD: some signal in every state, however weak the policy."""

    def judge(self, steps: Sequence[SubTrajectory]) -> list[Verdict]:
        return [Verdict.bad() if len(step.action.text) % 2 else Verdict.good() for step in steps]


class SumTasks:
    """Task i asks for i + 1."""

    corpus = None
    split = "test"
    tools: tuple[str, ...] = ()
    max_steps = 3

    def __init__(self, n: int = 20) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Task:
        if not 0 <= i < self.n:
            raise IndexError(i)
        return Task(f"sum-{i}", f"What is {i} + 1?", str(i + 1), grading="number")


class EchoAgent:
    """Calls echo once, then answers right on even tasks and never on odd ones."""

    def act(self, states: Sequence[State]) -> list[Action]:
        return [self._one(s) for s in states]

    def _one(self, state: State) -> Action:
        even = int(state.task.id.split("-")[1]) % 2 == 0
        if state.steps and even:
            return Action(f"<answer>{state.task.answer}</answer>")
        return Action(f"<echo>step {len(state.steps)}</echo>")
