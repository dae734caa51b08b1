"""The exception family of casts and prompts."""

from __future__ import annotations


class CastError(Exception):
    """A cast file cannot be used; the text says which file, line and key, and what to do."""


class UnknownCharacter(CastError):
    """Nobody of that name is in the cast."""


class PromptError(CastError):
    """No prompt can be built from these settings."""
