"""The first message of an episode: what to do, with which tools, within which budget, and the question."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from swirl_env.errors import (
    ConfigError,
    DataNotFound,
    PluginError,
    SwirlError,
    UnknownName,
    plugin_failure,
    printable,
    unknown_name,
)
from swirl_env.protocols import ActionFormat, Tool
from swirl_env.registry import entries, load, names
from swirl_env.texts import Text, named_text, read_text
from swirl_env.types import Settings, Task

Prompt = str
"""``full``, ``question``, a text with fields, a file that holds one, a registered name, or ``"package.module:attribute"``."""
PromptFunction = Callable[[Task, Mapping[str, str]], str]
"""Takes the task and the fields of a prompt (`FIELDS`), and returns the first message."""

FULL, QUESTION = "full", "question"
FIELDS = ("question", "forms", "tools", "steps", "calls", "results", "instructions", "examples")
"""Fields of a prompt: the question; how to write calls and answers; tags of the tools; the budget in messages and in tool calls,
in words; how results come back; and the texts of the options `instructions` and `examples`."""

_FIELD = re.compile(r"\{(" + "|".join(FIELDS) + r")\}")
_FULL = """\
{instructions}\
Answer the question at the end. You work in steps: each of your messages holds either one tool call or the final answer, \
never both. Think first where that helps, then write one of these:
{forms}
{results} and you go on from there. You have {steps} in all, the one with the answer \
included, so at most {calls}. Do not send the same query twice.

{examples}Question: {question}"""
_STANDARD = {FULL: _FULL, QUESTION: "{instructions}{examples}{question}"}


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
            PluginError: if it raises.
        """
        calls = settings.max_steps - 1
        fields = {
            "question": task.question,
            "forms": fmt.instructions(tools),
            "tools": ", ".join(tool.tag for tool in tools),
            "steps": f"{settings.max_steps} message{'' if settings.max_steps == 1 else 's'}",
            "calls": f"{calls} tool call{'' if calls == 1 else 's'}",
            # A conversation with structured calls shows the query in the call.
            "results": "The result of a call comes back" if settings.functions else "A result comes back as QUERY -> RESULT",
            "instructions": self.instructions,
            "examples": self.examples,
        }
        if self.function is None:
            return _FIELD.sub(lambda field: fields[field[1]], self.text)
        try:
            prompt: object = self.function(task, fields)
        except SwirlError:
            raise
        except BaseException as error:
            failure = plugin_failure(error)
            raise PluginError(
                f"The prompt function raised {type(failure).__name__} on task {task.id!r:.80}: {printable(str(failure)[:200])}"
            ) from failure
        if not isinstance(prompt, str):
            raise ConfigError(f"A prompt function returns the text of the first message; it returned {prompt!r:.60}.")
        return prompt


def make_prompt(prompt: Prompt | PromptFunction = FULL, instructions: Text = "", examples: Text = "") -> PromptTemplate:
    """Returns the template of first messages.

    Args:
        prompt: ``full`` (our instructions), ``question`` (the question alone), a text that holds ``{question}`` and other
            fields, the path of a file with such a text, a function, or the name of a text or function: one that a package
            registers (entry point group ``swirl_env.prompts``) or ``"package.module:attribute"``.
        instructions: text for the beginning of the message; or a file or a name (see `swirl_env.texts`).
        examples: worked examples for the place before the question, likewise.

    Raises:
        UnknownName: for a name that is none of these.
        ConfigError: for a text that has no place for the question, or none for `instructions` or `examples`.
    """
    texts = {"instructions": read_text(instructions, "instructions"), "examples": read_text(examples, "examples")}
    if callable(prompt):
        return PromptTemplate("", prompt, **texts)
    if not isinstance(prompt, str):
        raise ConfigError(f"A prompt is a name, a text with {{question}}, a file or a function; got {prompt!r:.60}.")
    if prompt in _STANDARD:  # they set the two apart from the rest themselves
        return PromptTemplate(_STANDARD[prompt], None, **{name: f"{text}\n\n" if text else "" for name, text in texts.items()})
    text = recorded_prompt(prompt)
    if "{question}" not in text:
        return PromptTemplate("", cast("PromptFunction", load("prompt", text)), **texts)
    for name, value in texts.items():
        if value and f"{{{name}}}" not in text:
            raise ConfigError(f"The prompt has no {{{name}}}, so {name}= would be lost. Add the field to the prompt.")
    return PromptTemplate(text, None, **texts)


def recorded_prompt(prompt: Prompt) -> Prompt:
    """Returns a prompt as a run folder holds it: the name of a standard one or of a function, else the text itself.

    Raises:
        UnknownName, ConfigError: as `make_prompt` does.
    """
    if prompt in _STANDARD or "{question}" in prompt:
        return prompt
    text = None
    if prompt in entries("prompt") or ":" in prompt:
        try:
            target: object = load("prompt", prompt)
        except UnknownName as error:
            raise UnknownName(f"{error} A prompt that is a text has to contain {{question}}.") from error
        if callable(target):
            return prompt
        text = target if isinstance(target, str) else None
    if text is None:
        try:
            text = named_text(prompt, "prompt")
        except DataNotFound as error:
            raise DataNotFound(f"{error} A prompt that is a text has to contain {{question}}.") from error
    if text is None:
        hint = unknown_name("prompt", prompt[:80], (*_STANDARD, *names("prompt")))
        raise UnknownName(f"{hint} Or a text that contains {{question}}, a file with one, or 'package.module:function'.")
    if "{question}" not in text:
        raise ConfigError(f"The prompt in {prompt!r:.80} has no {{question}}, so no policy would see what it is asked.")
    return text.rstrip("\n")


def build_prompt(task: Task, tools: Sequence[Tool], fmt: ActionFormat, settings: Settings, prompt: Any = FULL) -> str:
    """Returns the first message for `task`.

    As in the paper (stage 1) the full prompt states the budget of sequential queries, asks not to repeat a query and to give
    either a query or the answer, and announces the form of results. The wording is ours.
    """
    template = prompt if isinstance(prompt, PromptTemplate) else make_prompt(prompt)
    return template.write(task, tools, fmt, settings)
