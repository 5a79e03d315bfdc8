"""A language model behind OpenAI-compatible servers as a policy, judge or grader."""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import threading
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import openai

from swirl_env.agents.openai.endpoints import Endpoints, Refused, TooLong, Unavailable
from swirl_env.agents.openai.messages import (
    ToolRole,
    completed,
    functions_of,
    messages_of,
    stops_of,
    text_of,
)
from swirl_env.agents.openai.replies import Reply, read_reply, sampled
from swirl_env.episodes.reasoning import reasoning_end
from swirl_env.episodes.shots import for_server, read_shots
from swirl_env.errors import ConfigError
from swirl_env.texts import Text, read_text
from swirl_env.types import Action, State

TokenIds = Literal["auto", "require", "off"]
_ID_FIELDS = ("return_token_ids", "include_stop_str_in_output")
"""Fields by which vLLM is asked for token ids; most other servers ignore them, some refuse them."""
_PATH = "/chat/completions"
_DEFAULT_URL = "https://api.openai.com/v1"


class OpenAIAgent:
    """Chat completions of one or several OpenAI-compatible servers: vLLM, SGLang, llama.cpp, TGI, ``transformers serve``.

    A server that is away, slow or broken costs time: requests are retried with jitter, on another server if there are
    several, and an episode without an answer in the end is recorded as an error, to be run again on resume.

    Token ids and log-probabilities are kept if the server returns them (vLLM does, when asked by ``return_token_ids``), so
    that trajectories can be trained on without tokenising their text again; from other servers an action is text alone.

    Args:
        model: name of the model as the servers know it.
        base_url: base URL of the server, or a list of them; None takes the environment's ``OPENAI_BASE_URL``, else OpenAI.
        api_key_env: environment variable that holds the API key. The key is written nowhere.
        temperature: 0 takes the likeliest token.
        top_p: sample from the smallest set of tokens that has this probability; 1 for all.
        max_new_tokens: most tokens of one action.
        concurrency: most requests in flight per server.
        timeout_s: how long one request may take, in seconds.
        attempts: how often a request is tried before the action counts as unavailable.
        seed: what tells apart runs that see the same episodes; sent with each request, for servers that honour it.
        system: a system message: a text, a file or a name (see `swirl_env.texts`); None for none.
        shots: worked conversations (few-shot) before each episode: a JSON list of messages, a file or a name (see
            `swirl_env.episodes.shots`).
        tool_role: role under which results of tools are sent. ``tool`` is for servers that take it without a call's id. With
            ``format=native`` calls and results are structured (``tool_calls``, ``tool_call_id``) whatever this says.
        token_ids: ``auto`` keeps ids and log-probabilities if the server returns them, ``require`` refuses replies without
            them, ``off`` does not ask.
        extra_body: further fields of the request, e.g. ``{"chat_template_kwargs": {"enable_thinking": False}}``.
    """

    def __init__(
        self,
        model: str,
        base_url: str | Sequence[str] | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_new_tokens: int = 256,
        concurrency: int = 16,
        timeout_s: float = 120.0,
        attempts: int = 6,
        seed: int = 0,
        system: Text | None = None,
        tool_role: ToolRole = "user",
        token_ids: TokenIds = "auto",
        extra_body: Mapping[str, Any] | None = None,
        shots: Text | None = None,
    ) -> None:
        _check(temperature, top_p, max_new_tokens, concurrency, timeout_s, attempts, token_ids)
        if base_url is None:
            base_url = os.environ.get("OPENAI_BASE_URL") or _DEFAULT_URL
        urls = [base_url] if isinstance(base_url, str) else list(base_url)
        if not urls:
            raise ConfigError("base_url is a URL or a list of at least one; got an empty list.")
        system = None if system is None else read_text(system, "system")
        self.model, self.system, self.seed = model, system, seed
        self.shots = [] if shots is None else for_server(read_shots(shots), tool_role)
        self.temperature, self.top_p, self.max_new_tokens = temperature, top_p, max_new_tokens
        self.tool_role: ToolRole = tool_role
        self.token_ids: TokenIds = token_ids
        self.extra_body = dict(extra_body or {})
        self.name = f"openai:{model}"
        self.concurrency = concurrency * len(urls)
        """How many calls of `act_one` are worth having in flight."""
        self._asks_for_ids = token_ids == "require" or (token_ids == "auto" and _DEFAULT_URL not in urls)
        self._options = (urls, api_key_env, concurrency, timeout_s, attempts)
        self._endpoints: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Endpoints] = weakref.WeakKeyDictionary()
        self._stats: Counter[str] = Counter()
        self._loop: LoopThread | None = None
        Endpoints(*self._options)  # refuses bad URLs now
        content: tuple[object, ...]
        content = (model, temperature, top_p, max_new_tokens, seed, system, tool_role, sorted(self.extra_body.items()))
        content += (self.shots,) if self.shots else ()
        self.fingerprint = f"openai-{hashlib.blake2b(repr(content).encode(), digest_size=6).hexdigest()}"

    @property
    def stats(self) -> Counter[str]:
        """Counts since the start: actions, tokens, requests, retries and failures by kind."""
        total = Counter(self._stats)
        for endpoints in self._endpoints.values():
            total.update(endpoints.stats)
        return total

    def act(self, states: Sequence[State]) -> list[Action]:
        """Returns one action per state, in their order; ``error="unavailable"`` if no server gave one."""

        async def act_all() -> list[Action]:
            return await asyncio.gather(*map(self.act_one, states))

        if self._loop is None or not self._loop.alive:
            self._loop = LoopThread()
        actions: list[Action] = self._loop.run(act_all())
        return actions

    async def act_one(self, state: State) -> Action:
        """Returns the action for one state; any number of calls may run at once.

        Raises:
            ConfigError: no other state would fare better: the key, the model's name or an option is refused.
        """
        endpoints = self._endpoints_of(asyncio.get_running_loop())
        self._stats["actions"] += 1
        try:
            action = await self._ask(endpoints, state, stop=True)
            if action.text and reasoning_end(action.text) == len(action.text):
                # A stop string within the reasoning ended it too early: once more, and the model ends its turn by itself.
                action = await self._ask(endpoints, state, stop=False)
        except TooLong:
            self._stats["too_long"] += 1
            return Action("", error="length")
        except Unavailable:
            return Action("", error="unavailable")
        self._stats["tokens"] += len(action.token_ids)
        return action

    def _endpoints_of(self, loop: asyncio.AbstractEventLoop) -> Endpoints:
        """Returns the connections that belong to an event loop."""
        if loop not in self._endpoints:
            self._endpoints[loop] = Endpoints(*self._options)
            if self._loop is not None and loop is self._loop.loop:
                self._loop.closing.append(self._endpoints[loop])
        return self._endpoints[loop]

    async def _ask(self, endpoints: Endpoints, state: State, stop: bool) -> Action:
        request = self._request(state, stop)

        async def send(client: openai.AsyncOpenAI) -> Reply:
            # Typed requests and replies of the client library take half of its time; what is read here is checked here.
            return read_reply(await client.post(_PATH, cast_to=object, body=request))

        try:
            reply = await endpoints.request(send, self._check_reply)
        except Refused as error:
            asked = _ID_FIELDS[0] in request
            if self.token_ids != "auto" or not asked or not any(field in str(error) for field in _ID_FIELDS):
                raise
            self._asks_for_ids = False  # this server knows none of it: text alone, from now on
            return await self._ask(endpoints, state, stop)
        return self._action(reply, state)

    async def aclose(self) -> None:
        """Closes the connections that `act_one` opened in the running event loop."""
        endpoints = self._endpoints.pop(asyncio.get_running_loop(), None)
        if endpoints is not None:
            self._stats.update(endpoints.stats)
            await endpoints.close()

    def close(self) -> None:
        """Closes the connections that `act` opened."""
        if self._loop is not None:
            if self._loop.alive:
                self._loop.run(self.aclose())
            self._loop.stop()
        self._loop = None

    def _request(self, state: State, stop: bool) -> dict[str, Any]:
        drawn = f"{self.seed}\0{state.seed}\0{len(state.steps)}\0{state.task.id}"
        seed = int.from_bytes(hashlib.blake2b(drawn.encode("utf-8", "replace"), digest_size=4).digest()) >> 1
        request: dict[str, Any] = {
            "model": self.model,
            "messages": messages_of(state, self.system, self.tool_role, self.shots),
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_new_tokens,
            "seed": seed,
        }
        stops = stops_of(state.settings)
        if stop and stops:
            request["stop"] = stops
        if functions := functions_of(state.settings):
            request["tools"] = functions
        if self._asks_for_ids:
            # Ids are of use only with the stop string among them.
            request |= {"logprobs": True, **dict.fromkeys(_ID_FIELDS, True)}
        return request | self.extra_body

    def _check_reply(self, reply: Reply) -> None:
        if self.token_ids == "require" and not sampled(reply)[0]:
            raise ConfigError(
                "The server returned no token ids, which token_ids=require asks for. vLLM returns them; for others use "
                "token_ids=auto."
            )

    def _action(self, reply: Reply, state: State) -> Action:
        choice = reply.choices[0]
        text = text_of(reply.message, state.settings)
        ids, logprobs, prompt_ids = sampled(reply) if self._asks_for_ids else ((), (), ())
        whole = completed(text, choice.finish_reason, state.settings)
        if whole != text and ids:
            ids, logprobs, prompt_ids = (), (), ()  # the closing tag was cut off: the ids are not those of the text
        return Action(whole, ids, logprobs, prompt_ids, truncated=choice.finish_reason == "length")


