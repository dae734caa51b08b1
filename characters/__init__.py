"""The cast and its prompts: who there is, what a model calls her, what to write. No torch, no ComfyUI."""

from .catalogue import EMBEDDED, Cast, Character, ModelVersion, parse, read
from .errors import CastError, PromptError, UnknownCharacter
from .overlay import DEFAULT_CAST, Casts, Found, cast_stamps, load_casts
from .pick import pick
from .prompt import NEGATIVE, QUALITY, TAG_SETS, Prompt, build
from .trigger import trigger_of

__all__ = [
    "DEFAULT_CAST", "EMBEDDED", "NEGATIVE", "QUALITY", "TAG_SETS",
    "Cast", "CastError", "Casts", "Character", "Found", "ModelVersion", "Prompt", "PromptError", "UnknownCharacter",
    "build", "cast_stamps", "load_casts", "parse", "pick", "read", "trigger_of",
]  # fmt: skip
