"""The options of ``cluster=``."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec


class ClusterOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who does the work: this process (``none``), or workers on a Ray cluster; the keys of conf/cluster/ray.yaml."""

    name: Literal["none", "ray"] = "none"
    workers: Annotated[int, msgspec.Meta(ge=1)] = 2
    address: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    """A running cluster; None takes RAY_ADDRESS, else Ray is started on this machine."""
    cpus: Annotated[float, msgspec.Meta(ge=0)] = 1
    gpus: Annotated[float, msgspec.Meta(ge=0)] = 0
    """Cores and GPUs per worker."""

    def __bool__(self) -> bool:
        return self.name != "none"
