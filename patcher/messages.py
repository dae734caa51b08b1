"""Words for the person in front of ComfyUI: under a node, and in the log."""

from __future__ import annotations

import logging

_log = logging.getLogger("shinymas-loha")


def tell(node_id: str, text: str, level: int = logging.ERROR) -> None:
    """Say something under a node and in the log, where no output or exception of ours can carry it."""
    # Not at import: the command line has no server.
    from server import PromptServer

    _log.log(level, "%s", text)
    PromptServer.instance.send_progress_text(text, node_id)
