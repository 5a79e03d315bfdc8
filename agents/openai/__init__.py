"""Language models behind any OpenAI-compatible server (vLLM, SGLang, llama.cpp, TGI) as agents."""

from swirl_env.agents.openai.agent import OpenAIAgent

__all__ = ["OpenAIAgent"]
