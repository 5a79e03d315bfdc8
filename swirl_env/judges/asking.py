"""Asking a model and reading its verdict: shared by the judges that use one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from swirl_env.episodes.reasoning import reasoning_end
from swirl_env.episodes.transcript import clean, escape
from swirl_env.protocols import Agent, Tool
from swirl_env.types import Action, Malformed, Settings, State, Task, Turn

_OWN_TAGS = ("answer", "tool_call")
"""Tags that stay readable in a quotation. Those of think blocks do not: a model that repeats one would hide its own verdict."""
_HEADINGS = "verdict|rating|judge?ment|decision|label|answer"


class FreeText:
    """An action format without calls or answers: a reply ends when the model ends it."""

    stop: tuple[str, ...] = ()

    def __init__(self, tools: Sequence[str]) -> None:
        self.tools = tuple(tools)

    def parse(self, text: str) -> Malformed:
        """Returns `Malformed` for every text: free text holds no call and no answer."""
        return Malformed("Free text holds no call and no answer.", 0, len(text))

    def call(self, tool: str, query: str) -> str:
        """Returns a call as plain text."""
        return f"{tool}: {query}"

    def answer(self, text: str) -> str:
        """Returns an answer as plain text."""
        return text

    def instructions(self, tools: Sequence[Tool]) -> str:
        """Returns nothing: the prompt says it all."""
        return ""

    def correction(self, malformed: Malformed) -> str:
        """Returns nothing: a reply is read once, and there is no second turn."""
        return ""


_SETTINGS = Settings(tools=(), max_steps=1, format=f"{__name__}:FreeText")


def ask(agent: Agent, prompts: Sequence[str], seed: int = 0) -> list[Action]:
    """Sends each prompt to the agent as the first message of an episode that holds nothing else, and returns its replies.

    The task of such an episode has no gold answer, plan or evidence, and its id comes from the prompt alone.
    """
    states = []
    for prompt in map(clean, prompts):
        task = Task(f"asked-{hashlib.blake2b(prompt.encode(), digest_size=8).hexdigest()}", prompt)
        states.append(State(task, _SETTINGS, (Turn("user", prompt),), (), seed, len(prompt)))
    return agent.act(states) if states else []


def readable(text: str, tags: Sequence[str] = ()) -> str:
    """Returns `text` with markup escaped, except for the tags of the action formats, which the model is to see as written.

    Args:
        text: text from a policy, a tool or a task.
        tags: names of the tags to leave readable, in addition to those of answers and calls.
    """
    names = "|".join(re.escape(tag) for tag in (*tags, *_OWN_TAGS))
    return "".join(part if i % 2 else escape(part) for i, part in enumerate(re.split(f"(</?(?:{names})>)", text)))


def quote(text: str, tags: Sequence[str] = ()) -> str:
    """Returns `readable` text as a quotation, each line behind a bar, so that none looks like a line of the prompt's own."""
    return "\n".join(f"| {line}" for line in readable(text, tags).splitlines() or [""])


def read_choice(text: str, choices: Sequence[str], opened: bool = False) -> tuple[str | None, str]:
    """Returns the word that the last line consists of, and the text before it; None where it consists of none of them.

    Before the word may stand a heading (``Verdict:``), and marks of emphasis around both; nothing else. So a word that was
    quoted, or that fell inside a sentence, does not count. Nor does anything in a think block, closed or cut off.

    Args:
        text: what the model wrote.
        choices: the words it was to choose from.
        opened: whether the generation prompt had opened a think block.
    """
    text = text[reasoning_end(text, opened) :]
    said, _, last = text.strip().rpartition("\n")
    word = "|".join(map(re.escape, choices))
    found = re.fullmatch(rf"[*_#`\s]*(?:(?:final )?(?:{_HEADINGS})[*_]*\s*:[*_\s]*)?({word})[*_`.!\s]*", last, re.IGNORECASE)
    return (found.group(1).upper(), said.strip()) if found else (None, text.strip())
