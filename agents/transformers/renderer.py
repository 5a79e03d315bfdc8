"""State -> token ids, such that a state begins, id for id, with the state before it and the ids sampled there.

Only what the template itself writes is tokenised with control tokens allowed. Messages are tokenised as plain text, whatever
they hold; an action whose sampled ids are known enters with just these. Later states extend earlier ones by construction; what
the template would have done by itself is checked once and reported in `Renderer.prefix_preserving`.
"""

from __future__ import annotations

import datetime
import functools
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from swirl_env.agents.transformers.interfaces import Tokenizer
from swirl_env.agents.transformers.native import CALL, TOOL, NativeTemplate
from swirl_env.agents.transformers.template import ChatTemplate, PlainTemplate, Template
from swirl_env.agents.transformers.text import TextCodec, special_ids
from swirl_env.episodes.reasoning import OPEN, reasoning_end
from swirl_env.errors import ConfigError
from swirl_env.sequences import common_prefix
from swirl_env.types import Action, Role, Settings, State, Turn

TemplateName = Literal["chat", "plain"]
_ROLES: tuple[Role, ...] = ("user", "assistant", "tool")
_NATIVE = (("user", "assistant", "user"), ("user", CALL, TOOL))
"""The conversations that show what a template with tools writes: a correction, and a call with its result."""


class Rendered(NamedTuple):
    """A state as token ids."""

    ids: tuple[int, ...]
    """All ids, [S]; sampling goes on after the last."""
    spans: tuple[tuple[int, int], ...]
    """For each earlier action, the half-open range of `ids` that it fills: what carries loss when steps share a pass."""
    sampled: tuple[bool, ...]
    """For each earlier action, whether the range holds the very ids that were sampled, or its text tokenised again."""


