"""The graph of ShinyMas Scene: two people in one picture, with v2.1."""

from __future__ import annotations

import json
from pathlib import Path

from kit.drawing_graphs import CHECKPOINT, VERSIONS, Graph

_NEGATIVE = ("nsfw, lowres, bad anatomy, bad hands, text, error, missing fingers, extra digit, fewer digits, cropped, "
             "worst quality, low quality, normal quality, jpeg artifacts, signature, watermark, username, blurry")
_PEOPLE = "Kazano Hiori | left | school uniform\nSakuragi Mano | right | smile, sweater"


def build() -> dict:
    """Checkpoint and LoHa, the people, sampler, picture and plan."""
    version = VERSIONS[-1]
    graph = Graph()
    graph.group("Model", "#b58b2a", (400, 0, 400, 890))
    graph.group("People", "#c0629b", (820, 0, 440, 890))
    graph.group("Sampling", "#4f9a5f", (1280, 0, 360, 890))
    graph.group("Picture and plan", "#3f8fc4", (1660, 0, 480, 890))
    graph.node("MarkdownNote", (0, 30, 380, 860), title="Two people in one picture", note=True,
               widgets={"text": _note(version.file, version.where)})

    checkpoint = graph.node("CheckpointLoaderSimple", (420, 80, 360, 100), models=[CHECKPOINT],
                            title="Checkpoint: any SD 1.5 anime model", widgets={"ckpt_name": CHECKPOINT["name"]})
    loha = graph.node("ShinyMasLoadLoha", (420, 230, 360, 160), models=[version.lora] if version.lora else (),
                      widgets={"lora_name": version.file})
    apply = graph.node(
        "ShinyMasApplyLoha", (420, 440, 360, 300),
        widgets={"strength_model": 1.0, "strength_clip": 1.0, "strict": False, "block_weights": ""},
        links={"model": (checkpoint, "MODEL"), "loha": (loha, "loha"), "clip": (checkpoint, "CLIP")})
    skip = graph.node("CLIPSetLastLayer", (420, 790, 360, 60), title="Clip skip 2",
                      widgets={"stop_at_clip_layer": -2}, links={"clip": (apply, "clip")})

    size = graph.node("EmptyLatentImage", (1300, 80, 320, 110), widgets={"width": 768, "height": 512, "batch_size": 1})
    scene = graph.node(
        "ShinyMasScene", (840, 80, 400, 780),
        widgets={"people": _PEOPLE, "shared": "masterpiece, best quality, outdoors, blue sky", "negative": _NEGATIVE,
                 "model_version": version.name, "tag_set": "identity", "method": "attention couple", "feather": 8.0,
                 "width": 768, "height": 512, "cast": "shinymas"},
        links={"model": (apply, "model"), "clip": (skip, "CLIP"), "loha": (loha, "loha"), "latent": (size, "LATENT")})
    sampler = graph.node(
        "KSampler", (1300, 240, 320, 350),
        widgets={"seed": 1, "control_after_generate": "randomize", "steps": 28, "cfg": 11.0,
                 "sampler_name": "euler_ancestral", "scheduler": "normal", "denoise": 1.0},
        links={"model": (scene, "model"), "positive": (scene, "positive"), "negative": (scene, "negative"),
               "latent_image": (size, "LATENT")})
    decode = graph.node("VAEDecode", (1300, 640, 320, 50),
                        links={"samples": (sampler, "LATENT"), "vae": (checkpoint, "VAE")})
    graph.node("SaveImage", (1680, 80, 440, 400), widgets={"filename_prefix": "shinymas-scene"},
               links={"images": (decode, "IMAGE")})
    graph.node("PreviewImage", (1680, 530, 440, 330), title="Who stands where", links={"images": (scene, "layout")})
    return graph.document("5817a5c0-10fa-4000-8000-000000000003")


def _note(file: str, where: str) -> str:
    return f"""## Two people in one picture

Unofficial fan work, not affiliated with the owners of THE iDOLM@STER.

1. **Checkpoint** into `ComfyUI/models/checkpoints`: any SD 1.5 *anime* checkpoint of yours.

2. **LoHa** into `ComfyUI/models/loras`: `{file}` from {where}.

3. Press **R**, choose both files. **Run.**

A line for each person in `people`:

`name | box | tags | weight`

Boxes: `left`, `right`, `middle`, `top`, `bottom`, `top left`, `1/3`, or per cents of the width and the height: \
`0-45, 10-100`. Without a box, shares from left to right.

`shared` is for the whole picture. `2girls` is added there, `1girl` to each person.

The picture is as large as the latent that is connected. The plan shows who stands where; `feather` is how softly they \
meet.

*masked conditioning* is ComfyUI's own way, a pass for each person. *attention couple* takes one."""


def write(folder: Path) -> None:
    text = json.dumps(build(), indent=2, ensure_ascii=False)
    (folder / "shinymas-scene.json").write_text(text + "\n", encoding="utf-8", newline="\n")
