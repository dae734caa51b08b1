"""A sheet: many small pictures with their labels in one. `cells` is what stands where, `drawing` the picture."""

from .cells import Cell, Label, Plan, parse_label, plan
from .drawing import draw, undrawable
from .kept import Kept, read_label

__all__ = ["Cell", "Kept", "Label", "Plan", "draw", "parse_label", "plan", "read_label",
           "undrawable"]
