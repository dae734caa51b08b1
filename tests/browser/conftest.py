"""The real front end, pinned, newest and one between, on a real server, in a real Chromium."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "dev"))

from kit.canvas import canvas  # noqa: E402
from kit.comfyui_server import ComfyUIServer  # noqa: E402
from kit.workspace import COMFYUI, PYTHON, TOOLS, add_samples  # noqa: E402


@pytest.fixture(scope="session", params=["pinned", "newest"])
def front_end(request, tmp_path_factory):
    """A page of ComfyUI with this front end, ready for graphs; one for the whole session.

    A test may ask for "between" too: one of the many versions that neither of these stands for.
    """
    base = tmp_path_factory.mktemp(request.param)
    add_samples(base, "tests")
    root = TOOLS / f"frontend-{request.param}" / "comfyui_frontend_package" / "static"
    options = () if request.param == "pinned" else ("--front-end-root", str(root))
    with ComfyUIServer(COMFYUI, base, python=PYTHON, options=options) as server, canvas(server) as page:
        page.name, page.user = request.param, base / "user"
        yield page
