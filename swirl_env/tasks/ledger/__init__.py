"""Ledger: arithmetic word problems with gold plans."""

from swirl_env.tasks.ledger.tasks import Ledger

__all__ = ["Ledger"]
