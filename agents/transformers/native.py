"""Tool calling as a chat template has it: tools offered by ``tools=``, calls and results as structured messages.

A conversation is described by *kinds* of messages: the roles, ``call/ID`` for an action with a tool call, and
``tool/NAME/ID`` for its result.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from swirl_env.agents.transformers.interfaces import Tokenizer
from swirl_env.agents.transformers.template import ChatTemplate
from swirl_env.episodes.formats.native import NativeFormat, arguments_text
from swirl_env.episodes.formats.scanner import ANSWER
from swirl_env.episodes.transcript import result_of
from swirl_env.errors import ConfigError
from swirl_env.types import State, ToolCall, Turn

CALL, TOOL = "call", "tool"
_NAME, _ARGUMENT = "@880001@", "query"
_ID = "call00000"
"""The id of a call if the policy wrote none: nine letters and digits, as Mistral's templates demand."""
_OWN_ID = re.compile(r'"id"\s*:\s*"([A-Za-z0-9]{9})"')
_OPENING = re.compile(rf'\{{\s*"{_ARGUMENT}"\s*:\s*"$')
_HINT = "as format=native needs; use format=hermes."
_CLOSING = re.compile(r'"\s*\}')


class CallForm(NamedTuple):
    """What a template writes before the name of a call, between name and arguments, and after the arguments."""

    before: str
    between: str
    after: str


class NativeTemplate(ChatTemplate):
    """A chat template that offers tools.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        system: a system message; None leaves it to the template.
        options: variables for the template.
        date: the day that it believes to be today, if it asks.
        functions: the tools as a JSON list of function schemas.
        specials: names of the tokens that structure conversations; the first behind a call ends the action.
        shots: worked conversations before each episode, with their calls.
    """

    contexts = {
        ("user", True): ("user",),
        ("user", False): ("user", "assistant", "user"),
        ("assistant", False): ("user", "assistant", "user"),
        (TOOL, False): ("user", CALL, TOOL),
    }

    def __init__(
        self,
        tokenizer: Tokenizer,
        system: str | None,
        options: Mapping[str, Any],
        date: datetime.date,
        functions: str,
        specials: Sequence[str],
        shots: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        offered = json.loads(functions)
        schemas = {item["function"]["name"]: item["function"]["parameters"] for item in offered}
        schemas.pop(ANSWER, None)  # the format's own
        self.format = NativeFormat(tuple(schemas), schemas)
        self._ends = re.compile("|".join(re.escape(name) for name in specials) or "(?!)")
        self._lead = self._tail = ""
        super().__init__(tokenizer, system, {**options, "tools": offered}, date, shots)
        self.form = self._call_form()

    def shown(self, state: State) -> State:
        """Returns a state in which results stand without the query before them: the template shows the call itself."""
        results = iter(state.steps)
        turns = tuple(
            Turn(turn.role, result_of(step)) if turn.role == "tool" and (step := next(results, None)) else turn
            for turn in state.turns
        )
        return msgspec.structs.replace(state, turns=turns)

    def kinds(self, state: State) -> tuple[str, ...]:
        """Returns the kinds of the messages of a state. What answers no call (a correction) is the user's."""
        kinds: list[str] = []
        call, steps = "", iter(state.steps)
        for turn in state.turns:
            if turn.role == "tool":
                kinds.append(f"{TOOL}/{call}" if call else "user")
            elif turn.role == "assistant":
                step = next(steps, None)
                parsed = self.format.parse(turn.text) if step is None else step.call
                own = _OWN_ID.findall(turn.text)
                call = f"{parsed.tool}/{own[-1] if own else _ID}" if isinstance(parsed, ToolCall) else ""
                kinds.append(f"{CALL}/{call}" if call else "assistant")
            else:
                kinds.append(turn.role)
        return tuple(kinds)

    def pieces(self, text: str) -> list[tuple[str, bool]]:
        """Returns an action in pieces, each with whether the template wrote it: its call as the template writes calls."""
        call = self.format.parse(text)
        if not isinstance(call, ToolCall):
            return [(self.write("assistant", text, False), False)]
        head = text[: call.start]
        gap = "\n" if head.strip() and not head.endswith("\n") else ""
        arguments = arguments_text(self.format.arguments(call.tool, call.query))
        before, between, after = self.form
        return [(head + gap, False), (before, True), (call.tool, False), (between, True), (arguments, False), (after, True)]

    def name_of(self, role: str) -> str:
        """Returns the kind itself: messages are built from it."""
        return role

    def write(self, role: str, text: str, first: bool) -> str:
        """Returns a message as the template writes it (see `ChatTemplate.write`)."""
        return super().write(role.partition("/")[0], text, first)

    def _message(self, role: str, text: str) -> dict[str, Any]:
        kind, name, number = (*role.split("/"), "", "")[:3]
        if kind == CALL:
            function = {"name": _NAME, "arguments": {_ARGUMENT: text}}
            call = {"id": number or _ID, "type": "function", "function": function}
            return {"role": "assistant", "content": "", "tool_calls": [call]}
        if kind == TOOL:
            return {"role": TOOL, "name": name or _NAME, "tool_call_id": number or _ID, "content": text}
        return {"role": kind, "content": text}

    def _renders_tool(self) -> bool:
        return True

    def _filled(self, role: str, text: str) -> str:
        return f"{self._lead}{text}{self._tail}" if role.startswith(CALL) else text

    def _cut(self, names: Sequence[str]) -> tuple[str, ...]:
        parts = list(super()._cut(names))
        for i, kind in enumerate(names):
            if kind.startswith(CALL) and self._lead:
                end = self._ends.search(parts[i + 1])
                parts[i] = parts[i].removesuffix(self._lead)
                parts[i + 1] = parts[i + 1][end.start() if end else 0 :]
        return tuple(parts)

    def _call_form(self) -> CallForm:
        """Returns how the template writes calls, learned from a probe.

        Raises:
            ConfigError: if it offers no tools, writes no calls, or writes them in a way that cannot be cut into pieces or
                read again.
        """
        prompt = self.split(("user",))[0]
        if not all(tool in prompt for tool in self.format.tools):
            raise ConfigError(f"The chat template of this model offers no tools, {_HINT}")
        try:
            opener = self.split(("user", "assistant", "user"))[1]
            _, before, after, _ = self.split(("user", CALL, TOOL))
        except ConfigError as error:
            raise ConfigError(f"The chat template of this model writes no tool calls, {_HINT} {error}") from error
        end = self._ends.search(after)
        lead = before.removeprefix(opener)
        head, named, between = lead.partition(_NAME)
        opening, closing = _OPENING.search(between), _CLOSING.match(after)
        if not (before.startswith(opener) and end and named and opening and closing and closing.end() <= end.start()):
            raise ConfigError(f"The chat template of this model writes no tool calls with JSON arguments, {_HINT}")
        tail = after[: end.start()]
        form = CallForm(head, between[: opening.start()], tail[closing.end() :])
        tool = self.format.tools[0]
        probe = self._ends.sub("", f'{form.before}{tool}{form.between}{{"{_ARGUMENT}": "1"}}{form.after}')
        read = self.format.parse(probe)
        if not isinstance(read, ToolCall) or read.end != len(probe):
            raise ConfigError(f"The chat template of this model writes calls as {probe[:80]!r}, {_HINT}")
        self._lead, self._tail = lead, tail
        return form
