"""The calculator: arithmetic and algebra as models write them, computed without evaluating any code."""

from swirl_env.tools.calculator.tool import Calculator

__all__ = ["Calculator"]
