"""From a file of 302 modules to module → weight, for the whole of SD 1.5: ours, ComfyUI's load and key map."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from suite import sets
from suite.measure import Contender, interleaved
from suite.results import Case, Row
from suite.session import Session


def cases(session: Session) -> Iterator[Case]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "loha.safetensors"
        _write(path, sets.modules("302", session.quick))
        yield _case(path, session)


def _case(path: Path, session: Session) -> Case:
    import comfy.lora
    import comfy.lora_convert
    import comfy.utils
    from shinymas_loha.loha import files
    from shinymas_loha.loha.binding import Target, bind

    unet, clip = _models()
    found: dict[str, int] = {}

    def ours() -> None:
        targets = [
            Target(prefix + name, tuple(tensor.shape), tensor.dtype)
            for prefix, model in (("diffusion_model.", unet.diffusion_model), ("", clip))
            for name, tensor in model.state_dict().items()
        ]
        found["ours"] = bind(files.read(path), targets).applied

    def core() -> None:
        names = comfy.lora.model_lora_keys_clip(clip, comfy.lora.model_lora_keys_unet(unet, {}))
        tensors = comfy.lora_convert.convert_lora(comfy.utils.load_torch_file(str(path), safe_load=True))
        found["core"] = len(comfy.lora.load_lora(tensors, names))

    contenders = [Contender("ours (all bytes read, hashed, checked)", ours),
                  Contender("ComfyUI core (memory map, values unread)", core)]
    timings = interleaved(contenders, torch.device("cpu"), session.seconds)
    assert found["ours"] == found["core"], f"modules found: {found}"
    return Case(
        "read and bind", f"{found['ours']} modules, {path.stat().st_size / 1e6:.1f} MB, in the page cache",
        [Row(contender.name, timings[contender.name]) for contender in contenders])


def _models() -> tuple[torch.nn.Module, torch.nn.Module]:
    """SD 1.5's U-Net and text encoder of ComfyUI's classes, without memory."""
    import comfy.model_base
    import comfy.sd1_clip
    import comfy.supported_models
    from kit.checkpoint import UNETS

    config = comfy.supported_models.SD15({
        "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "context_dim": 768,
        "use_spatial_transformer": True, "legacy": False, "use_linear_in_transformer": False, **UNETS["sd15"],
    })
    with torch.device("meta"):
        return comfy.model_base.BaseModel(config, device="meta"), comfy.sd1_clip.SD1ClipModel(device="meta")


def _write(path: Path, chosen: list[sets.Module]) -> None:
    from shinymas_loha.loha import Loha, LohaModule, files

    files.save(Loha({
        module.name: LohaModule(module.name, *four, alpha=sets.ALPHA)
        for module, four in zip(chosen, sets.factors(chosen, torch.float16), strict=True)
    }), path)
