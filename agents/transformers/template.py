"""What a conversation looks like around its messages: the model's chat template, or bare text.

A template is a program, so what it writes is learned by running it: once with placeholders for messages, to cut its output
at them, and (if it changes messages: ``trim``, ``tojson``) once per message with its real text.
"""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from swirl_env.agents.transformers.interfaces import Tokenizer
from swirl_env.episodes.reasoning import CLOSE, OPEN
from swirl_env.errors import ConfigError

_PLAIN: dict[str, tuple[str, str]] = {"user": ("", "\n\n"), "assistant": ("", "\n"), "tool": ("", "\n")}
"""Role -> what the plain template writes before and after a message."""
_PROBE = " \n a \"b\" 'c' <d> & \\ é {{ e }}\tf\n "
"""Holds what filters of templates change: blanks at the ends, quotes, markup, backslashes, other scripts."""
_MARK = 770_001
_LITERAL = re.compile(r"""(['"])((?:(?!\1).)*)\1""")
_DATE_MACRO = (
    "{%- macro strftime_now(format) -%}{{ swirl_dates[format] if format in swirl_dates else "
    "raise_exception('the date in a format that is no literal: ' ~ format) }}{%- endmacro %}{{ '' }}"
)


class Template(Protocol):
    """How messages become one text."""

    takes_system: bool
    """Whether there is a place for a system message."""

    def split(self, roles: tuple[str, ...]) -> tuple[str, ...]:
        """Returns the n + 1 strings around n messages, ready for the next action."""
        ...

    def write(self, role: str, text: str, first: bool) -> str:
        """Returns a message as it stands between these strings."""
        ...


class PlainTemplate:
    """Messages separated by line breaks, for models that were never taught a template."""

    takes_system = True

    def __init__(self, system: str | None) -> None:
        self.system = system

    def split(self, roles: tuple[str, ...]) -> tuple[str, ...]:
        """Returns the n + 1 strings around n messages."""
        parts = [f"{self.system}\n\n" if self.system else ""]
        for role in roles:
            before, after = _PLAIN[role]
            parts[-1] += before
            parts.append(after)
        return tuple(parts)

    def write(self, role: str, text: str, first: bool) -> str:
        """Returns the message as it is."""
        return text


