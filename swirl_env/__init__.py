"""swirl-env: step-wise reinforcement learning of tool-using language models."""

from swirl_env.registry import make_agent, make_judge, make_tasks, make_tool

__version__ = "0.1.0"
__all__ = ["__version__", "make_agent", "make_judge", "make_tasks", "make_tool"]
