"""Plays actions through OpenEnv's own clients, all sessions at once, and runs the code of a page. Reads and prints JSON."""

import asyncio
import contextlib
import io
import json
import sys

from my_env import MyEnvClient
from openenv.core import GenericEnvClient


async def play(url, episode, generic):
    client = GenericEnvClient(base_url=url) if generic else MyEnvClient(base_url=url)
    async with client as env:
        result = await env.reset(task_id=episode["task_id"])
        seen = {"prompt": text_of(result), "rewards": [], "done": [], "texts": []}
        for action in episode["actions"]:
            result = await env.step({"text": action} if generic else action)
            seen["rewards"].append(result.reward)
            seen["done"].append(result.done)
            seen["texts"].append(text_of(result))
        state = await env.state()
        last = result.observation if generic else result.observation.model_dump()
        seen["state"] = state["rewards"] if generic else state.rewards
        seen["ended"], seen["correct"], seen["verdict"] = last["ended"], last["correct"], last["metadata"]["verdict"]
        try:
            await env.step({"text": "more"} if generic else "more")
        except RuntimeError as error:
            seen["after"] = str(error)
        return seen


def text_of(result):
    return result.observation["text"] if isinstance(result.observation, dict) else result.observation.text


async def main(given):
    episodes = [play(given["url"], episode, i % 4 == 3) for i, episode in enumerate(given["episodes"])]
    return await asyncio.gather(*episodes)


given = json.load(sys.stdin)
played = asyncio.run(main(given))
with contextlib.redirect_stdout(io.StringIO()) as printed:
    exec(given["page"], {})  # the documentation's own code
print(json.dumps({"played": played, "printed": printed.getvalue()}))
