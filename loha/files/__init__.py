"""LoHa files: bytes in, a validated `Loha` out, and back.

`read` opens (`opening`, `not_safetensors`), checks the layout (`container`) and assembles modules
(`assemble`: `tensor_names`, `validate`, `finite`, and `peft` for PEFT's scale); `write` is the way
back (`file_names`, `atomic`, `hashes`).
"""

from .file_names import resolve_name
from .opening import file_stamp
from .peft import CONFIG as PEFT_CONFIG
from .read import read
from .tensor_names import tensor_name
from .write import save

__all__ = ["PEFT_CONFIG", "file_stamp", "read", "resolve_name", "save", "tensor_name"]
