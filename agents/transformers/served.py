"""The policy in training as servers generate with it: token ids in, token ids and their log-probabilities out.

The servers hold copies of the weights that are trained here; `refresh` sends them the present ones. Ids are exchanged, never
text, so what a server samples is what training scores.
"""

from __future__ import annotations

import asyncio
import math
import shutil
import weakref
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import openai

from swirl_env.agents.openai.agent import LoopThread
from swirl_env.agents.openai.endpoints import Endpoints, TooLong, Unavailable
from swirl_env.agents.transformers.agent import TransformersAgent
from swirl_env.agents.transformers.load import quiet
from swirl_env.agents.transformers.sampling import Generation, Request
from swirl_env.errors import ConfigError
from swirl_env.types import Action, State

Refresh = Literal["lora", "vllm", "sglang"]
"""How servers get new weights, through a folder that they can read: see `ServedPolicy`."""


class ServedPolicy:
    """Acts like a local agent, with the generation done by servers that speak vLLM's completions protocol.

    Servers are asked for ``/v1/completions`` of token ids with ``return_token_ids``; the one with the fewest requests in flight
    gets the next. A reply without ids and log-probabilities, or for another prompt, is an error. What a server writes past the
    end of an action is cut off here, so actions end exactly as local ones do.

    Args:
        policy: the local agent: its model is the one in training, its tokenizer and template write the prompts.
        urls: base URLs of the servers, ``http://localhost:8000/v1``.
        model: name of the policy at the servers; with ``lora`` the name that its adapter gets there.
        refresh: ``lora`` writes the adapter and has it loaded by name (vLLM's ``/v1/load_lora_adapter`` with ``load_inplace``);
            ``vllm`` writes all weights and has workers read them (``/collective_rpc`` with ``reload_weights``, in development
            mode); ``sglang`` does so by ``/update_weights_from_disk``.
        folder: where the weights are written; servers read them there.
        api_key_env: environment variable that holds the API key.
        concurrency: most requests in flight per server.
        timeout_s: how long one request may take, in seconds.
        attempts: how often a request is tried.
    """

    def __init__(
        self,
        policy: TransformersAgent,
        urls: Sequence[str],
        model: str,
        refresh: Refresh,
        folder: Path,
        api_key_env: str = "OPENAI_API_KEY",
        concurrency: int = 64,
        timeout_s: float = 600.0,
        attempts: int = 6,
    ) -> None:
        if refresh == "lora" and not hasattr(policy.model, "peft_config"):
            raise ConfigError(
                "server.refresh=lora sends an adapter, and this policy has none: give lora.rank=, or another refresh."
            )
        self.policy, self.served_model, self.how, self.folder = policy, model, refresh, folder.absolute()
        self.concurrency = concurrency * len(urls)
        """How many calls of `act_one` are worth having in flight."""
        self.temperature = policy.temperature
        self.stats: Counter[str] = Counter()
        self._options = (tuple(urls), api_key_env, concurrency, timeout_s, attempts)
        self._endpoints: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Endpoints] = weakref.WeakKeyDictionary()
        self._loop = LoopThread()
        Endpoints(*self._options)  # refuses bad URLs now

    @property
    def name(self) -> str:
        """The policy's."""
        return self.policy.name

    @property
    def model(self) -> Any:
        """The model in training; servers have copies."""
        return self.policy.model

    @property
    def max_context(self) -> int:
        """The policy's."""
        return self.policy.max_context

    def act(self, states: Sequence[State]) -> list[Action]:
        """Returns one action per state, in their order; ``error="unavailable"`` if no server gave one."""

        async def act_all() -> list[Action]:
            try:
                return await asyncio.gather(*map(self.act_one, states))
            finally:
                await self.aclose()

        actions: list[Action] = self._loop.run(act_all())
        return actions

    async def act_one(self, state: State) -> Action:
        """Returns the action for one state; any number of calls may run at once.

        Raises:
            ConfigError: if the servers refuse the request, or return no ids.
        """
        prompt, request = self.policy.request(state)
        if request.limit < 1:
            return Action("", error="length")
        try:
            generation = await self._generate(request)
        except TooLong:
            return Action("", error="length")
        except Unavailable:
            return Action("", error="unavailable")
        action = self.policy.action(state, prompt, generation)
        self.stats["actions"] += 1
        self.stats["tokens"] += len(action.token_ids)
        return action

    async def _generate(self, request: Request) -> Generation:
        """Returns a whole action.

        A server that has met a closing tag within reasoning stopped too early: it is asked to go on from there.
        """
        ids: list[int] = []
        logprobs: list[float] = []
        stop = request.stop
        while True:
            rest = request._replace(ids=[*request.ids, *ids], limit=request.limit - len(ids), stop=stop)
            choice = (await self._complete(rest)).choices[0]
            ids += choice.token_ids or []
            logprobs += [float(value or 0.0) for value in (choice.logprobs.token_logprobs if choice.logprobs else [])]
            end = next((n for n in range(1, len(ids) + 1) if request.ended(ids[:n])), None)
            if end is None and stop and choice.finish_reason == "stop" and len(ids) < request.limit:
                stop = ()
                continue
            whole = end is not None or choice.finish_reason != "length"
            return Generation(ids[:end], logprobs[:end], [], truncated=not whole)

    async def _complete(self, request: Request) -> Completion:
        body = {
            "model": self.served_model,
            "prompt": list(request.ids),
            "max_tokens": request.limit,
            "temperature": self.temperature,
            "seed": request.seed % 2**31,
            "logprobs": 0,
            "return_token_ids": True,
            "stop": list(request.stop),
            "include_stop_str_in_output": True,
            "stop_token_ids": sorted(self.policy.end_ids),
            # A server takes these from the model's own generation_config.json otherwise, and samples from another policy.
            "top_p": 1.0,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
        }

        async def send(client: openai.AsyncOpenAI) -> Completion:
            return read_completion(await client.post("/completions", cast_to=object, body=body))

        completion: Completion = await self._of_loop().request(send, lambda reply: check_completion(reply, request.ids))
        return completion

    def refresh(self, version: int) -> None:
        """Sends the present weights to all servers.

        Args:
            version: names their folder; that of the version before goes.

        Raises:
            ConfigError: if a server does not take them.
        """
        target = self.folder / f"weights-{version}"
        shutil.rmtree(self.folder, ignore_errors=True)
        target.mkdir(parents=True)
        with quiet():
            self.model.save_pretrained(target)
            self.policy.renderer.tokenizer.save_pretrained(target)
        self._loop.run(self._send_weights(str(target)))
        self.stats["refreshes"] += 1

    async def _send_weights(self, folder: str) -> None:
        endpoints = self._of_loop()
        try:
            await asyncio.gather(*[endpoints.tell(number, self._calls(url, folder)) for number, url in enumerate(endpoints.urls)])
        finally:
            await self.aclose()

    def _calls(self, url: str, folder: str) -> list[tuple[str, dict[str, Any]]]:
        """Returns the requests, path and content, by which a server gets the weights of a folder."""
        root = url.rstrip("/").removesuffix("/v1")
        if self.how == "lora":
            adapter = {"lora_name": self.served_model, "lora_path": folder, "load_inplace": True}
            return [(f"{root}/v1/load_lora_adapter", adapter)]
        if self.how == "sglang":
            return [(f"{root}/update_weights_from_disk", {"model_path": folder})]
        reload = {"method": "reload_weights", "kwargs": {"weights_path": folder}}
        return [
            (f"{root}/pause", {}),
            (f"{root}/collective_rpc", reload),
            (f"{root}/reset_prefix_cache", {}),
            (f"{root}/resume", {}),
        ]

    def _of_loop(self) -> Endpoints:
        loop = asyncio.get_running_loop()
        if loop not in self._endpoints:
            self._endpoints[loop] = Endpoints(*self._options)
        return self._endpoints[loop]

    async def aclose(self) -> None:
        """Closes the connections that the running event loop has opened."""
        endpoints = self._endpoints.pop(asyncio.get_running_loop(), None)
        if endpoints is not None:
            self.stats.update({f"server {key}": value for key, value in endpoints.stats.items()})
            await endpoints.close()


