"""torch-dojo: declare, check and grade PyTorch exercises."""

from grader import data
from grader.api import check, hint, provided, reproduce
from grader.draw import Draw
from grader.exercise import Case, Cost, Exercise

__all__ = ["Case", "Cost", "Draw", "Exercise", "check", "data", "hint", "provided", "reproduce"]
__version__ = "0.1.0"
