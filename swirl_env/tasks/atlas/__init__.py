"""Atlas: questions of one to six hops over a fictional world."""

from swirl_env.tasks.atlas.tasks import Atlas

__all__ = ["Atlas"]
