"""A core that streams weights (Dynamic VRAM): whatever was loaded before, a picture is that of a fresh load."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
import torch
from kit.comfyui_server import ComfyUIServer
from kit.workspace import CHECKPOINT, COMFYUI, LOHA, PYTHON
from safetensors.torch import save_file

_ON = "DynamicVRAM support detected and enabled"
_CONV_LORA = "wide-convolutions.safetensors"


@pytest.fixture
def server(base, tmp_path):
    known = (COMFYUI / "comfy" / "cli_args.py").read_text(encoding="utf-8")
    if "--disable-dynamic-vram" not in known:
        pytest.skip("this ComfyUI has no Dynamic VRAM")
    (tmp_path / "index.html").write_text("none", encoding="utf-8")
    _write_lora(base / "models" / "loras" / _CONV_LORA)
    # Nothing cached: each prompt samples anew.
    options = ("--cache-none", "--front-end-root", str(tmp_path))
    with ComfyUIServer(COMFYUI, base, python=PYTHON, gpu=True, options=options) as running:
        if _ON not in running.log.read_text(encoding="utf-8", errors="replace"):
            pytest.skip("this machine does not support Dynamic VRAM")
        yield running


def _write_lora(path: Path) -> None:
    """Of modules that no LoHa of the page's kind touches."""
    draw = torch.Generator().manual_seed(0)
    tensors = {}
    for name, channels in (("lora_unet_down_blocks_0_resnets_0_conv1", 320), ("lora_unet_conv_out", 320)):
        out = 4 if name.endswith("out") else channels
        tensors |= {f"{name}.lora_down.weight": torch.randn(4, channels, 3, 3, generator=draw) * 0.1,
                    f"{name}.lora_up.weight": torch.randn(out, 4, 1, 1, generator=draw) * 0.1,
                    f"{name}.alpha": torch.tensor(4.0)}
    save_file(tensors, path)


def _prompt(strength: float, lora: bool) -> dict:
    def node(kind: str, **inputs) -> dict:
        return {"class_type": kind, "inputs": inputs}

    made = {
        "checkpoint": node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT),
        "core": node("LoraLoaderModelOnly", model=["checkpoint", 0], lora_name=_CONV_LORA, strength_model=1.0),
        "file": node("ShinyMasLoadLoha", lora_name=LOHA),
        "ours": node("ShinyMasApplyLoha", model=["core" if lora else "checkpoint", 0], clip=["checkpoint", 1],
                     loha=["file", 0], strength_model=strength, strength_clip=0.5, strict=True),
        "text": node("CLIPTextEncode", clip=["ours", 1], text="girl"),
        "latent": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "sampler": node("KSampler", model=["ours", 0], positive=["text", 0], negative=["text", 0],
                        latent_image=["latent", 0], seed=3, steps=2, cfg=4.0, sampler_name="euler",
                        scheduler="normal", denoise=1.0),
        "picture": node("VAEDecode", samples=["sampler", 0], vae=["checkpoint", 2]),
        "show": node("PreviewImage", images=["picture", 0]),
    }
    return made if lora else {name: one for name, one in made.items() if name != "core"}


def test_pictures_are_those_of_a_fresh_load(server):
    def picture(case) -> bytes:
        return server.picture(server.run(_prompt(*case))["show"]["images"][0])

    cases = [(0.3, False), (0.9, False), (0.3, True)]
    fresh = {}
    for case in cases:
        server.post("/free", {"unload_models": True, "free_memory": True})
        fresh[case] = picture(case)
    assert len(set(fresh.values())) == len(cases)
    for order in permutations(cases):
        for case in order:
            assert picture(case) == fresh[case], f"{case} in {order}"
