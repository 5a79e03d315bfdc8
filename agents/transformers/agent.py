"""A local causal language model as a policy, with the ids it sampled and their log-probabilities."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from swirl_env.agents.transformers.load import load_model, load_tokenizer, pick_device
from swirl_env.agents.transformers.prefix_cache import PrefixCache
from swirl_env.agents.transformers.renderer import Renderer, Template
from swirl_env.agents.transformers.sampling import Generation, Request, generate
from swirl_env.errors import ConfigError
from swirl_env.registry import make_format
from swirl_env.types import Action, State


class TransformersAgent:
    """Batched generation with a causal LM of the transformers library.

    Each row stops with the token that completes the first closing tag, or with a special token (the end of its turn). What
    is kept of an action:

    - `token_ids`: every sampled id, the one that ends the turn included, since the policy chose to stop;
    - `text`: these ids decoded, special tokens left out;
    - `logprobs`: under the model's own distribution, that is at temperature 1 with nothing cut off, whatever `temperature`
      and `top_p` are;
    - `behaviour_logprobs`: under the distribution sampled from; empty if `temperature` and `top_p` are 1;
    - `prompt_ids`: the ids of the state. The next state begins with them and `token_ids`;
    - `drift`: 1 where tokenising `text` anew gives other ids (the stored ones win).

    What a row draws depends on `seed`, the episode's seed, the task and the number of the step, not on the rows beside it;
    logits differ by rounding between batches, so sampling alike over other batches is as exact as the floats.

    Args:
        model: hub name, folder, path of a ``.gguf`` file, ``package:NAME`` (the GGUF file inside an installed package), or
            a loaded model (then give `tokenizer` too).
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        temperature: 0 takes the likeliest token.
        top_p: sample from the smallest set of tokens that has this probability; 1 for all.
        max_new_tokens: most tokens of one action.
        batch_size: most states that are generated together.
        template: ``chat`` for the model's chat template, ``plain`` for bare text.
        adapter: folder or hub name of a LoRA adapter.
        seed: what tells apart runs that see the same episodes.
        system: a system message; None leaves it to the template.
        template_options: variables for the chat template, e.g. ``{"enable_thinking": False}``.
        tokenizer: for a loaded `model`; else the model's own is read.
        max_context: most tokens of state and action together; None takes what the model was made for.
        prefix_cache: most tokens of which keys and values are kept from one step to the next inside `prefix_caching`, over
            all states; 0 for none. Each takes 2 x layers x key-value heads x head size numbers of memory.
    """

    def __init__(
        self,
        model: str | Any,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        device: str = "auto",
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_new_tokens: int = 256,
        batch_size: int = 16,
        template: Template = "chat",
        adapter: str | None = None,
        seed: int = 0,
        system: str | None = None,
        template_options: Mapping[str, Any] | None = None,
        tokenizer: Any = None,
        max_context: int | None = None,
        prefix_cache: int = 1 << 16,
    ) -> None:
        _check(temperature, top_p, max_new_tokens, batch_size, prefix_cache)
        if not isinstance(model, str) and tokenizer is None:
            raise ConfigError("A loaded model needs its tokenizer: TransformersAgent(model, tokenizer=...).")
        self.name = model if isinstance(model, str) else str(getattr(model, "name_or_path", "") or type(model).__name__)
        loaded = load_model(model, dtype, device, adapter) if isinstance(model, str) else model
        self.model = loaded.to(pick_device(device)) if device != "auto" else loaded
        """The model itself, for training and for whoever wants its weights."""
        self.renderer = Renderer(tokenizer or load_tokenizer(str(model)), template, system, template_options)
        self.temperature, self.top_p, self.seed = temperature, top_p, seed
        self.max_new_tokens, self.batch_size = max_new_tokens, batch_size
        self.max_context = max_context or _context(loaded.config)
        self.end_ids = self.renderer.special_ids | _eos(loaded)
        """Ids that end an action."""
        self.stats: Counter[str] = Counter()
        """Counts since the start: actions, tokens, drift, too_long, and prefix_breaks (states that do not begin with the
        state before them and its sampled ids, though they should)."""
        self.fingerprint = self._fingerprint(dtype, adapter, template)
        self._holds_end: dict[tuple[str, int], bool] = {}
        self._kept, self._caching = PrefixCache(prefix_cache), 0

    @contextmanager
    def prefix_caching(self) -> Iterator[None]:
        """Keeps what is read of states until the next call of `act`, for steps that follow one another.

        Of a state that continues one of the call before, only what is new is read: most of the work of an episode on a CPU.
        `swirl_env.rollout.collect` runs its episodes so. Weights that an optimizer or ``load_state_dict`` changes meanwhile
        are noticed, and states read anew; weights written through ``.data``, or adapters switched on or off, are not.
        """
        self._caching += 1
        try:
            yield
        finally:
            self._caching -= 1
            if not self._caching:
                self._kept.clear()

    def act(self, states: Sequence[State]) -> list[Action]:
        """Returns one action a state, in their order; ``error="length"`` where a state fills the model's context."""
        prompts = [self.renderer.ids(state) for state in states]
        actions = [Action("", error="length")] * len(states)
        fits = [i for i, ids in enumerate(prompts) if len(ids) < self.max_context]
        if self._caching:
            self._kept.turn(self.model)
        # Alike lengths together: padding is work.
        fits.sort(key=lambda i: len(prompts[i]))
        for start in range(0, len(fits), self.batch_size):
            batch = fits[start : start + self.batch_size]
            requests = [self._request(states[i], prompts[i]) for i in batch]
            for i, generation in zip(batch, self._generate(requests), strict=True):
                actions[i] = self._action(prompts[i], generation)
        self._count(states, prompts, actions)
        return actions

    def _generate(self, requests: Sequence[Request]) -> list[Generation]:
        return generate(self.model, requests, self.temperature, self.top_p, self._kept if self._caching else None)

    def _request(self, state: State, ids: Sequence[int]) -> Request:
        stops = make_format(state.settings.format, state.settings.tools).stop
        drawn = f"{self.seed}\0{state.seed}\0{len(state.steps)}\0{state.task.id}"
        seed = int.from_bytes(hashlib.blake2b(drawn.encode("utf-8", "replace"), digest_size=8).digest()) >> 1
        return Request(ids, min(self.max_new_tokens, self.max_context - len(ids)), self._ended(stops), seed)

    def _ended(self, stops: Sequence[str]) -> Callable[[list[int]], bool]:
        """Returns the test whether sampled ids end an action: with a special token, or with a closing tag complete."""
        longest = max(map(len, stops), default=0)

        def ended(ids: list[int]) -> bool:
            if ids[-1] in self.end_ids:
                return True
            if not any(self._holds(stop[-1], ids[-1]) for stop in stops):
                return False
            tail = self.renderer.decode(ids[-longest:])  # a token is a byte at least, so this holds a whole tag
            return any(stop in tail for stop in stops)

        return ended

    def _holds(self, char: str, token: int) -> bool:
        """Returns whether a token's text holds a character; remembered, so that few tokens are looked at more closely."""
        known = self._holds_end.get((char, token))
        if known is None:
            known = self._holds_end[char, token] = char in self.renderer.decode([token])
        return known

    def _action(self, prompt: tuple[int, ...], generation: Generation) -> Action:
        text = self.renderer.decode(generation.ids)
        drift = int(self.renderer.drifts(generation.ids, text))
        behaviour = tuple(generation.behaviour)
        return Action(text, tuple(generation.ids), tuple(generation.logprobs), prompt, drift, behaviour_logprobs=behaviour)

    def _count(self, states: Sequence[State], prompts: Sequence[tuple[int, ...]], actions: Sequence[Action]) -> None:
        for state, prompt, action in zip(states, prompts, actions, strict=True):
            self.stats["actions"] += 1
            self.stats["tokens"] += len(action.token_ids)
            self.stats["drift"] += action.drift
            self.stats["too_long"] += action.error == "length"
            if state.settings.history == "full" and state.steps and state.steps[-1].action.prompt_ids:
                last = state.steps[-1].action
                before = last.prompt_ids + last.token_ids
                self.stats["prefix_breaks"] += prompt[: len(before)] != before

    def _fingerprint(self, *more: object) -> str:
        said = (self.name, self.temperature, self.top_p, self.seed, self.max_new_tokens, self.max_context, *more)
        said += (self.renderer.system, sorted(self.renderer.template_options.items()))
        return f"transformers-{hashlib.blake2b(repr(said).encode(), digest_size=6).hexdigest()}"


def _check(temperature: float, top_p: float, max_new_tokens: int, batch_size: int, prefix_cache: int) -> None:
    if not (temperature >= 0 and math.isfinite(temperature)):
        raise ConfigError(f"temperature is 0 or above; got {temperature}.")
    if not 0 < top_p <= 1:
        raise ConfigError(f"top_p is above 0 and at most 1; got {top_p}.")
    if max_new_tokens < 1 or batch_size < 1:
        raise ConfigError(f"max_new_tokens and batch_size are 1 or above; got {max_new_tokens} and {batch_size}.")
    if prefix_cache < 0:
        raise ConfigError(f"prefix_cache is a number of tokens, or 0 for none; got {prefix_cache}.")


def _context(config: Any) -> int:
    """Returns how many tokens a model was made for; a large number where its configuration does not say."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return int(getattr(text, "max_position_embeddings", 0) or getattr(text, "n_positions", 0) or 1 << 20)


def _eos(model: Any) -> frozenset[int]:
    said = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return frozenset([said] if isinstance(said, int) else said or [])