class ChatTemplate:
    """The chat template of a tokenizer.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        system: a system message; None leaves it to the template. If it takes none, the message opens the first one instead.
        options: variables for the template.
        date: the day that it believes to be today, if it asks.
        shots: worked conversations before each episode (see `swirl_env.episodes.shots`), as messages of the template.
    """

    contexts: Mapping[tuple[str, bool], tuple[str, ...]] = {
        ("user", True): ("user",),
        ("user", False): ("user", "assistant", "user"),
        ("assistant", False): ("user", "assistant", "tool"),
        ("tool", False): ("user", "assistant", "tool"),
    }
    """(Role, whether it opens the conversation) -> the conversation in which a message of it is tried."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        system: str | None,
        options: Mapping[str, Any],
        date: datetime.date,
        shots: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.tokenizer, self.system = tokenizer, system
        self.options = {**options, **_pin_date(tokenizer.chat_template, options, date)}
        self.shots: list[dict[str, Any]] = []
        self.takes_system = self._renders_system()
        self.takes_tool = self._renders_tool()
        self.shots = [dict(message) for message in shots]
        for message in self.shots:
            if "tool_call_id" not in message:
                message["role"] = self.name_of(message["role"])
        if shots and system is not None and not self.takes_system:
            self.shots[0]["content"] = f"{system}\n\n{self.shots[0]['content']}"
        self._written = functools.lru_cache(maxsize=1024)(self._write)

    def split(self, roles: tuple[str, ...]) -> tuple[str, ...]:
        """Returns the n + 1 strings that the template writes around n messages, ready for the next action."""
        names = [self.name_of(role) for role in roles]
        try:
            return self._cut(names)
        except ConfigError:
            raise
        except Exception as error:  # whatever a template raises: templates are programs
            hint = "" if self.system is not None else " If it demands a system message, set system=..."
            raise ConfigError(f"The chat template cannot render a conversation of {', '.join(names)}: {error}.{hint}") from error

    def write(self, role: str, text: str, first: bool) -> str:
        """Returns a message as the template writes it: trimmed, quoted, or as it is.

        Reasoning in actions stays, whatever the template thinks of it: later states hold what was sampled.

        Raises:
            ConfigError: if what the template writes around a message depends on its text.
        """
        if first and self.system is not None and not (self.takes_system or self.shots):
            text = f"{self.system}\n\n{text}"
        if role == "assistant" and (OPEN in text or CLOSE in text):
            return text
        context = (role, first and role == "user")
        change = self._change(context)
        return text if change is None else text.strip() if change == "strip" else self._written(context, text)

    def name_of(self, role: str) -> str:
        """Returns what the template calls a role. Tool results are the user's if the template has no role for tools."""
        return "user" if role == "tool" and not self.takes_tool else role

    def render(self, messages: Sequence[tuple[str, str]]) -> str:
        """Returns the text of messages (role, text) behind the system message and the shots, ready for the next action."""
        system = [self._message("system", self.system)] if self.system is not None and self.takes_system else []
        return self._apply([*system, *self.shots, *(self._message(role, text) for role, text in messages)])

    def _apply(self, conversation: list[dict[str, Any]]) -> str:
        options = {"add_generation_prompt": True, **self.options}
        return str(self.tokenizer.apply_chat_template(conversation, tokenize=False, **options))

    def _message(self, role: str, text: str) -> dict[str, Any]:
        return {"role": role, "content": text}

    def _filled(self, role: str, text: str) -> str:
        """Returns what stands between the strings around a message of a role that holds `text`."""
        return text

    def _cut(self, names: Sequence[str]) -> tuple[str, ...]:
        marks = [f"@{_MARK + i}@" for i in range(len(names))]  # no letters: a filter might change them
        text = self.render(list(zip(names, marks, strict=True)))
        parts = []
        for mark in marks:
            before, present, text = text.partition(mark)
            if not present or mark in text:
                raise ConfigError(f"The chat template does not write each of the messages ({', '.join(names)}) once, in order.")
            parts.append(before)
        return (*parts, text)

    @functools.cache  # noqa: B019 (four entries, as long as the template lives)
    def _change(self, context: tuple[str, bool]) -> str | None:
        """Returns what the template does to a message: None for nothing, ``strip``, or ``other``."""
        probe = self._write(context, _PROBE)
        return None if probe == _PROBE else "strip" if probe == _PROBE.strip() else "other"

    def _write(self, context: tuple[str, bool], text: str) -> str:
        """Returns what the template makes of a message: the middle of a conversation whose other parts are known."""
        roles = self.contexts[context]
        place = roles.index(context[0]) if context[1] or context[0] != "user" else len(roles) - 1
        parts = self.split(roles)
        texts = [str(7 + i) for i in range(len(roles))]  # no two alike: templates may compare messages
        messages = [(self.name_of(role), other) for role, other in zip(roles, texts, strict=True)]
        messages[place] = (messages[place][0], text)
        whole = self.render(messages)
        fills = [self._filled(role, other) for role, other in zip(roles, texts, strict=True)]
        before = "".join(map("".join, zip(parts[:place], fills[:place], strict=True))) + parts[place]
        after = parts[place + 1] + "".join(map("".join, zip(fills[place + 1 :], parts[place + 2 :], strict=True)))
        if len(whole) < len(before) + len(after) or not (whole.startswith(before) and whole.endswith(after)):
            raise ConfigError(
                f"The chat template writes something else around a message of the {roles[place]} because of its text: expected "
                f"{_brief(before)} ... {_brief(after)}, got {_brief(whole)}. Use template='plain', or another template."
            )
        return whole[len(before) : len(whole) - len(after)]

    def _renders_tool(self) -> bool:
        source = str(self.tokenizer.chat_template)
        if "'tool'" not in source and '"tool"' not in source:
            return False
        try:
            self._cut(["user", "assistant", "tool", "assistant", "tool"])
        except Exception:  # e.g. a template that wants a tool result to follow a call in its own notation
            return False
        return True

    def _renders_system(self) -> bool:
        try:
            return f"@{_MARK}@" in self._apply([self._message("system", f"@{_MARK}@"), self._message("user", "x")])
        except Exception:  # a template refuses by raising
            return False


def _pin_date(source: Any, options: Mapping[str, Any], date: datetime.date) -> dict[str, Any]:
    """Returns options for `apply_chat_template` under which a template that asks for today's date is told `date`.

    Templates ask by ``strftime_now(format)``, which transformers binds to the clock and lets nobody pass. A macro of that name
    in front of the template hides it. Formats are literals of the template or options; any other is refused, not guessed.
    """
    if isinstance(source, Mapping):
        source = source.get("default", "")
    if "strftime_now" not in source:
        return {}
    formats = [text for _, text in _LITERAL.findall(source)] + [value for value in options.values() if isinstance(value, str)]
    return {"chat_template": _DATE_MACRO + source, "swirl_dates": {text: date.strftime(text) for text in formats if "%" in text}}


def _brief(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:28]}...{text[-28:]}")
