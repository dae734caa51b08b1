"""LoHa files: bytes in, a validated `Loha` out, and back.

`opening` and `looks` touch the file, `container` knows the safetensors layout, `grouping` and
`validate` turn tensors into modules, `peft` finds the scale of a PEFT file; `write`, `names`,
`atomic` and `hashes` are the way back.
"""

from .names import resolve_name
from .opening import fingerprint
from .read import read
from .write import save

__all__ = ["fingerprint", "read", "resolve_name", "save"]
