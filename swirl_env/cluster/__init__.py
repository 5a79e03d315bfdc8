"""Work on several processes and machines: a pool of Ray actors that share a stream of items, each item done once."""

from swirl_env.cluster.actor import Work
from swirl_env.cluster.pool import Pool
from swirl_env.cluster.settings import ClusterOptions

__all__ = ["ClusterOptions", "Pool", "Work"]
