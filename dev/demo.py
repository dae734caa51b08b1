"""Draw one picture with the shipped graph: `make demo`, on sample models or on a person's own files.

    make demo CHECKPOINT=/path/to/anime.safetensors LOHA=/path/to/shinymas-v2.1.safetensors CHARACTER="Kazano Hiori"
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comfy_cli.workflow_to_api import convert_ui_to_api
from kit.comfyui_server import ComfyUIServer, PromptFailed, ServerFailed
from kit.ending import end_at_the_first
from kit.workspace import CHECKPOINT, COMFYUI, DEMO_BASE, LOHA, PYTHON, ROOT, add_samples, has_gpu, library

WORKFLOW = ROOT / "workflows" / "shinymas-v2.1.json"
_CPU = "a CPU draws it"

# What a graph is run with instead of what it is shipped with: node class → input → (value, why).
Changes = dict[str, dict[str, tuple[Any, str]]]

SAMPLES: Changes = {
    "CheckpointLoaderSimple": {"ckpt_name": (CHECKPOINT, "no trained model at hand")},
    "ShinyMasLoadLoha": {"lora_name": (LOHA, "no trained LoHa at hand")},
    "EmptyLatentImage": {"width": (192, _CPU), "height": (288, _CPU)},
    "KSampler": {"steps": (4, _CPU)},
}
# Of each variable: the models folder, the node and its input, the endings that the node takes.
_OWN = {
    "CHECKPOINT": ("checkpoints", "CheckpointLoaderSimple", "ckpt_name", (".safetensors", ".ckpt")),
    "LOHA": ("loras", "ShinyMasLoadLoha", "lora_name", (".safetensors",)),
}


def own_files(given: Mapping[str, str]) -> dict[str, Path]:
    """Variable → file, for both or none of CHECKPOINT and LOHA. Raises SystemExit with what is wrong."""
    named = {name: Path(given[name]).expanduser() for name in _OWN if given.get(name)}
    for name, path in named.items():
        endings = _OWN[name][3]
        if not path.is_file():
            raise SystemExit(f"{name}={path}: {'that is a folder' if path.is_dir() else 'there is no such file'}. "
                             f"Give the path of a {' or '.join(endings)} file.")
        if path.suffix.lower() not in endings:
            raise SystemExit(f"{name}={path}: it ends in '{path.suffix}'; give a {' or '.join(endings)} file.")
    if len(named) == 1:
        (missing,) = _OWN.keys() - named
        raise SystemExit(f"{missing}= is missing: CHECKPOINT and LOHA go together, since the samples here are of a "
                         "smaller model that no other file fits. Give both, or neither.")
    return named


def character_name(text: str, user_directory: Path) -> str:
    """Her name as the node lists it. Raises SystemExit, with the nearest names, where nobody is called so."""
    characters = library("characters")
    try:
        return characters.load_casts(user_directory).find(characters.DEFAULT_CAST, text).character.name
    except characters.CastError as error:
        raise SystemExit(f"CHARACTER: {error}") from None


def changes_for(files: Mapping[str, Path], character: str, is_gpu: bool) -> Changes:
    """What to run the graph with: `files` as `own_files` gives them, "" for the graph's own character."""
    changes = dict(SAMPLES) if not files else {} if is_gpu else {"KSampler": {"steps": (15, f"{_CPU}, in minutes")}}
    for name, path in files.items():
        _, node, widget, _ = _OWN[name]
        changes[node] = {widget: (path.name, f"{name}=")}
    if character:
        changes["ShinyMasCharacterPrompt"] = {"character": (character, "CHARACTER=")}
    return changes


def link(files: Mapping[str, Path], base: Path) -> None:
    """Put the files into `base`'s model folders, under their own names."""
    for name, path in files.items():
        place = base / "models" / _OWN[name][0] / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.symlink_to(path.resolve())


def draw(server: ComfyUIServer, changes: Changes, timeout: float = 600) -> tuple[list[str], list[Path]]:
    """Run the shipped graph. Returns the texts that its nodes showed and the pictures it saved."""
    workflow = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    prompt = convert_ui_to_api(workflow, server.get("/object_info"))
    print(f"running {WORKFLOW.relative_to(ROOT)}, changed only in:")
    for node in prompt.values():
        for name, (value, why) in changes.get(node["class_type"], {}).items():
            print(f"  {node['class_type']}.{name}: {node['inputs'][name]!r} -> {value!r} ({why})")
            node["inputs"][name] = value
    shown = server.run(prompt, timeout).values()
    texts = [text.rstrip() for output in shown for key in ("text", "notes") for text in output.get(key, ())]
    pictures = [
        server.base / image["type"] / image["subfolder"] / image["filename"]
        for output in shown
        for image in output.get("images", ())
    ]
    return texts, pictures


def main() -> None:
    began = time.monotonic()
    end_at_the_first()
    files = own_files(os.environ)
    name = os.environ.get("CHARACTER", "")
    character = name and character_name(name, DEMO_BASE / "user")
    if files:
        link(files, DEMO_BASE)
    else:
        add_samples(DEMO_BASE, "demo")
    is_gpu = bool(files) and has_gpu()
    with ComfyUIServer(COMFYUI, DEMO_BASE, python=PYTHON, gpu=is_gpu) as server:
        texts, pictures = draw(server, changes_for(files, character, is_gpu), 600 if is_gpu or not files else 7200)
    for text in texts:
        print(f"\n{text}")
    if not files:
        print("\nThe weights are random, so the picture is noise: it shows that every part works. For a picture of "
              "her: make demo CHECKPOINT=… LOHA=… CHARACTER=…")
    for picture in pictures:
        print(f"picture: {picture}")
    print(f"done in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("stopped")
        raise SystemExit(130) from None
    except (PromptFailed, ServerFailed) as error:
        raise SystemExit(str(error)) from None
