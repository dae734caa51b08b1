"""LoHa files and their algebra: read, bind to a model's shapes, multiply, train, write.

Knows torch and safetensors, never ComfyUI and never the cast of characters.
"""

from .errors import BindError, FileError, LohaError, SettingsError
from .module import Loha, LohaModule, Source

__all__ = ["BindError", "FileError", "Loha", "LohaError", "LohaModule", "SettingsError", "Source"]
