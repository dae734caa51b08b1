"""What goes between ComfyUI's server and a person: words under a node and in the log, and what is sent to be run."""

from __future__ import annotations

import logging
from collections.abc import Callable

_log = logging.getLogger("shinymas-loha")


def tell(node_id: str, text: str, level: int = logging.ERROR) -> None:
    """Say something under a node and in the log, where no output or exception of ours can carry it."""
    # Not at import: the command line has no server.
    from server import PromptServer

    _log.log(level, "%s", text)
    PromptServer.instance.send_progress_text(text, node_id)


def see_prompts(handle: Callable[[dict], dict]) -> None:
    """Let `handle` see, and change, all that is posted to be run, before ComfyUI validates it."""
    from server import PromptServer

    PromptServer.instance.add_on_prompt_handler(handle)
