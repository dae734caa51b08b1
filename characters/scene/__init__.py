"""Several people in one picture: who stands where, what is written for each region, which pixels are hers.

`lines` reads what a person typed, `boxes` the words and per cents for places, `masks` makes pixels of boxes, `texts`
writes the prompts, `layout` draws the plan. No torch, no ComfyUI.
"""

from .boxes import Box
from .layout import draw, hex_colour
from .lines import MAX_PEOPLE, read_fields
from .masks import region_masks
from .texts import Region, Scene, plan

__all__ = ["MAX_PEOPLE", "Box", "Region", "Scene", "draw", "hex_colour", "plan", "read_fields",
           "region_masks"]
