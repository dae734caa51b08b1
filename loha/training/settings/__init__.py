"""What a person chooses: hyper-parameters, pictures, and the fields that carry their own range and help."""

from .fields import Described, coerced, describe, option
from .hyper_parameters import TrainingSettings
from .pictures import CaptionOptions, DataOptions, FolderOptions

__all__ = [
    "CaptionOptions", "DataOptions", "Described", "FolderOptions", "TrainingSettings", "coerced", "describe", "option",
]
