"""Speaks the part of vLLM's protocol that training on servers uses, one request at a time, with transformers on a CPU.

``/v1/completions`` of token ids with ``return_token_ids``, ``/v1/load_lora_adapter`` with ``load_inplace``, ``/pause``,
``/collective_rpc`` with ``reload_weights``, ``/reset_prefix_cache``, ``/resume``, and SGLang's ``/update_weights_from_disk``. Its
sampling shares no code with the agents here.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from swirl_env.kv_cache import cache_of, cache_option
from swirl_env.loading import ONE_AT_A_TIME

Content = dict[str, Any]


class Refusal(Exception):
    """A request that gets HTTP 400."""


class TokenServer:
    """Serves a model in threads of its own. A context manager.

    Args:
        model: folder of the model and its tokenizer; also its name.
        port: where to listen; 0 takes a free one.
    """

    def __init__(self, model: str, port: int = 0) -> None:
        self.name = model
        load_tokenizer: Callable[[str], Any] = AutoTokenizer.from_pretrained
        self.tokenizer: Any = load_tokenizer(model)
        self.model: Any = self._from_pretrained(model).eval()
        self.adapters: dict[str, Any] = {}
        self.calls: Counter[str] = Counter()
        """Requests by path."""
        self.paused = False
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Base URL, as clients of OpenAI's protocol take it."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def answer(self, path: str, content: Content) -> Content:
        """Returns the reply to a request.

        Raises:
            Refusal: if it is refused.
        """
        with self._lock:
            self.calls[path] += 1
            routes: dict[str, Callable[[Content], Content]] = {
                "/v1/completions": self._complete,
                "/v1/load_lora_adapter": self._load_adapter,
                "/update_weights_from_disk": lambda content: self._load(content["model_path"]),
                "/collective_rpc": self._call_workers,
                "/reset_prefix_cache": lambda content: {},
                "/pause": lambda content: self._pause(True),
                "/resume": lambda content: self._pause(False),
            }
            if path not in routes:
                raise Refusal(f"no route {path}")
            return routes[path](content)

    def _pause(self, paused: bool) -> Content:
        self.paused = paused
        return {}

    def _call_workers(self, content: Content) -> Content:
        if content["method"] != "reload_weights" or not self.paused:
            raise Refusal("only reload_weights, while paused")
        return self._load(content["kwargs"]["weights_path"])

    def _from_pretrained(self, folder: str) -> Any:
        load: Callable[[str], Any] = AutoModelForCausalLM.from_pretrained
        with ONE_AT_A_TIME:
            return load(folder)

    def _load(self, folder: str) -> Content:
        self.model = self._from_pretrained(folder).eval()
        return {"success": True}

    def _load_adapter(self, content: Content) -> Content:
        from peft import PeftModel

        name = content["lora_name"]
        if name in self.adapters and not content.get("load_inplace"):
            raise Refusal(f"The lora adapter '{name}' has already been loaded.")
        base = self._from_pretrained(self.name)
        self.adapters[name] = PeftModel.from_pretrained(base, content["lora_path"]).eval()
        return {}

    @torch.no_grad()
    def _complete(self, content: Content) -> Content:
        if self.paused or not (content["model"] == self.name or content["model"] in self.adapters):
            raise Refusal(f"paused, or no model {content['model']!r}")
        model = self.adapters.get(content["model"], self.model)
        draws = torch.Generator().manual_seed(content["seed"])
        prompt: list[int] = content["prompt"]
        ids: list[int] = []
        logprobs: list[float] = []
        finish, cache, new = "length", None, prompt
        while len(ids) < content["max_tokens"]:
            output = model(input_ids=torch.tensor([new]), use_cache=True, **{cache_option(model): cache})
            cache, scores = cache_of(output), output.logits[0, -1].float().log_softmax(-1)
            if content["temperature"] == 0:
                token = int(scores.argmax())
            else:
                weights = (scores / content["temperature"]).softmax(-1)
                token = int(torch.multinomial(weights, 1, generator=draws))
            ids.append(token)
            logprobs.append(float(scores[token]))
            new = [token]
            if token in content["stop_token_ids"] or any(stop in self.tokenizer.decode(ids) for stop in content["stop"]):
                finish = "stop"
                break
        choice: Content = {"index": 0, "text": self.tokenizer.decode(ids), "finish_reason": finish}
        choice["logprobs"] = {"token_logprobs": logprobs}
        if content.get("return_token_ids"):
            choice |= {"token_ids": ids, "prompt_token_ids": prompt}
        return {"object": "text_completion", "model": content["model"], "choices": [choice]}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
                try:
                    status, reply = 200, server.answer(self.path, content)
                except Refusal as refusal:
                    status, reply = 400, {"error": {"message": str(refusal)}}
                body = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                return

        return Handler
