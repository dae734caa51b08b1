"""Run ComfyUI with this pack and the sample models until interrupted: `make serve PORT=8188`."""

from __future__ import annotations

import argparse
import signal
import sys

from kit.comfyui_server import ComfyUIServer
from kit.workspace import COMFYUI, PYTHON, SERVE_BASE, add_samples, has_gpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8188)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    add_samples(SERVE_BASE, "demo")
    with ComfyUIServer(COMFYUI, SERVE_BASE, python=PYTHON, port=given.port, gpu=has_gpu()) as server:
        print(f"ready: open {server.url} (Ctrl-C stops it; models and pictures are under {SERVE_BASE})", flush=True)
        server.wait()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("stopped")
