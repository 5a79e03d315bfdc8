"""Search over a corpus with BM25."""

from swirl_env.tools.search.tool import Search

__all__ = ["Search"]
