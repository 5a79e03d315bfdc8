"""The human agent: a person at the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from swirl_env.protocols import ActionFormat
from swirl_env.registry import make_format
from swirl_env.types import Action, Malformed, State


class HumanAgent:
    """Shows what the policy would see and asks for the next action.

    A line such as ``search_query: who wrote Emma`` or ``answer: Jane Austen`` is written out as a call or an answer; the name
    may be shortened as long as it is clear (``s:``, ``a:``). A line in the action format itself is taken as it is. The end of
    the input (Ctrl-D) gives up.

    Args:
        read: asks for a line and gets the prompt to show in front of it; None for the terminal.
        show: shows a text; None for the terminal.
    """

    def __init__(self, read: Callable[[str], str] | None = None, show: Callable[[str], object] | None = None) -> None:
        self._read = input if read is None else read
        self._show = print if show is None else show

    def act(self, states: Sequence[State]) -> list[Action]:
        """Returns one action per state, asked for one after the other."""
        return [self._one(state) for state in states]

    def _one(self, state: State) -> Action:
        # Terminals obey control characters; those in a tool's text must not reach them.
        self._show(_printable(state.turns[-1].text))
        if not state.steps:
            self._show(f"\nWrite one of: {', '.join(f'{name}: ...' for name in (*state.settings.tools, 'answer'))}")
        fmt = make_format(state.settings.format, state.settings.tools)
        left = state.steps_left
        while True:
            try:
                line = self._read(f"[{left} {'action' if left == 1 else 'actions'} left] > ").strip()
            except EOFError:
                return Action("", error="unavailable")
            if line:
                return Action(_written_out(line, fmt, state.settings.tools))


def _written_out(line: str, fmt: ActionFormat, tools: Sequence[str]) -> str:
    """Returns ``name: text`` as a call or an answer, and any other line as it is."""
    if not isinstance(fmt.parse(line), Malformed):
        return line
    name, colon, text = line.partition(":")
    name, text = name.strip().lower(), text.strip()
    if not (colon and name and text):
        return line
    if name in tools or name == "answer":
        meant = [name]
    else:
        meant = [known for known in (*tools, "answer") if known.startswith(name)]
    if len(meant) != 1:
        return line
    return fmt.answer(text) if meant[0] == "answer" else fmt.call(meant[0], text)


def _printable(text: str) -> str:
    """Returns `text` without control characters, line ends and tabs aside."""
    return "".join(char if char.isprintable() or char in "\n\t" else "�" for char in text)
