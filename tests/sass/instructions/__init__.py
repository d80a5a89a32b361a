"""What each instruction does."""

from . import conversions, floating, integer, memory_access, moves, predicates  # noqa: F401 (fill the table)
from .registry import BUILDERS

__all__ = ["BUILDERS"]
