"""The one exception family of the library."""

from __future__ import annotations


class LohaError(Exception):
    """What a person did or supplied cannot be used; the text says what, where and what to do."""

    # ComfyUI shows a class with its module, which would be this pack's whole path: front ends cut off what follows.
    __module__ = "ShinyMas"

    def __init_subclass__(cls) -> None:
        cls.__module__ = LohaError.__module__


class FileError(LohaError):
    """A file is missing, unreadable, malformed or may not be written."""


class BindError(LohaError):
    """A LoHa as a whole cannot be put on this model."""


class SettingsError(LohaError):
    """A widget, configuration key or command-line value cannot be honoured."""
