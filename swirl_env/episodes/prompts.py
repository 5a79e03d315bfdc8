"""The first message of an episode: what to do, with which tools, within which budget, and the question."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from swirl_env.errors import ConfigError, UnknownName, unknown_name
from swirl_env.protocols import ActionFormat, Tool
from swirl_env.registry import load
from swirl_env.types import Settings, Task

Prompt = str
"""``full``, ``question``, a text with fields, a file that holds one, or ``"package.module:function"``."""
PromptFunction = Callable[[Task, Mapping[str, str]], str]
"""Takes the task and the fields of a prompt (`FIELDS`), and returns the first message."""

FULL, QUESTION = "full", "question"
FIELDS = ("question", "forms", "tools", "steps", "calls", "instructions", "examples")
"""Fields of a prompt: the question; how to write calls and answers; tags of the tools; the budget in messages and in tool calls,
in words; and the texts of the options `instructions` and `examples`."""

_FIELD = re.compile(r"\{(" + "|".join(FIELDS) + r")\}")
_FULL = """\
{instructions}\
Answer the question at the end. You work in steps: each of your messages holds either one tool call or the final answer, \
never both. Think first where that helps, then write one of these:
{forms}
A result comes back as QUERY -> RESULT and you go on from there. You have {steps} in all, the one with the answer \
included, so at most {calls}. Do not send the same query twice.

{examples}Question: {question}"""
_QUESTION = "{instructions}{examples}{question}"


@dataclass(frozen=True)
class PromptTemplate:
    """Writes the first message of an episode.

    Args:
        text: text with fields (`FIELDS`).
        function: writes the message in place of `text`.
        instructions: text for the field ``{instructions}``.
        examples: text for the field ``{examples}``.
    """

    text: str
    function: PromptFunction | None = None
    instructions: str = ""
    examples: str = ""

    def write(self, task: Task, tools: Sequence[Tool], fmt: ActionFormat, settings: Settings) -> str:
        """Returns the first message for `task`.

        Fields are filled in one pass, so that nothing in a question is taken for a field.

        Raises:
            ConfigError: if a function returns something else than text.
        """
        calls = settings.max_steps - 1
        fields = {
            "question": task.question,
            "forms": fmt.instructions(tools),
            "tools": ", ".join(tool.tag for tool in tools),
            "steps": f"{settings.max_steps} message{'' if settings.max_steps == 1 else 's'}",
            "calls": f"{calls} tool call{'' if calls == 1 else 's'}",
            "instructions": self.instructions,
            "examples": self.examples,
        }
        if self.function is None:
            return _FIELD.sub(lambda field: fields[field[1]], self.text)
        prompt: object = self.function(task, fields)
        if not isinstance(prompt, str):
            raise ConfigError(f"A prompt function returns the text of the first message; it returned {prompt!r:.60}.")
        return prompt


def make_prompt(prompt: Prompt | PromptFunction = FULL, instructions: str = "", examples: str = "") -> PromptTemplate:
    """Returns the template of first messages.

    Args:
        prompt: ``full`` (our instructions), ``question`` (the question alone), a text that holds ``{question}`` and other
            fields, the path of a file with such a text, a function, or ``"package.module:function"``.
        instructions: text, or a file with it, for the beginning of the message.
        examples: worked examples, as text or a file, for the place before the question.

    Raises:
        UnknownName: for a name that is none of these.
        ConfigError: for a text that has no place for the question, or none for `instructions` or `examples`.
    """
    if callable(prompt):
        return PromptTemplate("", prompt, _text(instructions), _text(examples))
    if not isinstance(prompt, str):
        raise ConfigError(f"A prompt is a name, a text with {{question}}, a file or a function; got {prompt!r:.60}.")
    text = {FULL: _FULL, QUESTION: _QUESTION}.get(prompt)
    if text is not None:  # the standard prompts set the two apart from the rest themselves
        return PromptTemplate(text, None, _paragraph(instructions), _paragraph(examples))
    text = prompt if "{question}" in prompt else _file(prompt)
    if text is None and ":" in prompt:
        try:
            return PromptTemplate("", cast("PromptFunction", load("prompt", prompt)), _text(instructions), _text(examples))
        except UnknownName as error:
            raise UnknownName(f"{error} A prompt that is a text has to contain {{question}}.") from error
    if text is None:
        hint = unknown_name("prompt", prompt[:80], (FULL, QUESTION))
        raise UnknownName(f"{hint} Or a text that contains {{question}}, a file with one, or 'package.module:function'.")
    if "{question}" not in text:
        raise ConfigError(f"The prompt in {prompt!r} has no {{question}}, so no policy would see what it is asked.")
    for name, value in (("instructions", instructions), ("examples", examples)):
        if value and f"{{{name}}}" not in text:
            raise ConfigError(f"The prompt has no {{{name}}}, so {name}= would be lost. Add the field to the prompt.")
    return PromptTemplate(text, None, _text(instructions), _text(examples))


def build_prompt(task: Task, tools: Sequence[Tool], fmt: ActionFormat, settings: Settings, prompt: Any = FULL) -> str:
    """Returns the first message for `task`.

    As in the paper (stage 1) the full prompt states the budget of sequential queries, asks not to repeat a query and to give
    either a query or the answer, and announces the form of results. The wording is ours.
    """
    template = prompt if isinstance(prompt, PromptTemplate) else make_prompt(prompt)
    return template.write(task, tools, fmt, settings)


def _file(path: str) -> str | None:
    """Returns the text of a file; None if there is none of that name."""
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\n") if Path(path).is_file() else None
    except (OSError, ValueError) as error:
        raise ConfigError(f"The file {path!r} cannot be read as text: {error}.") from error


def _text(value: str) -> str:
    """Returns a text, or that of the file of this name."""
    if "\n" in value or len(value) > 250:
        return value
    read = _file(value) if value else None
    return value if read is None else read


def _paragraph(value: str) -> str:
    text = _text(value)
    return f"{text}\n\n" if text else ""
