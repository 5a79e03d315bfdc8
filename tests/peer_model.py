"""A model behind an OpenAI-compatible server on loopback that plays the scripted policy with structured calls."""

import json

import swirl_env
from chat_server import ChatServer
from swirl_env.rollout import collect
from swirl_env.types import ToolCall


def scripted_episodes(engine, episodes=8, **options):
    """Returns {prompt: our own loop's trajectory} of the scripted policy."""
    agent = swirl_env.make_agent("scripted", noise=0.3, seed=3, **options)
    return {trajectory.prompt: trajectory for trajectory in collect(agent, engine, episodes)}


class ScriptedModel(ChatServer):
    """Answers a request with the action that the policy took at this place of the episode.

    Args:
        engine: the environment, with ``format="native"``.
        episodes: prompt -> trajectory (see `scripted_episodes`).
    """

    def __init__(self, engine, episodes):
        super().__init__(self._action)
        self.engine, self.episodes = engine, episodes

    def _action(self, request):
        content = next(message["content"] for message in request["messages"] if message["role"] == "user")
        prompt = content if isinstance(content, str) else "".join(part["text"] for part in content)
        turn = sum(message["role"] == "assistant" for message in request["messages"])
        text = self.episodes[prompt].steps[turn].action.text
        call = self.engine.format.parse(text)
        if not isinstance(call, ToolCall):
            return text
        function = {"name": call.tool, "arguments": json.dumps(self.engine.format.arguments(call.tool, call.query))}
        calls = [{"id": f"call{turn}", "type": "function", "function": function}]
        return {"role": "assistant", "content": text[: call.start].rstrip(), "tool_calls": calls}

    async def _respond(self, writer, request):
        if not request.get("stream"):
            return await super()._respond(writer, request)
        self.requests.append(request)
        completion = self._completion(request)
        (choice,) = completion.pop("choices")
        message = choice["message"]
        calls = [{**call, "index": i} for i, call in enumerate(message.get("tool_calls", ()))]
        delta = {**message, "tool_calls": calls} if calls else message
        head = {**completion, "object": "chat.completion.chunk"}
        chunks = [
            {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
            {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]},
        ]
        body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        lines = ["HTTP/1.1 200 OK", "Content-Type: text/event-stream", f"Content-Length: {len(body.encode())}"]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body.encode())
        await writer.drain()
        return True
