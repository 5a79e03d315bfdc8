"""Use swirl-env's tasks, tools, judges and credit rules inside TRL.

    environments = make_environments("atlas_ledger", tools=["search", "calculator"], judge="rules", max_steps=6)
    trainer = StepGRPOTrainer(
        model="Qwen/Qwen3-0.6B",
        args=GRPOConfig(...),
        train_dataset=Dataset.from_list(rows(environments, 512)),
        environment_factory=environments,
        credit="mt_grpo_unbiased",
    )

`make_environments` works with TRL's own `GRPOTrainer` too, which then learns from one reward per rollout.
"""

from typing import TYPE_CHECKING, Any

from swirl_env.interop.trl.credit import RULES, CreditRule, StepColumns
from swirl_env.interop.trl.environment import ToolEnvironment, make_environments, rows

if TYPE_CHECKING:
    from swirl_env.interop.trl.trainer import StepGRPOTrainer

__all__ = ["RULES", "CreditRule", "StepColumns", "StepGRPOTrainer", "ToolEnvironment", "make_environments", "rows"]


def __getattr__(name: str) -> Any:
    """Imports the trainer, and TRL with it, when it is asked for."""
    if name == "StepGRPOTrainer":
        from swirl_env.interop.trl.trainer import StepGRPOTrainer

        return StepGRPOTrainer
    raise AttributeError(name)
