"""Asking a model and reading its verdict: shared by the judges that use one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from swirl_env.episodes.reasoning import THINK_MARK
from swirl_env.episodes.transcript import clean, escape
from swirl_env.protocols import Agent, Tool
from swirl_env.types import Action, Malformed, Settings, State, Task, Turn

_OWN_TAGS = ("answer", "tool_call")
"""Tags that stay readable in a quotation. Those of think blocks do not: a model that repeats one would hide its own verdict."""
_CHANNEL = "<|channel|>"
_FINAL = "<|channel|>final<|message|>"
"""gpt-oss: reasoning and reply stand in channels of their own."""
_HEADINGS = "verdict|rating|judge?ment|decision|label|answer"


class FreeText:
    """An action format without calls or answers: a reply ends when the model ends it."""

    stop: tuple[str, ...] = ()

    def __init__(self, tools: Sequence[str]) -> None:
        self.tools = tuple(tools)

    def parse(self, text: str, opened: bool = False) -> Malformed:
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


def visible_text(text: str, opened: bool = False) -> str:
    """Returns the part of a reply that is no reasoning: what follows the last think block, nothing if one is still open.

    A verdict in a draft is not a verdict. The blocks of all usual models count (``<think>``, ``[THINK]``, channels), also if
    the generation prompt opened one, or the token limit cut one off before its end.

    Args:
        text: what the model wrote.
        opened: whether the generation prompt had opened a think block.
    """
    if _CHANNEL in text:
        _, final, text = text.rpartition(_FINAL)
        return text if final and _CHANNEL not in text else ""
    tags = [(tag.end(), tag["close"] is not None) for tag in THINK_MARK.finditer(text)]
    end, is_closed = tags[-1] if tags else (0, not opened)
    return text[end:] if is_closed else ""


def read_choice(text: str, choices: Sequence[str], opened: bool = False) -> tuple[str | None, str]:
    """Returns the word that the last line consists of, and the text before it; None if it consists of none of them.

    A heading (``Verdict:``) may precede the word, and marks of emphasis may surround both; nothing else. So a word that was
    quoted, or that is part of a sentence, does not count. Nor does anything in a think block (see `visible_text`).

    Args:
        text: what the model wrote.
        choices: the words it was to choose from.
        opened: whether the generation prompt had opened a think block.
    """
    text = visible_text(text, opened).strip()
    explanation, _, last = text.rpartition("\n")
    word = "|".join(map(re.escape, choices))
    match = re.fullmatch(rf"[*_#`\s]*(?:(?:final )?(?:{_HEADINGS})[*_]*\s*:[*_\s]*)?({word})[*_`.!\s]*", last, re.IGNORECASE)
    return (match.group(1).upper(), explanation.strip()) if match else (None, text)
