"""A local causal language model as a policy, with the ids it sampled and their log-probabilities."""

from __future__ import annotations

import functools
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, cast

import torch

from swirl_env.agents.transformers.generation_check import check_generation
from swirl_env.agents.transformers.interfaces import CausalLM, Tokenizer
from swirl_env.agents.transformers.load import load_model, load_tokenizer, pick_device
from swirl_env.agents.transformers.prefix_cache import PrefixCache
from swirl_env.agents.transformers.renderer import Rendered, Renderer, TemplateName
from swirl_env.agents.transformers.sampling import Generation, Request, Sampling, generate
from swirl_env.agents.transformers.stopping import Stopper
from swirl_env.episodes.shots import read_shots
from swirl_env.errors import ConfigError
from swirl_env.fingerprint import Weights, weights_fingerprint
from swirl_env.registry import format_of
from swirl_env.texts import Text, read_text
from swirl_env.types import Action, State

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TransformersAgent:
    """Batched generation with a causal LM of the transformers library.

    Each row stops with the token that completes the first closing tag outside a think block, or with the end of its turn.
    What is stored of an action:

    - `token_ids`: every sampled id, the one that ends the turn included, since the policy chose to stop;
    - `text`: these ids decoded (see `TextCodec.decode`);
    - `logprobs`: under the model's own distribution, that is at temperature 1 with nothing cut off, whatever `temperature`
      and `top_p` are;
    - `behaviour_logprobs`: under the distribution sampled from; empty if `temperature` and `top_p` are 1. Ids that the
      model has and the tokenizer has not are never drawn, but count in both, as they do when training scores them;
    - `prompt_ids`: the ids of the state. The next state begins with them and `token_ids`;
    - `opened`: whether the generation prompt had opened a think block;
    - `truncated`: whether `max_new_tokens` or the context cut the action off;
    - `drift`: 1 if tokenising `text` again gives other ids (the stored ones win).

    What a row draws depends on `seed`, the episode's seed, the task and the number of the step, not on the other rows; logits
    differ by rounding between batches, so sampling alike over other batches is as exact as the floats.

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
        seed: tells apart runs that see the same episodes.
        system: a system message: a text, a file or a name (see `swirl_env.texts`); None leaves it to the template.
        shots: worked conversations (few-shot) before each episode, as messages of the chat template: a JSON list, a file or a
            name (see `swirl_env.episodes.shots`).
        template_options: variables for the chat template, e.g. ``{"enable_thinking": False}``.
        tokenizer: for a loaded `model`; else the model's own is read.
        max_context: most tokens of state and action together; None takes what the model was made for.
        prefix_cache: most tokens of which keys and values are kept from one step to the next inside `prefix_caching`, over
            all states; 0 for none. Each takes 2 x layers x key-value heads x head size numbers of memory.
        date: the day (``YYYY-MM-DD``) for chat templates that print today's; None for the day of construction.
        trust_remote_code: whether Python code that the model's folder brings may run.
        precision: ``bf16`` or ``fp16`` to generate under autocast, as mixed-precision training scores; None for the weights'
            own dtype.
    """

    def __init__(
        self,
        model: str | CausalLM,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        device: str = "auto",
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_new_tokens: int = 256,
        batch_size: int = 16,
        template: TemplateName = "chat",
        adapter: str | None = None,
        seed: int = 0,
        system: Text | None = None,
        template_options: Mapping[str, Any] | None = None,
        tokenizer: Tokenizer | None = None,
        max_context: int | None = None,
        prefix_cache: int = 1 << 16,
        date: str | None = None,
        trust_remote_code: bool = False,
        precision: Literal["no", "bf16", "fp16"] | None = None,
        shots: Text | None = None,
    ) -> None:
        _check(temperature, top_p, max_new_tokens, batch_size, prefix_cache, precision)
        if isinstance(model, str):
            tokenizer = tokenizer or load_tokenizer(model, trust_remote_code)
        elif tokenizer is None:
            raise ConfigError("A loaded model needs its tokenizer: TransformersAgent(model, tokenizer=...).")
        system = None if system is None else read_text(system, "system")
        messages = [] if shots is None else read_shots(shots)
        self.renderer = Renderer(tokenizer, template, system, template_options, date, shots=messages)
        self.name = model if isinstance(model, str) else str(getattr(model, "name_or_path", "") or type(model).__name__)
        self.model: CausalLM
        """The model itself, for training and for whoever wants its weights."""
        if isinstance(model, str):
            self.model = load_model(model, dtype, device, adapter, trust_remote_code)
        else:
            self.model = model if device == "auto" else model.to(pick_device(device))
        self.temperature, self.top_p, self.seed = temperature, top_p, seed
        self.max_new_tokens, self.batch_size = max_new_tokens, batch_size
        self.max_context = max_context or _context(self.model.config)
        self.precision = precision
        self.end_ids = self.renderer.end_ids | _eos(self.model)
        """Ids that end an action."""
        self.stats: Counter[str] = Counter()
        """Counts since the start: actions, tokens, drift, too_long, and prefix_breaks (states that do not begin with the
        state before them and its sampled ids, though they should)."""
        self._options = (dtype, adapter, template)
        self._stopper_of = functools.lru_cache(maxsize=8)(lambda renderer: Stopper(renderer.codec))
        self._prefixes, self._caching = PrefixCache(prefix_cache), 0
        self._barred: torch.Tensor | None = None
        check_generation(self.model, batch_size)

    @contextmanager
    def prefix_caching(self) -> Iterator[None]:
        """Keeps what is read of states until the next call of `act`, for steps that follow one another.

        Of a state that continues one of the call before, only what is new is read: most of the work of an episode on a CPU.
        `swirl_env.rollout.collect` runs its episodes so. Weights that an optimizer or ``load_state_dict`` changes meanwhile
        are noticed, and states read again; weights written through ``.data``, or adapters switched on or off, are not.
        """
        self._caching += 1
        try:
            yield
        finally:
            self._caching -= 1
            if not self._caching:
                self._prefixes.clear()

    def act(self, states: Sequence[State]) -> list[Action]:
        """Returns one action per state, in their order; ``error="length"`` if a state fills the model's context.

        Raises:
            ConfigError: if the tokenizer cannot write an action format of these states.
        """
        renderers = [self.renderer.of(state.settings) for state in states]
        prompts = [renderer.render(state) for renderer, state in zip(renderers, states, strict=True)]
        actions = [Action("", error="length")] * len(states)
        fits = [i for i, prompt in enumerate(prompts) if len(prompt.ids) < self.max_context]
        if self._caching:
            self._prefixes.start_call(self.model)
        # Alike lengths together: padding is work.
        fits.sort(key=lambda i: len(prompts[i].ids))
        for start in range(0, len(fits), self.batch_size):
            batch = fits[start : start + self.batch_size]
            requests = [self._request(states[i], prompts[i]) for i in batch]
            for i, generation in zip(batch, self._generate(requests), strict=True):
                actions[i] = self._action(renderers[i], prompts[i], generation)
        self._count(states, prompts, actions)
        return actions

    def _generate(self, requests: Sequence[Request]) -> list[Generation]:
        sampling = Sampling(self.temperature, self.top_p, self._barred_ids())
        with self._autocast():
            return generate(self.model, requests, sampling, self._prefixes if self._caching else None)

    def _autocast(self) -> AbstractContextManager[object]:
        dtype = _AUTOCAST.get(self.precision or "no")
        return nullcontext() if dtype is None else torch.autocast(self.model.device.type, dtype)

    def _barred_ids(self) -> torch.Tensor | None:
        """Returns which ids the model has and the tokenizer has not, [V]: rows that only pad the embedding matrix."""
        size = _text_config(self.model.config).vocab_size
        if self._barred is None or len(self._barred) != size or self._barred.device != self.model.device:
            self._barred = torch.ones(size, dtype=torch.bool)
            self._barred[[i for i in self.renderer.codec.known_ids if i < size]] = False
            self._barred = self._barred.to(self.model.device)
            self._pads = bool(self._barred.any())
        return self._barred if self._pads else None

    def request(self, state: State) -> tuple[Rendered, Request]:
        """Returns the ids of a state, and how they are to be continued."""
        prompt = self.renderer.of(state.settings).render(state)
        return prompt, self._request(state, prompt)

    def action(self, state: State, prompt: Rendered, generation: Generation) -> Action:
        """Returns what was generated for a state as an action."""
        return self._action(self.renderer.of(state.settings), prompt, generation)

    def _request(self, state: State, prompt: Rendered) -> Request:
        drawn = f"{self.seed}\0{state.seed}\0{len(state.steps)}\0{state.task.id}"
        seed = int.from_bytes(hashlib.blake2b(drawn.encode("utf-8", "replace"), digest_size=8).digest()) >> 1
        room = min(self.max_new_tokens, self.max_context - len(prompt.ids))
        return Request(prompt.ids, room, self._ended(state), seed, format_of(state.settings).stop)

    def _ended(self, state: State) -> Callable[[list[int]], bool]:
        """Returns the test whether sampled ids end an action: with the end of the turn, or with a closing tag complete."""
        renderer = self.renderer.of(state.settings)
        stopped = self._stopper_of(renderer).test(state.settings, renderer.opens_reasoning)
        end_ids = self.end_ids if renderer is self.renderer else self.end_ids | renderer.end_ids
        return lambda ids: ids[-1] in end_ids or stopped(ids)

    def _action(self, renderer: Renderer, prompt: Rendered, generation: Generation) -> Action:
        text = renderer.decode(generation.ids)
        return Action(
            text,
            tuple(generation.ids),
            tuple(generation.logprobs),
            prompt.ids,
            drift=int(renderer.drifts(generation.ids, text)),
            opened=renderer.opens_reasoning,
            behaviour_logprobs=tuple(generation.behaviour),
            truncated=generation.truncated,
        )

    def _count(self, states: Sequence[State], prompts: Sequence[Rendered], actions: Sequence[Action]) -> None:
        for state, prompt, action in zip(states, prompts, actions, strict=True):
            self.stats["actions"] += 1
            self.stats["tokens"] += len(action.token_ids)
            self.stats["drift"] += action.drift
            self.stats["too_long"] += action.error == "length"
            if state.settings.history == "full" and state.steps and state.steps[-1].action.prompt_ids:
                last = state.steps[-1].action
                # What was written past the first complete call is no part of the state.
                before = last.prompt_ids + self.renderer.of(state.settings).sampled_ids(last, state.turns[-2].text)
                self.stats["prefix_breaks"] += prompt.ids[: len(before)] != before

    @property
    def fingerprint(self) -> str:
        """Name and hash of everything that decides what it generates, the weights as they are now among it."""
        options: tuple[object, ...]
        options = (self.name, self.temperature, self.top_p, self.seed, self.max_new_tokens, self.max_context, *self._options)
        options += (weights_fingerprint(cast("Weights", self.model)), str(self.renderer.tokenizer.chat_template))
        options += (self.renderer.system, sorted(self.renderer.template_options.items()))
        if self.renderer.shots:
            options += (self.renderer.shots,)
        if self.renderer.prints_date:
            options += (self.renderer.date.isoformat(),)
        if self.precision not in (None, "no"):
            options += (self.precision,)
        return f"transformers-{hashlib.blake2b(repr(options).encode(), digest_size=6).hexdigest()}"