class Renderer:
    """Turns states into token ids; a pure function of the tokenizer and its options, no model needed.

    Args:
        tokenizer: a transformers tokenizer.
        template: ``chat`` for the tokenizer's chat template; ``plain`` for messages separated by line breaks, for models
            that were never taught a template.
        system: a system message to begin with; None leaves it to the template. If a template takes none, it opens the
            first message instead.
        template_options: variables for the chat template, e.g. ``{"enable_thinking": False}``.
        date: the day that chat templates which print today's date are given, as ``YYYY-MM-DD``; None for today. It stays
            what it was at construction, so that prompts do not change at midnight.
        functions: the tools that the template offers, as a JSON list of function schemas (`Settings.functions`). `of` returns
            the renderer for the tools of an episode.
        shots: worked conversations before each episode, as messages of the chat template (see `swirl_env.episodes.shots`).
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: TemplateName = "chat",
        system: str | None = None,
        template_options: Mapping[str, Any] | None = None,
        date: str | None = None,
        functions: str = "",
        shots: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        if template not in ("chat", "plain"):
            raise ConfigError(f"template is 'chat' or 'plain'; got {template!r}.")
        if template == "chat" and not getattr(tokenizer, "chat_template", None):
            raise ConfigError("This tokenizer has no chat template. Use template='plain', or a model that was taught one.")
        if shots and template == "plain":
            raise ConfigError("shots are messages of a chat template; with template='plain' write examples into the prompt.")
        self.tokenizer, self.system, self.shots = tokenizer, system, tuple(shots)
        self.template: TemplateName = template
        self.template_options = dict(template_options or {})
        self.date = _day(date)
        self._template: Template = PlainTemplate(system)
        self._probes: tuple[tuple[str, ...], ...] = (_ROLES,)
        written = ""
        if template == "chat":
            chat = self._template = ChatTemplate(tokenizer, system, self.template_options, self.date, self.shots)
            written = "".join(chat.split(_ROLES))
        if functions:
            self._template, self._probes = self._with_tools(functions), _NATIVE
            written += "".join(part for roles in _NATIVE for part in self._template.split(roles)[1:])
        self.codec = TextCodec(tokenizer, written)
        self.prints_date = self.template == "chat" and "strftime_now" in str(tokenizer.chat_template)
        """Whether prompts hold `date`."""
        self.of_functions = functools.lru_cache(maxsize=8)(self._offering)
        """JSON text of functions -> the renderer that offers them."""
        self.control_ids = self.codec.control_ids
        """Ids that no message can put into a state: the special ones, and added tokens that the template writes."""
        self._parts = functools.lru_cache(maxsize=256)(self._template.split)
        self._layout = functools.lru_cache(maxsize=256)(self._layout_of)
        self._bos = self._opening_id()
        before, after = self._parts(("user",))
        prompt = self.codec.encode_around([(before, True), ("x", False), (after, True)], None)
        self._prompt_end = prompt[-1] if prompt else None
        self._lead = self._action_lead()
        self.opens_reasoning = reasoning_end(text := self.codec.decode(prompt), False) == len(text) and OPEN in text
        """Whether the generation prompt ends inside a think block, so that actions begin in one."""
        self.prefix_preserving = self._template_preserves()
        """Whether the template by itself keeps earlier turns as they were (on ids, over three turns of probe text)."""
        self._compare_with_template()

    @property
    def end_ids(self) -> frozenset[int]:
        """Ids that end an action: those that begin, end or pad a text, and all by which the template tells turns apart.

        A policy that writes the opening of another turn has ended its own. Inside channels an action is several messages, so
        what tells these apart ends nothing.
        """
        named = (self.tokenizer.eos_token_id, self.tokenizer.bos_token_id, self.tokenizer.pad_token_id)
        parts = [part for roles in self._probes for part in self._parts(roles)] if self.template == "chat" else []
        written = self.codec.encode_around([(part, True) for part in parts], None)
        ends = {i for i in named if i is not None} | (self.codec.hidden_ids & set(written))
        return frozenset(ends - self.codec.channel_ids)

    def of(self, settings: Settings) -> Renderer:
        """Returns the renderer of episodes with these settings: one that offers their tools if the format leaves that to it.

        Raises:
            ConfigError: if the template takes no tools.
        """
        return self.of_functions(settings.functions) if settings.functions else self

    def _offering(self, functions: str) -> Renderer:
        date = self.date.isoformat()
        return Renderer(self.tokenizer, self.template, self.system, self.template_options, date, functions, self.shots)

    def _with_tools(self, functions: str) -> NativeTemplate:
        """Returns the chat template with tools on offer."""
        if self.template == "plain":
            raise ConfigError("format=native offers tools through a chat template; with template=plain use format=hermes.")
        added = self.tokenizer.added_tokens_decoder
        specials = [str(added[i]) for i in sorted(special_ids(self.tokenizer)) if i in added]
        options = self.template_options
        return NativeTemplate(self.tokenizer, self.system, options, self.date, functions, specials, self.shots)

    def ids(self, state: State) -> tuple[int, ...]:
        """Returns the ids of a state, [S]."""
        return self.render(state).ids

    def render(self, state: State) -> Rendered:
        """Returns the ids of a state, with where the earlier actions lie in them.

        It is for the renderer that `of` returns for the state's settings.

        With ``history=full`` the state extends the one before it, so an earlier turn reads as it did when it was the last.
        With ``history=calls`` earlier turns are cut down, no state extends another, and the template has its way.
        """
        native = self._template if isinstance(self._template, NativeTemplate) else None
        roles: tuple[str, ...] = native.kinds(state) if native else tuple(turn.role for turn in state.turns)
        state = native.shown(state) if native else state
        full = state.settings.history == "full"
        parts = self._layout(roles) if full else self._parts(roles)
        ids: list[int] = list(self._bos)
        around = [(parts[0], True)]  # what stands between two actions
        spans, sampled = [], []
        end: int | None = None
        steps = iter(state.steps)
        for i, (turn, after) in enumerate(zip(state.turns, parts[1:], strict=True)):
            if turn.role != "assistant":
                around += [(self._template.write(roles[i], turn.text, i == 0), False), (after, True)]
                continue
            self._extend(ids, around, end)
            step = next(steps, None)
            stored = self.sampled_ids(step.action, turn.text) if full and step is not None else ()
            action = stored or (self.text_ids(turn.text) if full else self._written(turn, ids))
            spans.append((len(ids), len(ids) + len(action)))
            sampled.append(bool(stored))
            ids += action
            around, end = [(after, True)], stored[-1] if stored else None
        self._extend(ids, around, end)
        return Rendered(tuple(ids), tuple(spans), tuple(sampled))

    def text_ids(self, text: str) -> tuple[int, ...]:
        """Returns the ids of an action's text behind the generation prompt; nothing in the text becomes a control token.

        They include what the template itself writes between its generation prompt and an action (a blank, a channel).
        """
        pieces = self._action_pieces(text)
        lead = "" if self._lead.isspace() and pieces[0][0][:1].isspace() else self._lead
        return self.codec.encode_around([(lead, True), *pieces], self._prompt_end)

    def _action_pieces(self, text: str) -> list[tuple[str, bool]]:
        """Returns an action in pieces, each with whether the template wrote it."""
        if isinstance(self._template, NativeTemplate):
            return self._template.pieces(text)
        return [(self._template.write("assistant", text, False), False)]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of sampled ids (see `TextCodec.decode`)."""
        return self.codec.decode(ids)

    @property
    def takes_system(self) -> bool:
        """Whether the template has a place for a system message."""
        return self._template.takes_system

    def role_name(self, role: Role) -> str:
        """Returns what the template calls a role; tool results are the user's if it has no role for tools."""
        return self._template.name_of(role) if isinstance(self._template, ChatTemplate) else role

    def drifts(self, token_ids: Sequence[int], text: str) -> bool:
        """Returns whether tokenising `text` again gives other ids than the sampled ones (the end of the turn aside)."""
        end = len(token_ids)
        while end and token_ids[end - 1] in self.codec.hidden_ids:
            end -= 1
        ids = tuple(token_ids[:end])
        return ids != self.codec.encode(text, self._prompt_end) and ids != self.text_ids(text)

    def owns(self, action: Action) -> bool:
        """Returns whether an action's ids are of this tokenizer: whether they decode to its text."""
        ids = action.token_ids
        return bool(ids) and self.codec.known_ids.issuperset(ids) and self.decode(ids) == action.text

    def _extend(self, ids: list[int], around: Sequence[tuple[str, bool]], end: int | None) -> None:
        """Appends what stands behind an action. If its end was sampled already, the template must not write it a second time."""
        more = self.codec.encode_around(around, ids[-1] if ids else None)
        if end in self.control_ids and end in more:
            place = more.index(end)
            if not self.decode(more[:place]).strip():
                more = more[place + 1 :]
        ids += more

    def sampled_ids(self, action: Action, text: str) -> tuple[int, ...]:
        """Returns the sampled ids that stand for a turn; empty if there are none of this tokenizer."""
        if not self.owns(action):
            return ()
        ids = action.token_ids
        if action.text == text:
            return ids
        # Written past the first complete call: ids end with the one that completes it, found by halving.
        return ids[: 1 + bisect_left(range(1, len(ids)), True, key=lambda n: self.decode(ids[:n]).startswith(text))]

    def _layout_of(self, roles: tuple[str, ...]) -> tuple[str, ...]:
        """Returns the strings around the messages, as they were written when each action was about to be sampled."""
        acts = [role == "assistant" or role.startswith(CALL) for role in roles]
        marks = [i for i, act in enumerate(acts) if act] + [len(roles)]
        parts: list[str] = []
        for end in marks:
            if end == len(roles) and acts[-1]:
                parts.append("")
                break
            # Of the rendering up to this action, the part after the action before it.
            parts += self._parts(roles[:end])[len(parts) :]
        return tuple(parts)

    def _written(self, turn: Turn, ids: Sequence[int]) -> tuple[int, ...]:
        """Returns the ids of an earlier action as the template writes it behind `ids`."""
        return self.codec.encode_around(self._action_pieces(turn.text), ids[-1] if ids else None)

    def _action_lead(self) -> str:
        """Returns what the template writes between its generation prompt and an action."""
        prompt, before = self._parts(("user",))[1], self._parts(self._probes[0])[1]
        return before[len(prompt) :] if before.startswith(prompt) else ""

    def _opening_id(self) -> tuple[int, ...]:
        """Returns what opens a text without a template, if the tokenizer is used to such an id."""
        opened = self.tokenizer.encode("x")[:1] if self.template == "plain" else []
        return tuple(opened) if opened and opened[0] == self.tokenizer.bos_token_id else ()

    def _template_preserves(self) -> bool:
        template = self._template
        if not isinstance(template, ChatTemplate):
            return True
        native = isinstance(template, NativeTemplate)
        roles = ("user", CALL, TOOL, CALL, TOOL) if native else ("user", "assistant", "tool", "assistant", "tool")
        parts = [self._parts(roles[:k]) for k in (1, 3, 5)]
        if parts[0] != parts[2][:2] or parts[1] != parts[2][:4]:
            return False
        if native:
            return True
        # The messages themselves: some templates cut the reasoning out of turns that are not the last.
        question, action = ("user", "question"), ("assistant", "<think>\nreason\n</think>\n\nreply")
        longer = template.render([question, action, (template.name_of("tool"), "result")])
        return longer.startswith(template.render([question]) + action[1])

    def _compare_with_template(self) -> None:
        """Compares a conversation in pieces with what the template writes in one go.

        Raises:
            ConfigError: if they differ in more than how the same text is cut into tokens.
        """
        if not isinstance(self._template, ChatTemplate):
            return
        probes = {"user": "How high is K2, in 1,000 m?", "assistant": "I look it up.", "tool": "K2: 8611 m"}
        for roles in (self._probes[0][:1], self._probes[0]) if self.prefix_preserving else (self._probes[0][:1],):
            pieces = [(self._parts(roles)[0], True)]
            texts = [probes[role] + "?" * i for i, role in enumerate(roles)]  # no two alike: templates may compare messages
            for i, (role, text) in enumerate(zip(roles, texts, strict=True)):
                pieces += [(self._template.write(role, text, i == 0), False), (self._parts(roles)[i + 1], True)]
            whole = self._template.render([(self._template.name_of(role), text) for role, text in zip(roles, texts, strict=True)])
            if self.system is not None and not (self._template.takes_system or self.shots):  # it opens the first message
                whole = whole.replace(texts[0], f"{self.system}\n\n{texts[0]}", 1)
            ours = self._spelled(self.codec.encode_around(pieces, None))
            theirs = self._spelled(self.tokenizer.encode(whole, add_special_tokens=False))
            if ours != theirs:
                same = common_prefix([*map(ord, ours)], [*map(ord, theirs)])
                around = slice(max(same - 20, 0), same + 40)
                raise ConfigError(
                    f"This tokenizer cannot encode a conversation in pieces: its chat template gives {theirs[around]!r}, the "
                    f"pieces give {ours[around]!r}. Use template='plain', or another tokenizer."
                )

    def _spelled(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _day(date: str | None) -> datetime.date:
    if date is None:
        return datetime.date.today()
    try:
        return datetime.date.fromisoformat(date)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"date is a day as YYYY-MM-DD, or null for today; got {date!r}.") from error
