"""State -> token ids, such that a state begins, id for id, with the state before it and the ids sampled there.

A chat template is rendered with placeholders where the messages go, and cut at them. Only what the template itself writes is
tokenised with control tokens allowed. Messages are tokenised as plain text, whatever stands in them; an action whose sampled
ids are known enters with just these. Later states extend earlier ones by construction; what the template would have done by
itself is checked once and told in `Renderer.prefix_preserving`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from swirl_env.episodes.transcript import clean
from swirl_env.errors import ConfigError
from swirl_env.types import Action, Role, State

Template = Literal["chat", "plain"]
_PLAIN: dict[str, tuple[str, str]] = {"user": ("", "\n\n"), "assistant": ("", "\n"), "tool": ("", "\n")}
"""Role -> what the plain template writes before and after a message."""


class Rendered(NamedTuple):
    """A state as token ids."""

    ids: tuple[int, ...]
    """All ids, [S]; sampling goes on after the last."""
    spans: tuple[tuple[int, int], ...]
    """For each earlier action, the half-open range of `ids` that it fills: what carries loss when steps share a pass."""
    sampled: tuple[bool, ...]
    """For each earlier action, whether the range holds the very ids that were sampled, or its text tokenised anew."""


class Renderer:
    """Turns states into token ids; a pure function of the tokenizer and its options, no model needed.

    Args:
        tokenizer: a transformers tokenizer.
        template: ``chat`` for the tokenizer's chat template; ``plain`` for messages separated by line breaks, for models
            that were never taught a template.
        system: a system message to begin with; None leaves it to the template. Where a template takes none, it opens the
            first message instead.
        template_options: variables for the chat template, e.g. ``{"enable_thinking": False}``.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: Template = "chat",
        system: str | None = None,
        template_options: Mapping[str, Any] | None = None,
    ) -> None:
        if template not in ("chat", "plain"):
            raise ConfigError(f"template is 'chat' or 'plain'; got {template!r}.")
        if template == "chat" and not getattr(tokenizer, "chat_template", None):
            raise ConfigError("This tokenizer has no chat template. Use template='plain', or a model that was taught one.")
        self.tokenizer = tokenizer
        self.template = template
        self.system = system
        self.template_options = dict(template_options or {})
        self.special_ids = special_ids(tokenizer)
        """Ids that the tokenizer marks as special; decoding leaves them out, and sampling one ends an action."""
        self._encode_part = functools.lru_cache(maxsize=1024)(lambda text: tuple(self._encode(text, trusted=True)))
        self._encode_text = functools.lru_cache(maxsize=4096)(lambda text: tuple(self._encode_plain(text)))
        self._split = functools.lru_cache(maxsize=256)(self._split_template)
        self._layout = functools.lru_cache(maxsize=256)(self._layout_of)
        self._controls = self._find_controls()
        self.control_ids = frozenset(self._controls.values()) | self.special_ids
        """Ids that no message can put into a state: the special ones, and added tokens that the template writes."""
        self.prefix_preserving = self._template_preserves()
        """Whether the template by itself keeps earlier turns as they were (on ids, over three turns of probe text)."""

    def ids(self, state: State) -> tuple[int, ...]:
        """Returns the ids of a state, [S]."""
        return self.render(state).ids

    def render(self, state: State) -> Rendered:
        """Returns the ids of a state, with where the earlier actions lie in them.

        With ``history=full`` the state extends the one before it, so an earlier turn reads as it did when it was the last.
        With ``history=calls`` earlier turns are cut down, no state extends another, and the template has its way.
        """
        roles = tuple(turn.role for turn in state.turns)
        full = state.settings.history == "full"
        parts = self._layout(roles) if full else tuple(self._encode_part(part) for part in self._split(roles))
        ids, spans, sampled = [*self._begin, *parts[0]], [], []
        steps = iter(state.steps)
        for i, (turn, after) in enumerate(zip(state.turns, parts[1:], strict=True)):
            if turn.role != "assistant":
                ids += self._encode_text(self._message(turn.text, first=i == 0))
                ids += after
                continue
            step = next(steps, None)
            stored = self._stored(step.action, turn.text) if full and step is not None else ()
            start = len(ids)
            ids += stored or self._encode_text(turn.text)
            spans.append((start, len(ids)))
            sampled.append(bool(stored))
            # The turn's end may have been sampled already; the template must not write it a second time.
            ids += after[1:] if stored and after and stored[-1] == after[0] and after[0] in self.control_ids else after
        return Rendered(tuple(ids), tuple(spans), tuple(sampled))

    def text_ids(self, text: str) -> tuple[int, ...]:
        """Returns the ids of a message's text: no control token among them, whatever stands in it."""
        return self._encode_text(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of sampled ids. Special tokens are left out: they say where a turn ends and are no text."""
        kwargs = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        return str(self.tokenizer.decode(list(ids), **kwargs))

    def drifts(self, token_ids: Sequence[int], text: str) -> bool:
        """Returns whether tokenising `text` anew gives other ids than the sampled ones (special tokens at the end aside)."""
        end = len(token_ids)
        while end and token_ids[end - 1] in self.special_ids:
            end -= 1
        return tuple(token_ids[:end]) != self._encode_text(text)

    def owns(self, action: Action) -> bool:
        """Returns whether an action's ids are of this tokenizer: whether they decode to its text."""
        ids = action.token_ids
        return bool(ids) and min(ids) >= 0 and max(ids) < len(self.tokenizer) and self.decode(ids) == action.text

    def _stored(self, action: Action, text: str) -> tuple[int, ...]:
        """Returns the sampled ids that stand for a turn; empty where there are none of this tokenizer."""
        if not self.owns(action):
            return ()
        ids = action.token_ids
        if action.text != text:
            # Written past the first complete call: ids end with the one that completes it.
            while len(ids) > 1 and self.decode(ids[:-1]).startswith(text):
                ids = ids[:-1]
        return ids

    # What the template writes: text around the messages, cut at placeholders.

    def _layout_of(self, roles: tuple[Role, ...]) -> tuple[tuple[int, ...], ...]:
        """Returns the ids around the messages, as they were written when each action was about to be sampled."""
        marks = [i for i, role in enumerate(roles) if role == "assistant"] + [len(roles)]
        parts: list[str] = []
        for end in marks:
            if end == len(roles) and roles[-1] == "assistant":
                parts.append("")
                break
            # Of the rendering up to this action, the part after the action before it.
            parts += self._split(roles[:end])[len(parts) :]
        return tuple(self._encode_part(part) for part in parts)

    def _split_template(self, roles: tuple[Role, ...]) -> tuple[str, ...]:
        """Returns the n + 1 strings that the template writes around n messages, ready for the next action."""
        if self.template == "plain":
            return self._split_plain(roles)
        names = [self.role_name(role) for role in roles]
        try:
            return self._render_chat(names)
        except ConfigError:
            raise
        except Exception as error:  # whatever a template raises: templates are programs
            raise ConfigError(f"The chat template cannot render a conversation of {', '.join(names)}: {error}") from error

    def _split_plain(self, roles: tuple[Role, ...]) -> tuple[str, ...]:
        parts = [f"{self.system}\n\n" if self.system else ""]
        for role in roles:
            before, after = _PLAIN[role]
            parts[-1] += before
            parts.append(after)
        return tuple(parts)

    def _render_chat(self, names: Sequence[str]) -> tuple[str, ...]:
        marks = [f"SWIRLmessage{i}SWIRL" for i in range(len(names))]
        messages = [{"role": name, "content": mark} for name, mark in zip(names, marks, strict=True)]
        if self.system is not None and self.takes_system:
            messages.insert(0, {"role": "system", "content": self.system})
        text = self._apply(messages)
        parts = []
        for mark in marks:
            before, found, text = text.partition(mark)
            if not found or mark in text:
                raise ConfigError(f"The chat template does not write each of the messages ({', '.join(names)}) once, in order.")
            parts.append(before)
        return (*parts, text)

    def _apply(self, messages: list[dict[str, str]]) -> str:
        options = {"add_generation_prompt": True, **self.template_options}
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, **options))

    def role_name(self, role: Role) -> str:
        """Returns what the template calls a role. Tool results are the user's where the template has no role for tools."""
        return "user" if role == "tool" and not self._takes_tool else role

    @functools.cached_property
    def _takes_tool(self) -> bool:
        source = str(self.tokenizer.chat_template)
        if "'tool'" not in source and '"tool"' not in source:
            return False
        try:
            self._render_chat(["user", "assistant", "tool", "assistant", "tool"])
        except Exception:  # e.g. a template that wants a tool result to follow a call in its own notation
            return False
        return True

    @functools.cached_property
    def takes_system(self) -> bool:
        """Whether the template has a place for a system message."""
        if self.template == "plain":
            return True
        try:
            return "SWIRLsystem" in self._apply([{"role": "system", "content": "SWIRLsystem"}, {"role": "user", "content": "x"}])
        except Exception:  # a template refuses by raising
            return False

    @functools.cached_property
    def _begin(self) -> tuple[int, ...]:
        """What opens a text without a template, where the tokenizer is used to such an id."""
        opened = self.tokenizer.encode("x")[:1] if self.template == "plain" else []
        return tuple(opened) if opened and opened[0] == self.tokenizer.bos_token_id else ()

    def _message(self, text: str, first: bool) -> str:
        return f"{self.system}\n\n{text}" if first and self.system is not None and not self.takes_system else text

    # Tokenising.

    def _encode(self, text: str, trusted: bool) -> list[int]:
        if not text:
            return []
        return list(self.tokenizer.encode(clean(text), add_special_tokens=False, split_special_tokens=not trusted))

    def _encode_plain(self, text: str) -> list[int]:
        """Returns ids of `text` with no control token among them, however the text is spelled."""
        ids = self._encode(text, trusted=False)
        if self.control_ids.isdisjoint(ids):
            return ids
        # Added tokens that are not marked special are found in spite of `split_special_tokens`: cut their names in two.
        pieces = [text]
        for name in self._controls:
            pieces = [part for piece in pieces for part in _cut(piece, name)]
        ids = [i for piece in pieces for i in self._encode(piece, trusted=False)]
        if self.control_ids.isdisjoint(ids):
            return ids
        # A normaliser made the name out of other characters. Single characters make none; were one a token, it is dropped.
        ids = [i for char in text for i in self._encode(char, trusted=False)]
        return [i for i in ids if i not in self.control_ids]

    def _find_controls(self) -> dict[str, int]:
        """Returns the control tokens by name: special ones, and added ones that the template writes (blanks aside)."""
        written = "".join(self._split(("user", "assistant", "tool"))) if self.template == "chat" else ""
        added = {i: str(token) for i, token in self.tokenizer.added_tokens_decoder.items()}
        return {
            name: i for i, name in added.items() if i in self.special_ids or (name in written and not name.isspace() and name)
        }

    def _template_preserves(self) -> bool:
        if self.template == "plain":
            return True
        roles: tuple[Role, ...] = ("user", "assistant", "tool", "assistant", "tool")
        parts = [tuple(self._encode_part(part) for part in self._split(roles[:k])) for k in (1, 3, 5)]
        if parts[0] != parts[2][:2] or parts[1] != parts[2][:4]:
            return False
        # The messages themselves: some templates cut the reasoning out of turns that are not the last.
        question = {"role": "user", "content": "question"}
        action = {"role": "assistant", "content": "<think>\nreason\n</think>\n\nreply"}
        before = self._apply([question])
        return self._apply([question, action, {"role": self.role_name("tool"), "content": "result"}]).startswith(
            before + action["content"]
        )


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Returns the ids of all tokens that a tokenizer marks as special."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(tokenizer.all_special_ids) | frozenset(added)


def _cut(text: str, name: str) -> list[str]:
    """Returns `text` in pieces, none of which holds `name`."""
    head, tail = name[:1], name[1:]
    parts = text.split(name)
    return [*(piece for part in parts[:-1] for piece in (part + head, tail) if piece), parts[-1]] if len(parts) > 1 else parts
