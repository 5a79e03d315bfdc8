"""The first message of an episode: what to do, with which tools, within which budget, and the question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from swirl_env.protocols import ActionFormat, Tool
from swirl_env.types import Settings, Task

Prompt = Literal["full", "question"]
"""``full`` explains the task; ``question`` is the bare question, for policies trained from scratch on it."""

_FULL = """\
Answer the question at the end. You work in steps: each of your messages holds either one tool call or the final answer, \
never both. Think first where that helps, then write one of these:
{forms}
A result comes back as QUERY -> RESULT and you go on from there. You have {steps} in all, the one with the answer \
included, so at most {calls}. Do not send the same query twice.

Question: {question}"""


def build_prompt(task: Task, tools: Sequence[Tool], fmt: ActionFormat, settings: Settings, prompt: Prompt = "full") -> str:
    """Returns the first message for `task`.

    As in the paper (stage 1) it states the budget of sequential queries, asks not to repeat a query and to give either a
    query or the answer, and announces the form of results. The wording is ours.
    """
    if prompt == "question":
        return task.question
    calls = settings.max_steps - 1
    return _FULL.format(
        forms=fmt.instructions(tools),
        steps=f"{settings.max_steps} message{'' if settings.max_steps == 1 else 's'}",
        calls=f"{calls} tool call{'' if calls == 1 else 's'}",
        question=task.question,
    )
