"""The contract suite that ``swirl check`` runs on plugins; one module of rules per kind of plugin."""

from swirl_env.contract.suite import CONTRACTS, Finding, assert_contract, check, detect

__all__ = ["CONTRACTS", "Finding", "assert_contract", "check", "detect"]
