"""Draw one picture with the shipped graph on sample models: `make demo`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from comfy_cli.workflow_to_api import convert_ui_to_api
from kit.comfyui_server import ComfyUIServer
from kit.ending import end_at_the_first
from kit.workspace import CHECKPOINT, COMFYUI, DEMO_BASE, LOHA, PYTHON, ROOT, add_samples

WORKFLOW = ROOT / "workflows" / "shinymas-v2.1.json"

# The graph is run as shipped but for these: node class → input → (value, why).
OVERRIDES: dict[str, dict[str, tuple[Any, str]]] = {
    "CheckpointLoaderSimple": {"ckpt_name": (CHECKPOINT, "no trained model at hand")},
    "ShinyMasLoadLoha": {"lora_name": (LOHA, "no trained LoHa at hand")},
    "EmptyLatentImage": {"width": (192, "a CPU draws it"), "height": (288, "a CPU draws it")},
    "KSampler": {"steps": (4, "a CPU draws it")},
}


def override(prompt: dict[str, Any]) -> None:
    """Apply OVERRIDES to an API prompt in place and print each change."""
    for node in prompt.values():
        for name, (value, why) in OVERRIDES.get(node["class_type"], {}).items():
            print(f"  {node['class_type']}.{name}: {node['inputs'][name]!r} -> {value!r} ({why})")
            node["inputs"][name] = value


def draw(server: ComfyUIServer) -> tuple[list[str], list[Path]]:
    """Run the shipped graph. Returns the texts that its nodes showed and the pictures it saved."""
    workflow = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    prompt = convert_ui_to_api(workflow, server.get("/object_info"))
    print(f"running {WORKFLOW.relative_to(ROOT)}, changed only in:")
    override(prompt)
    shown = server.run(prompt).values()
    # Apply LoHa and the preview behind it show the same report: print it once.
    texts = list(dict.fromkeys(text.rstrip() for output in shown for text in output.get("text", ())))
    pictures = [
        server.base / image["type"] / image["subfolder"] / image["filename"]
        for output in shown
        for image in output.get("images", ())
    ]
    return texts, pictures


def main() -> None:
    began = time.monotonic()
    end_at_the_first()
    add_samples(DEMO_BASE, "demo")
    with ComfyUIServer(COMFYUI, DEMO_BASE, python=PYTHON) as server:
        texts, pictures = draw(server)
    for text in texts:
        print(f"\n{text}")
    print("\nThe weights are random, so the picture is noise: it shows that every part works.")
    for picture in pictures:
        print(f"picture: {picture}")
    print(f"done in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("stopped")
        raise SystemExit(130) from None
