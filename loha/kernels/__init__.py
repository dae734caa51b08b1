"""The flat Hadamard product fast: merging it into weights, and the gradient of that.

`choose` decides which path runs: `triton_merge` and `triton_gradient` on CUDA, `grouped_torch` there
without Triton, `cpu` on a CPU, and the reference of `loha.product` everywhere else. `merge` merges
one weight (`merge_` in place), `Group` a whole file over `PackedFactors`; a `Workspace` is memory that
merges on a CPU share. Importing this starts nothing and needs no Triton.
"""

from ..factors import Factors
from .gradient.gradients import gradients
from .merging.single import merge, merge_
from .merging.whole_file import Group
from .merging.workspace import Workspace
from .packing import PackedFactors
from .route import ROUTE_VARIABLE, ROUTES, Route, choose

__all__ = [
    "ROUTES", "ROUTE_VARIABLE", "Factors", "Group", "PackedFactors", "Route", "Workspace", "choose", "gradients",
    "merge", "merge_",
]
