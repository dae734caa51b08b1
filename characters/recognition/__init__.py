"""How well a LoHa knows a cast: `table` counts which identity tags came back, `identity` whose reference pictures are
nearest by an identity model, `heat_map` draws both."""

from .heat_map import draw
from .identity import ONE_PERSON, Embedded, Identity, one_person
from .table import Recognition, Seen

__all__ = ["ONE_PERSON", "Embedded", "Identity", "Recognition", "Seen", "draw", "one_person"]
