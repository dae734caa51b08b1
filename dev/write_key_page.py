"""Write docs/kohya-keys.md out of the key table: `python dev/write_key_page.py`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    spec = importlib.util.spec_from_file_location(
        "shinymas_loha", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    sys.modules["shinymas_loha"] = importlib.util.module_from_spec(spec)
    from shinymas_loha.loha.training.kohya.key_page import key_page

    (ROOT / "docs" / "kohya-keys.md").write_text(key_page(), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
