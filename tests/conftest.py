"""Load the pack under a package name of its own, as ComfyUI does, never through sys.path.

The repository's `nodes/` would shadow ComfyUI's own `nodes.py` were the root on sys.path.
"""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def _load_pack(name: str = "shinymas_loha") -> None:
    spec = importlib.util.spec_from_file_location(
        name, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


_load_pack()