class TokenLogprobs(msgspec.Struct):
    """Log-probabilities of a completion's tokens."""

    token_logprobs: list[float | None] = []


class Choice(msgspec.Struct):
    """One completion, as vLLM returns it."""

    finish_reason: str | None = None
    logprobs: TokenLogprobs | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None


class Completion(msgspec.Struct):
    """What is read of a reply."""

    choices: list[Choice]


def read_completion(content: object) -> Completion:
    """Returns a reply that holds a completion.

    Raises:
        ValueError: if it holds none, so that the server is asked again.
    """
    try:
        completion = msgspec.convert(content, Completion)
    except msgspec.ValidationError as error:
        raise ValueError("the reply is no completion") from error
    if not completion.choices:
        raise ValueError("the reply holds no completion")
    return completion


def check_completion(completion: Completion, prompt: Sequence[int]) -> None:
    """Refuses a reply that training could not use.

    Raises:
        ConfigError: if ids or log-probabilities are missing, or the server has read another prompt.
    """
    choice = completion.choices[0]
    logprobs = choice.logprobs.token_logprobs if choice.logprobs else []
    if not choice.token_ids or len(logprobs) != len(choice.token_ids):
        raise ConfigError(
            "The server returned no token ids with log-probabilities, which rollouts=server trains on. Use one that "
            "answers return_token_ids, as later releases of vLLM do."
        )
    if not all(value is not None and math.isfinite(value) for value in logprobs):
        raise ConfigError("The server returned log-probabilities that are no numbers.")
    if choice.prompt_token_ids is not None and choice.prompt_token_ids != list(prompt):
        raise ConfigError("The server has read another prompt than it was given: its tokenizer adds or drops ids.")
