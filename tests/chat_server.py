"""A real HTTP server on loopback that speaks the OpenAI chat protocol, and breaks it on request."""

import asyncio
import itertools
import json
import random
import threading
from collections import Counter


def answer_of(request):
    """Returns what the served model writes: the sum that the question asks for."""
    question = next(m["content"] for m in request["messages"] if m["role"] == "user")
    numbers = [int(word) for word in question.replace("?", " ").split() if word.isdigit()]
    return f"<answer>{sum(numbers)}</answer>"


class ChatServer:
    """Serves chat completions in a thread of its own.

    Args:
        reply: request -> text of the message, or the whole message.
        fault: number of the request -> name of a fault, or None for a good reply.
        delay_s: number of the request -> seconds before the reply.
        ids: whether token ids, prompt ids and log-probabilities are returned when asked for (one id per character); or a
            function of messages and text that returns the ids of both.
        refuse: fields that the server answers with HTTP 400, as OpenAI does for fields that it does not know.
    """

    def __init__(self, reply=answer_of, fault=lambda n: None, delay_s=lambda n: 0.0, ids=False, refuse=(), port=0):
        self.reply, self.fault, self.delay_s, self.ids, self.refuse, self.port = reply, fault, delay_s, ids, refuse, port
        self.requests, self.faults, self.keys = [], Counter(), set()
        self.in_flight = self.most_in_flight = 0
        self._numbers = itertools.count()

    def __enter__(self):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    async def _start(self):
        self._open = set()
        return await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _stop(self):
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                headers = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:] if ": " in line)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.keys.add(headers.get("authorization", ""))
                self.in_flight += 1
                self.most_in_flight = max(self.most_in_flight, self.in_flight)
                try:
                    if not await self._respond(writer, json.loads(body)):
                        return
                finally:
                    self.in_flight -= 1
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _respond(self, writer, request):
        """Answers one request; returns whether the connection stays open."""
        number = next(self._numbers)
        self.requests.append(request)
        await asyncio.sleep(self.delay_s(number))
        fault = self.fault(number)
        self.faults[fault] += 1
        refused = [field for field in self.refuse if field in request]
        if refused:
            return await self._send(writer, 400, {"error": {"message": f"Unrecognized request argument: {refused[0]}"}})
        if fault == "reset":
            writer.transport.abort()
            return False
        if fault == "hang":
            await asyncio.sleep(3600)
        if isinstance(fault, int):
            return await self._send(writer, fault, {"error": {"message": f"status {fault}"}}, {"Retry-After": "0.02"})
        good = self._completion(request)
        if fault == "empty choices":
            good["choices"] = []
        if fault == "no message":
            good["choices"][0]["message"] = None
        if fault == "other json":
            good = ["not", "a", "completion"]
        if fault == "no json":
            return await self._raw(writer, 200, b"<html>bad gateway</html>")
        if fault == "truncated":
            data = json.dumps(good).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data))
            writer.write(data[: len(data) // 2])
            await writer.drain()
            return False
        return await self._send(writer, 200, good)

    def _completion(self, request):
        reply = self.reply(request)
        if isinstance(reply, dict):
            choices = [{"index": 0, "finish_reason": "tool_calls", "message": reply}]
            return {"id": "c", "object": "chat.completion", "created": 0, "model": request["model"], "choices": choices}
        text = reply
        cut = next((stop for stop in request.get("stop") or () if stop in text), None)
        if cut:
            text = text[: text.index(cut)] + (cut if request.get("include_stop_str_in_output") else "")
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        completion = {"id": "c", "object": "chat.completion", "created": 0, "model": request["model"], "choices": [choice]}
        if self.ids and request.get("return_token_ids"):
            of_characters = [1, 2, 3], [ord(char) for char in text]
            prompt, ids = self.ids(request["messages"], text) if callable(self.ids) else of_characters
            choice["token_ids"], completion["prompt_token_ids"] = ids, prompt
            choice["logprobs"] = {"content": [{"token": "", "logprob": -0.5, "bytes": None, "top_logprobs": []} for _ in ids]}
        return completion

    async def _send(self, writer, status, content, headers=()):
        return await self._raw(writer, status, json.dumps(content).encode(), headers)

    async def _raw(self, writer, status, data, headers=()):
        lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {len(data)}"]
        lines += [f"{name}: {value}" for name, value in dict(headers).items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + data)
        await writer.drain()
        return True


FAULTS = (429, 500, 503, "reset", "hang", "truncated", "empty choices", "no message", "other json", "no json")
"""All the ways in which a server fails."""


def one_in(n, seed=0):
    """Returns a fault function that breaks about one request in n, in every way."""
    draws = random.Random(seed)
    return lambda number: draws.choice(FAULTS) if draws.random() < 1 / n else None