class LoopThread:
    """An event loop in a thread of its own, so that `act` works with and without a running loop in the caller's thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.closing: list[Endpoints] = []
        """What is closed before the loop ends."""
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self.loop.run_forever, name="swirl-openai", daemon=True)
        self._thread.start()
        self.stop = weakref.finalize(self, _end_loop, self.loop, self._thread, self.closing, self._pid)
        """Closes the connections and ends the thread; runs by itself when the agent goes."""

    @property
    def alive(self) -> bool:
        """Whether the thread runs; it does not survive a fork."""
        return self._thread.is_alive() and self._pid == os.getpid()

    def run(self, task: Any) -> Any:
        """Runs a coroutine to its end; an interrupt (Ctrl-C) cancels it."""
        future = asyncio.run_coroutine_threadsafe(task, self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


def _end_loop(loop: asyncio.AbstractEventLoop, thread: threading.Thread, closing: list[Endpoints], pid: int) -> None:
    if pid != os.getpid() or not thread.is_alive():
        return

    async def end() -> None:
        await asyncio.gather(*[endpoints.close() for endpoints in closing], return_exceptions=True)
        loop.call_soon(loop.stop)

    asyncio.run_coroutine_threadsafe(end(), loop)
    if thread is not threading.current_thread():
        thread.join(timeout=5)
        if not thread.is_alive():
            loop.close()


def _check(
    temperature: float, top_p: float, max_new_tokens: int, concurrency: int, timeout_s: float, attempts: int, token_ids: str
) -> None:
    if not (temperature >= 0 and math.isfinite(temperature)):
        raise ConfigError(f"temperature is 0 or above; got {temperature}.")
    if not 0 < top_p <= 1:
        raise ConfigError(f"top_p is above 0 and at most 1; got {top_p}.")
    for name, value in (("max_new_tokens", max_new_tokens), ("concurrency", concurrency), ("attempts", attempts)):
        if value < 1:
            raise ConfigError(f"{name} is 1 or above; got {value}.")
    if not (timeout_s > 0 and math.isfinite(timeout_s)):
        raise ConfigError(f"timeout_s is a number of seconds above 0; got {timeout_s}.")
    if token_ids not in ("auto", "require", "off"):
        raise ConfigError(f"token_ids is one of auto, require, off; got {token_ids!r}.")
