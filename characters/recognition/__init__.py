"""How well a LoHa knows a cast: `table` counts which identity tags came back, `heat_map` draws it."""

from .heat_map import draw
from .table import Recognition, Seen

__all__ = ["Recognition", "Seen", "draw"]
