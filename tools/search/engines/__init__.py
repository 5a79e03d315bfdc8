"""Other people's search engines as tools: a retriever behind HTTP, Lucene, tantivy, Qdrant.

Each has the tag of the search tool and its results, so that judges, scripted experts and prompts are the same.
"""

from swirl_env.tools.search.engines.engine import Engine, EngineError

__all__ = ["Engine", "EngineError"]
