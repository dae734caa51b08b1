"""The graph of LoHa Hook: the checkpoint composes the picture, and from a fifth of the steps on v2.1 draws her."""

from __future__ import annotations

import json
from pathlib import Path

from kit.drawing_graphs import CHECKPOINT, HEIGHT, VERSIONS, words
from kit.graph_file import Graph


def build() -> dict:
    """Checkpoint, LoHa and its hook, the prompt, the keyframes, sampler and picture."""
    version, graph = VERSIONS[-1], Graph()
    graph.notes("hook", lambda language: words(version, language), 0, 320, HEIGHT)
    model = graph.column("1 Model · モデル · 模型", "#b58b2a", 350, 310, HEIGHT)
    character = graph.column("2 Character · キャラクター · 角色", "#c0629b", 690, 340, HEIGHT)
    hook = graph.column("3 Hook · フック · 钩子", "#8a6fc0", 1060, 280, HEIGHT)
    picture = graph.column("4 Picture · 画像 · 图片", "#3f8fc4", 1370, 300, HEIGHT)

    checkpoint = graph.node("CheckpointLoaderSimple", model.box(165), models=[CHECKPOINT],
                            title="Checkpoint: an SD 1.5 anime model", widgets={"ckpt_name": CHECKPOINT["name"]})
    loha = graph.node("ShinyMasLoadLoha", model.box(220), models=[version.lora], widgets={"lora_name": version.file})
    hooked = graph.node("ShinyMasHookLoha", model.box(),
                        widgets={"strength_model": 1.0, "strength_clip": 1.0, "block_weights": ""},
                        links={"loha": (loha, "loha")})
    prompt = graph.node(
        "ShinyMasCharacterPrompt", character.box(HEIGHT - 30 - 46),
        widgets={"character": "Kazano Hiori", "model_version": version.name, "tag_set": "identity", "max_tags": 20,
                 "weight": 1.0, "before": "masterpiece, best quality", "after": "looking at viewer, outdoors, blue sky",
                 "exclude": "", "pick": "selected", "seed": 0, "control_after_generate": "fixed",
                 "cast": "shinymas", "tags": ""},
        links={"loha": (loha, "loha")})
    skip = graph.node("CLIPSetLastLayer", character.box(0), title="Clip skip 2", widgets={"stop_at_clip_layer": -2},
                      is_small=True, links={"clip": (checkpoint, "CLIP")})

    first = graph.node("CreateHookKeyframe", hook.box(116), title="From the start · 最初から · 从头",
                       widgets={"strength_mult": 0.0, "start_percent": 0.0})
    then = graph.node("CreateHookKeyframe", hook.box(116), title="From 20 % · 20 %から · 20 % 起",
                      widgets={"strength_mult": 1.0, "start_percent": 0.2}, links={"prev_hook_kf": (first, "HOOK_KF")})
    scheduled = graph.node("SetHookKeyframes", hook.box(80),
                           links={"hooks": (hooked, "hooks"), "hook_kf": (then, "HOOK_KF")})
    clip = graph.node("SetClipHooks", hook.box(136), widgets={"apply_to_conds": True, "schedule_clip": False},
                      links={"clip": (skip, "CLIP"), "hooks": (scheduled, "HOOKS")})
    positive, negative = (
        graph.node("CLIPTextEncode", column.box(88), title=f"{name.capitalize()} prompt",
                   widgets={"text": ""}, links={"clip": (clip, "CLIP"), "text": (prompt, name)})
        for name, column in (("positive", hook), ("negative", picture)))

    size = graph.node("EmptyLatentImage", picture.box(118), widgets={"width": 512, "height": 768, "batch_size": 1})
    sampler = graph.node(
        "KSampler", picture.box(262),
        widgets={"seed": 1, "control_after_generate": "randomize", "steps": 28, "cfg": 11.0,
                 "sampler_name": "euler_ancestral", "scheduler": "normal", "denoise": 1.0},
        links={"model": (checkpoint, "MODEL"), "positive": (positive, "CONDITIONING"),
               "negative": (negative, "CONDITIONING"), "latent_image": (size, "LATENT")})
    decode = graph.node("VAEDecode", picture.box(0), is_small=True,
                        links={"samples": (sampler, "LATENT"), "vae": (checkpoint, "VAE")})
    graph.node("SaveImage", picture.box(), widgets={"filename_prefix": "shinymas-hook"},
               links={"images": (decode, "IMAGE")})
    return graph.document("5817a5c0-10fa-4000-8000-000000000005")


def write(folder: Path) -> None:
    text = json.dumps(build(), indent=2, ensure_ascii=False)
    (folder / "shinymas-hook.json").write_text(text + "\n", encoding="utf-8", newline="\n")
