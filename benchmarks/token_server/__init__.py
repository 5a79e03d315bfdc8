"""A small server of one model for trying out ``rollouts=server``: ``python -m swirl_env.benchmarks.token_server MODEL``."""

from swirl_env.benchmarks.token_server.server import TokenServer

__all__ = ["TokenServer"]
