"""Local causal language models as agents."""

from swirl_env.agents.transformers.agent import TransformersAgent

__all__ = ["TransformersAgent"]
