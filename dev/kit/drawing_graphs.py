"""The drawing graphs: one graph, drawn once, for each version of the model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from kit.graph_file import Column, Graph

# A stand-in that may be linked: CreativeML Open RAIL-M, and the file that ComfyUI's own templates link.
CHECKPOINT = {
    "name": "v1-5-pruned-emaonly-fp16.safetensors",
    "url": "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/"
           "v1-5-pruned-emaonly-fp16.safetensors",
    "directory": "checkpoints",
}


@dataclass(frozen=True)
class Version:
    """What differs between the versions. `url` is an address of the file itself, None where only `page` is known."""

    name: str
    file: str
    trigger: str
    page: str
    url: str | None = None

    @property
    def lora(self) -> dict[str, str] | None:
        return self.url and {"name": self.file, "url": self.url, "directory": "loras"}


VERSIONS = (
    Version("v1.0", "shiny-sd1-v1.safetensors", "Hiori Kazano", "",
            "https://civitai.com/api/download/models/21248"),
    Version("v2.0", "shinymas-v2.0-000028.safetensors", "Kazano Hiori",
            "https://huggingface.co/gustproof/sd-models/tree/main/shinymas"),
    Version("v2.1", "shinymas-v2.1.safetensors", "Kazano Hiori", "",
            "https://civitai.com/api/download/models/44963"),
)

HEIGHT = 850


def model_nodes(graph: Graph, column: Column, version: Version,
                strength: tuple[int, str] | None = None) -> tuple[int, int, int]:
    """Fill `column` with checkpoint, Load LoHa and Apply LoHa; their ids. `strength`: the output that gives both."""
    checkpoint = graph.node("CheckpointLoaderSimple", column.box(165), models=[CHECKPOINT],
                            title="Checkpoint: an SD 1.5 anime model", widgets={"ckpt_name": CHECKPOINT["name"]})
    loha = graph.node("ShinyMasLoadLoha", column.box(220), models=[version.lora] if version.lora else (),
                      widgets={"lora_name": version.file})
    apply = graph.node(
        "ShinyMasApplyLoha", column.box(),
        widgets={"strength_model": 1.0, "strength_clip": 1.0, "strict": False, "block_weights": ""},
        links={"model": (checkpoint, "MODEL"), "loha": (loha, "loha"), "clip": (checkpoint, "CLIP")}
        | ({"strength_model": strength, "strength_clip": strength} if strength else {}))
    return checkpoint, loha, apply


def build(version: Version) -> dict:
    """The graph of one version: checkpoint and LoHa, character prompt, sampler, picture."""
    graph = Graph()
    graph.notes("draw", lambda language: words(version, language), 0, 320, HEIGHT)
    ids, picture = nodes(graph, version)
    graph.node("SaveImage", picture.box(), widgets={"filename_prefix": f"shinymas-{version.name}"},
               links={"images": (ids["decode"], "IMAGE")})
    # Any fixed UUID serves: the front end keeps one per graph to tell its tabs apart.
    return graph.document(f"5817a5c0-10fa-4000-8000-0000000000{version.name[1]}{version.name[3]}")


def nodes(graph: Graph, version: Version) -> tuple[dict[str, int], Column]:
    """Everything up to the decoded picture: the ids of the nodes that a person sets, and where the next one goes."""
    model = graph.column("1 Model · モデル · 模型", "#b58b2a", 350, 310, HEIGHT)
    character = graph.column("2 Character · キャラクター · 角色", "#c0629b", 690, 340, HEIGHT)
    sampling = graph.column("3 Sampling · 生成 · 采样", "#4f9a5f", 1060, 280, HEIGHT)
    picture = graph.column("4 Picture · 画像 · 图片", "#3f8fc4", 1370, 300, HEIGHT)

    checkpoint, loha, apply = model_nodes(graph, model, version)
    prompt = graph.node(
        "ShinyMasCharacterPrompt", character.box(),
        widgets={"character": "Kazano Hiori", "model_version": version.name, "tag_set": "identity", "max_tags": 20,
                 "weight": 1.0, "before": "masterpiece, best quality", "after": "looking at viewer, outdoors, blue sky",
                 "exclude": "", "pick": "selected", "seed": 0, "control_after_generate": "fixed",
                 "cast": "shinymas", "tags": ""},
        links={"loha": (loha, "loha")})

    skip = graph.node("CLIPSetLastLayer", sampling.box(62), title="Clip skip 2",
                      widgets={"stop_at_clip_layer": -2}, links={"clip": (apply, "clip")})
    positive, negative = (
        graph.node("CLIPTextEncode", sampling.box(88), title=f"{name.capitalize()} prompt",
                   widgets={"text": ""}, links={"clip": (skip, "CLIP"), "text": (prompt, name)})
        for name in ("positive", "negative"))
    size = graph.node("EmptyLatentImage", sampling.box(118),
                      widgets={"width": 512, "height": 768, "batch_size": 1})
    sampler = graph.node(
        "KSampler", sampling.box(),
        widgets={"seed": 1, "control_after_generate": "randomize", "steps": 28, "cfg": 11.0,
                 "sampler_name": "euler_ancestral", "scheduler": "normal", "denoise": 1.0},
        links={"model": (apply, "model"), "positive": (positive, "CONDITIONING"),
               "negative": (negative, "CONDITIONING"), "latent_image": (size, "LATENT")})

    decode = graph.node("VAEDecode", picture.box(56),
                        links={"samples": (sampler, "LATENT"), "vae": (checkpoint, "VAE")})
    return {"checkpoint": checkpoint, "loha": loha, "apply": apply, "prompt": prompt, "size": size,
            "sampler": sampler, "decode": decode}, picture


# How the file comes, in each language: from its own address, or by hand from a page that lists it.
_HOW = {"en": ("under that name", "downloaded by hand from the list on that page"),
        "ja": ("その名前でダウンロードして", "そのページの一覧から手動でダウンロードして"),
        "zh": ("以此文件名下载", "从该页面的列表中手动下载")}


def words(version: Version, language: str) -> dict[str, str]:
    """What a note says of this version."""
    return {"version": version.name, "file": version.file, "trigger": version.trigger,
            "link": version.url or version.page, "how": _HOW[language][version.url is None]}


def write(folder: Path) -> None:
    for version in VERSIONS:
        text = json.dumps(build(version), indent=2, ensure_ascii=False)
        (folder / f"shinymas-{version.name}.json").write_text(text + "\n", encoding="utf-8", newline="\n")
