"""What goes between ComfyUI's server and a person: words under a node and in the log, what is sent to run, routes."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

_log = logging.getLogger("shinymas-loha")


def clock(seconds: float) -> str:
    """A length of time as people read it."""
    return time.strftime("%H:%M:%S", time.gmtime(seconds)) if seconds < 86_400 else f"{seconds / 86_400:.1f} days"


def progress(node_id: str, text: str) -> None:
    """How far a node is, under it, for as long as it runs."""
    # Not at import: the command line has no server.
    from server import PromptServer

    PromptServer.instance.send_progress_text(text, node_id)


def tell(node_id: str, text: str, level: int = logging.ERROR) -> None:
    """Say something under a node and in the log, where no output or exception of ours can carry it."""
    _log.log(level, "%s", text)
    progress(node_id, text)


def see_prompts(handle: Callable[[dict], dict]) -> None:
    """Let `handle` see, and change, all that is posted to be run, before ComfyUI validates it."""
    from server import PromptServer

    PromptServer.instance.add_on_prompt_handler(handle)


def add_route(method: str, path: str, answer: Callable[[web.Request], Awaitable[web.Response]]) -> None:
    """Let ComfyUI's server answer on `path` too; before it starts."""
    from server import PromptServer

    PromptServer.instance.routes.route(method, path)(answer)


def user_folder(request: web.Request) -> Path:
    """The pack's folder among the files of whoever asks, which ComfyUI serves as /userdata; it may not exist."""
    from server import PromptServer

    manager = PromptServer.instance.user_manager
    return Path(manager.get_request_user_filepath(request, "shinymas", create_dir=False))
