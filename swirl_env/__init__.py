"""swirl-env: step-wise reinforcement learning of tool-using language models.

Importing it registers the environments (``gymnasium.make("swirl_env/Atlas-v0")``) and pulls in nothing heavy: torch,
transformers, hydra and sympy come with the plugins and commands that use them.
"""

import gymnasium

from swirl_env.function_tool import tool
from swirl_env.registry import make_agent, make_judge, make_tasks, make_tool

__version__ = "0.1.0"
__all__ = ["ENV_IDS", "__version__", "make_agent", "make_judge", "make_tasks", "make_tool", "tool"]

ENV_IDS = {
    "swirl_env/Atlas-v0": "atlas",
    "swirl_env/Ledger-v0": "ledger",
    "swirl_env/AtlasLedger-v0": "atlas_ledger",
    "swirl_env/HotpotQA-v0": "hotpotqa",
    "swirl_env/MuSiQue-v0": "musique",
    "swirl_env/2WikiMultiHopQA-v0": "2wikimultihopqa",
    "swirl_env/BeerQA-v0": "beerqa",
    "swirl_env/CofCA-v0": "cofca",
    "swirl_env/GSM8K-v0": "gsm8k",
    "swirl_env/SVAMP-v0": "svamp",
}
"""Environment id -> the task source behind it; ``swirl_env/ToolUse-v0`` takes any, as ``tasks=``."""

for _id, _tasks in {**ENV_IDS, "swirl_env/ToolUse-v0": None}.items():
    gymnasium.register(
        id=_id,
        entry_point="swirl_env.env:ToolUseEnv",
        vector_entry_point="swirl_env.vector:ToolVectorEnv",
        kwargs={} if _tasks is None else {"tasks": _tasks},
    )
