"""The exception family of casts and prompts."""

from __future__ import annotations


class CastError(Exception):
    """A cast file cannot be used; the text says which file, line and key, and what to do."""

    # ComfyUI shows a class with its module, which would be this pack's whole path: front ends cut off what follows.
    __module__ = "ShinyMas"

    def __init_subclass__(cls) -> None:
        cls.__module__ = CastError.__module__


class UnknownCharacter(CastError):
    """Nobody of that name is in the cast."""


class PromptError(CastError):
    """No prompt can be built from these settings."""
