"""Run ComfyUI with this pack and the sample models until interrupted: `make serve PORT=8188`."""

from __future__ import annotations

import argparse
from pathlib import Path

from kit.comfyui_server import ComfyUIServer
from kit.ending import end_at_the_first
from kit.workspace import COMFYUI, PYTHON, SERVE_BASE, add_samples, has_gpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8188)
    parser.add_argument("--base", type=Path, default=SERVE_BASE, help="folder for models, pictures and user files")
    given = parser.parse_args()
    end_at_the_first()
    add_samples(given.base, "demo")
    with ComfyUIServer(COMFYUI, given.base, python=PYTHON, port=given.port, gpu=has_gpu()) as server:
        print(f"ready: open {server.url} (Ctrl-C stops it; models and pictures are under {given.base})", flush=True)
        server.wait()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("stopped")