def _check(
    temperature: float, top_p: float, max_new_tokens: int, batch_size: int, prefix_cache: int, precision: str | None
) -> None:
    if not (temperature >= 0 and math.isfinite(temperature)):
        raise ConfigError(f"temperature is 0 or above; got {temperature}.")
    if not 0 < top_p <= 1:
        raise ConfigError(f"top_p is above 0 and at most 1; got {top_p}.")
    if max_new_tokens < 1 or batch_size < 1:
        raise ConfigError(f"max_new_tokens and batch_size are 1 or above; got {max_new_tokens} and {batch_size}.")
    if prefix_cache < 0:
        raise ConfigError(f"prefix_cache is a number of tokens, or 0 for none; got {prefix_cache}.")
    if precision not in (None, "no", *_AUTOCAST):
        raise ConfigError(f"precision is one of no, {', '.join(_AUTOCAST)}; got {precision!r}.")


def _context(config: Any) -> int:
    """Returns how many tokens a model was made for; a large number if its configuration does not say."""
    text = _text_config(config)
    return int(getattr(text, "max_position_embeddings", 0) or getattr(text, "n_positions", 0) or 1 << 20)


def _text_config(config: Any) -> Any:
    """Returns the language model's part of a configuration."""
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _eos(model: CausalLM) -> frozenset[int]:
    """Returns the ids that end a text according to the model's own settings."""
    ids = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return frozenset([ids] if isinstance(ids, int) else ids or [])
