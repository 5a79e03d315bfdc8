"""When a generation has written all of an action: at the first closing tag of its format that stands outside reasoning."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from swirl_env.agents.transformers.text import TextCodec
from swirl_env.episodes.reasoning import CLOSE, reasoning_end
from swirl_env.errors import ConfigError
from swirl_env.registry import format_of, make_format
from swirl_env.types import Malformed, Settings


class Stopper:
    """Makes the tests by which rows stop, and remembers what is known of tokens and formats."""

    def __init__(self, codec: TextCodec) -> None:
        self.codec = codec
        self._holds_char: dict[tuple[str, int], bool] = {}
        self._closes: dict[tuple[str, ...], dict[int, bool]] = {}
        """By stop strings: whether a token holds the last character of one of them."""
        self._stops: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = {}

    def test(self, settings: Settings, opened: bool) -> Callable[[list[int]], bool]:
        """Returns the test whether sampled ids (asked after each one) complete an action.

        Args:
            settings: name the format and the tools.
            opened: whether the generation prompt ended inside a think block.

        Raises:
            ConfigError: if the tokenizer marks tokens as special that the format writes.
        """
        stops = self._stops_of(settings)
        if not stops:
            return lambda ids: False
        longest = max(map(len, (*stops, CLOSE)))
        parse = format_of(settings).parse if settings.functions else None  # calls without tags end with no stop string
        closes = self._closes.setdefault(stops, {})
        thinking, read = opened, 0

        def ended(ids: list[int]) -> bool:
            nonlocal thinking, read
            if (
                parse is not None
                and any(self._holds(mark, ids[-1]) for mark in "}])")
                and not isinstance(parse(self.codec.decode(ids), opened), Malformed)
            ):
                return True
            # Few tokens hold the end of a tag, so few are looked at more closely.
            may_close = closes.get(ids[-1])
            if may_close is None:
                may_close = closes[ids[-1]] = any(self._holds(mark[-1], ids[-1]) for mark in (*stops, CLOSE))
            if not may_close:
                return False
            tail = self.codec.decode(ids[-longest:])  # a token is a byte at least, so this holds a whole tag
            # A block that was open goes on until its end is written: no need to read all of it again before.
            news, read = ids[read:], len(ids)
            thinking = thinking and CLOSE not in tail and self.codec.channel_ids.isdisjoint(news)
            if thinking or not any(stop in tail for stop in stops):
                return False
            text = self.codec.decode(ids)
            thinking = 0 < len(text) == reasoning_end(text, opened) and not text.endswith(CLOSE)
            return completes(text, stops, opened, len(tail))

        return ended

    def _stops_of(self, settings: Settings) -> tuple[str, ...]:
        """Returns the stop strings of a format, after a look at what it writes."""
        key = (settings.format, settings.tools)
        if key not in self._stops:
            form = make_format(*key)
            written = "\0".join([*form.stop, form.answer(""), *(form.call(tool, "") for tool in settings.tools)])
            hidden = sorted(name for name in self.codec.controls if name in written) if form.stop else []
            if hidden:
                raise ConfigError(
                    f"The format {settings.format!r} writes {', '.join(hidden)}, which this tokenizer or its chat template "
                    f"uses to structure conversations, so no action could be read. Choose another format or other tool tags."
                )
            self._stops[key] = tuple(form.stop)
        return self._stops[key]

    def _holds(self, char: str, token: int) -> bool:
        known = self._holds_char.get((char, token))
        if known is None:
            known = self._holds_char[char, token] = char in self.codec.decode([token])
        return known


def completes(text: str, stops: Sequence[str], opened: bool = False, last: int | None = None) -> bool:
    """Returns whether a stop string stands in a text outside reasoning.

    Args:
        text: the action so far.
        stops: the stop strings.
        opened: whether the text begins inside a think block.
        last: how many characters at the end may hold a stop string that was not looked at before; None for all.
    """
    start = 0 if last is None else max(0, len(text) - last)
    for stop in stops:
        at = text.find(stop, start)
        while at >= 0:
            if reasoning_end(text[: at + len(stop)], opened) <= at:
                return True
            at = text.find(stop, at + 1)
    return False
