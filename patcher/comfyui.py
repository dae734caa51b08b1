"""The fence: the one place that knows ComfyUI's versions (0.3.75 and newer) and the inside of its ModelPatcher.

Everything else in the pack asks here. What is not recognised (another class of patcher, a hook, somebody else's
injection, a core whose parts are not where they were) is an `obstacle`, and the answer to an obstacle is always
ComfyUI's own `reload`.
"""

from __future__ import annotations

import dataclasses
import inspect
import uuid
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

import comfy.cli_args
import comfy.lora
import comfy.model_management
import comfy.model_patcher
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, PatcherInjection, WrappersMP
from comfy_api.latest import io
from torch import Tensor

from ..loha.targets import Place
from ..text import show

_FIELDS = {field.name for field in dataclasses.fields(io.Schema)}
# What rewriting in place leans on. A core without one of them is not known, and gets its own reload.
_PATCHER_PARTS = (
    "backup", "patches", "patches_uuid", "hook_patches", "hook_patches_backup", "hook_backup", "cached_hook_patches",
    "current_hooks", "forced_hooks", "injections", "object_patches", "object_patches_backup", "weight_wrapper_patches",
    "weight_inplace_update", "patch_weight_to_device", "partially_load", "unpatch_model",
)
_MODEL_PARTS = ("current_weight_patches_uuid", "model_lowvram", "device")
# Classes of comfy.supported_models whose base model is sure; of the others it is unknown.
_BASES = {
    **dict.fromkeys(("SD15", "SD15_instructpix2pix"), "SD 1.5"),
    **dict.fromkeys(("SD20", "SD21UnclipL", "SD21UnclipH", "LotusD"), "SD 2"),
    **dict.fromkeys(("SDXL", "SSD1B", "Segmind_Vega", "KOALA_700M", "KOALA_1B", "SDXL_instructpix2pix"), "SDXL"),
    "SDXLRefiner": "SDXL refiner", "SD3": "SD 3",
    **dict.fromkeys(("Flux", "FluxInpaint", "FluxSchnell"), "Flux"),
    **dict.fromkeys(("HunyuanVideo", "HunyuanVideoI2V", "HunyuanVideoSkyreelsI2V"), "HunyuanVideo"),
}
# Keys of injections that do nothing, `watch`'s own.
_watched: dict[str, None] = {}
_WHOLE = 1e32  # bytes: more than any model, as ComfyUI itself says it


def schema(**fields: Any) -> io.Schema:
    """`io.Schema` without the fields that this ComfyUI does not know yet (`search_aliases` came with 0.11)."""
    return io.Schema(**{name: value for name, value in fields.items() if name in _FIELDS})


def folded(item: io.Input) -> io.Input:
    """The same input, folded away until somebody asks for it; `advanced` is an argument of newer cores only."""
    item.extra_dict["advanced"] = True
    return item


@lru_cache(maxsize=1)
def checks_choices() -> bool:
    """Whether ComfyUI refuses a choice that is not in its list for nodes of this kind too: 0.3.75 does not."""
    import execution

    return "io.Combo" in inspect.getsource(execution.validate_inputs)


def listens_beyond() -> bool:
    """Whether other machines may reach this server (`--listen`): an address that is not surely this one's counts."""
    return not all(map(_is_loopback, str(comfy.cli_args.args.listen).split(",")))


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address.strip()).is_loopback
    except ValueError:
        return address.strip() == "localhost"


def base_model(patcher: ModelPatcher) -> str:
    """The base model that the model's class stands for, "" where it does not tell."""
    return _BASES.get(type(getattr(patcher.model, "model_config", None)).__name__, "")


def names_of(patcher: ModelPatcher, *, is_text: bool) -> dict[str, Place]:
    """ComfyUI's own map of a model's module names, for architectures other than SD's; it knows parts of weights."""
    if not is_text and not hasattr(patcher.model, "model_config"):
        return {}
    make = comfy.lora.model_lora_keys_clip if is_text else comfy.lora.model_lora_keys_unet
    return {name: Place(weight) if isinstance(weight, str) else Place(*weight)
            for name, weight in make(patcher.model, {}).items()}


def is_packed(weight: Tensor) -> bool:
    """Whether a weight is plain integers, into which some pack has packed its numbers.

    ComfyUI's own quantised tensors, and those of packs that patch them as they are unpacked, are classes of their own.
    """
    return not weight.is_floating_point() and type(weight) in (Tensor, torch.nn.Parameter)


def obstacle_to_merging(adapter: Callable[..., object]) -> str:
    """Why weights would not be merged, "" where they are: another pack may have put a merge of its own in place.

    Args:
        adapter: makes one of factors, an alpha and a DoRA scale.
    """
    merge = comfy.lora.calculate_weight
    if merge.__module__ == "comfy.lora":
        return ""
    one = adapter((torch.ones(1, 1),) * 4, None, None)
    try:
        merged = merge([(2.0, one, 1.0, None, None)], torch.ones(1, 1), "weight")
        if merged.item() == 3.0:
            return ""
        what = "does not add them"
    except Exception as error:  # whatever a stranger's code may raise
        what = f"fails with {type(error).__name__}: {show(error)}"
    return (f"'{show(merge.__module__)}' has replaced ComfyUI's merge of weights by one that does not know adapters "
            f"such as LoHas: it {what}. Update that pack, or remove it; no LoHa can be applied beside it.")


def merge_dtype(device: torch.device) -> torch.dtype:
    """What ComfyUI adds patches up in before it rounds to the weight's dtype: float32 until 0.4 or so."""
    chosen = getattr(comfy.model_management, "lora_compute_dtype", None)
    return chosen(device) if chosen else torch.float32


def streams(patcher: ModelPatcher) -> bool:
    """Whether weights are brought in as they are used and merged there (Dynamic VRAM), not once at the load."""
    return bool(getattr(patcher, "is_dynamic", lambda: False)())


def is_loaded(patcher: ModelPatcher) -> bool:
    """Whether the model is loaded with patches of this patcher's identity (`patches_uuid`)."""
    return getattr(patcher.model, "current_weight_patches_uuid", None) == patcher.patches_uuid


def is_partly_loaded(patcher: ModelPatcher) -> bool:
    """Whether some weights stay on the CPU and are merged at every forward."""
    return bool(getattr(patcher.model, "model_lowvram", False))


def is_bare(patcher: ModelPatcher) -> bool:
    """Whether nothing but `watch` injects into the model: then it is as it stands without injections."""
    return patcher.injections.keys() <= _watched.keys()


def originals(patcher: ModelPatcher, weights: Iterable[str]) -> list[Tensor | None]:
    """Unpatched weights that ComfyUI keeps aside for those that are patched in place now."""
    return [backup and backup.weight for backup in map(patcher.backup.get, weights)]


def obstacle_to_sharing(patcher: ModelPatcher, key: str) -> str:
    """Why patches on `patcher` must not share an identity over their strengths, "" where they may.

    Args:
        key: of our own injection, which does not count.
    """
    if type(patcher) is not ModelPatcher:
        return f"{type(patcher).__name__} is not ComfyUI's plain ModelPatcher"
    if streams(patcher):
        return "weights are merged as they are used"
    missing = [name for name in _PATCHER_PARTS if not hasattr(patcher, name)]
    missing += [name for name in _MODEL_PARTS if not hasattr(patcher.model, name)]
    if missing:
        return f"this ComfyUI has no {missing[0]}"
    if patcher.hook_patches or patcher.hook_patches_backup or patcher.forced_hooks is not None:
        return "hooks patch the weights too"
    if patcher.injections.keys() - {key}:
        return "another pack injects into the model"
    # A clone that exchanges modules keeps its identity; what is merged in the one part is not in the other.
    if any(isinstance(part, torch.nn.Module) and name.startswith("diffusion_model")
           for name, part in patcher.object_patches.items()):
        return "another pack has exchanged a part of the model"
    return ""


def obstacle_to_rewriting(patcher: ModelPatcher, weights: Iterable[str], key: str) -> str:
    """Why these weights of the loaded model must not be rewritten in place, "" where nothing stands against it.

    The states in which rewriting is right, all of them at once: a plain patcher, wholly loaded, without hooks (in
    force, cached or backed up), without other injections, weight wrappers or exchanged modules around the weights,
    on a core whose merge and load are its own.
    """
    if reason := obstacle_to_sharing(patcher, key):
        return reason
    if is_partly_loaded(patcher):
        return "the model is loaded in part"
    if patcher.hook_backup or patcher.current_hooks is not None or patcher.cached_hook_patches:
        return "hooks are in force"
    if patcher.weight_inplace_update:
        return "this patcher writes its originals over"
    if comfy.lora.calculate_weight.__module__ != "comfy.lora" or any(
            getattr(ModelPatcher, name).__module__ != "comfy.model_patcher"
            for name in ("patch_weight_to_device", "load", "partially_load", "unpatch_model")):
        return "another pack has replaced ComfyUI's merge"
    wrapped = patcher.weight_wrapper_patches.keys()
    exchanged = tuple(f"{name}." for name in {*patcher.object_patches, *patcher.object_patches_backup})
    for weight in weights:
        if weight in wrapped or weight.startswith(exchanged):
            return f"something else stands around {weight}"
    return ""


def hooks_load_a_second_copy() -> bool:
    """Whether models stream here (Dynamic VRAM), where ComfyUI samples hooked ones with a plain second copy."""
    made = getattr(comfy.model_patcher, "CoreModelPatcher", ModelPatcher)
    return made is not ModelPatcher


def sampling_memory(patcher: ModelPatcher, noise_shape: tuple[int, ...]) -> float:
    """Bytes that ComfyUI expects a sampling of this noise (batch, channels, …) to take; 0 where it cannot be asked."""
    try:
        # Both halves of classifier-free guidance go through the model together.
        return float(patcher.memory_required([2 * noise_shape[0], *noise_shape[1:]]))
    except (TypeError, AttributeError):  # other cores ask for more than a shape
        return 0.0


def merge_anew(patcher: ModelPatcher, weight: str) -> None:
    """Merge one weight by ComfyUI's own way from its original, whatever its patches and format, where it is."""
    place = comfy.utils.get_attr(patcher.model, weight).device
    backup = patcher.backup.get(weight)
    if backup is not None:
        comfy.utils.set_attr_param(patcher.model, weight, backup.weight)
    if weight in patcher.patches:
        patcher.patch_weight_to_device(weight, device_to=patcher.load_device)
    merged = comfy.utils.get_attr(patcher.model, weight)
    merged.data = merged.data.to(place)


def reload(patcher: ModelPatcher) -> None:
    """Unpatch the loaded model and load it again with this patcher's patches, as ComfyUI does for a changed LoRA."""
    room = 0 if is_partly_loaded(patcher) else _WHOLE
    # `partially_load` unpatches what is loaded under another identity.
    patcher.model.current_weight_patches_uuid = uuid.uuid4()
    patcher.partially_load(patcher.load_device, room)


def give_up(patcher: ModelPatcher) -> None:
    """Leave the model unpatched and unloaded, as it was before any LoHa."""
    patcher.detach()


def drop_hook_caches(patcher: ModelPatcher) -> None:
    """Forget merged weights that this clone has inherited: they were made over other patches."""
    if hasattr(patcher, "cached_hook_patches"):
        patcher.cached_hook_patches = {}


def after_use(patcher: ModelPatcher, key: str, callback: Callable[[], None]) -> None:
    """Be told whenever this patcher or a clone has merged: after a load, a sampling, and when weights go."""
    for event in (CallbacksMP.ON_LOAD, CallbacksMP.ON_CLEANUP, CallbacksMP.ON_DETACH):
        patcher.add_callback_with_key(event, key, lambda *_: callback())


def watch(patcher: ModelPatcher, key: str, *, injected: Callable[[ModelPatcher], None],
          loaded: Callable[..., None], detached: Callable[[ModelPatcher, bool], None],
          sampling: Callable[..., Any]) -> None:
    """Be told what ComfyUI does with this patcher and its clones, once each whatever was watched before.

    Args:
        injected: whenever the model is about to be used, after every injection.
        loaded: after weights were loaded.
        detached: after they were given back.
        sampling: around a whole sampling (executor, *arguments) → its result.
    """
    _watched[key] = None
    # Without an injection of its own ComfyUI tells nobody that the model is ready.
    nothing = PatcherInjection(inject=lambda patcher: None, eject=lambda patcher: None)
    patcher.set_injections(key, [nothing])
    for event, callback in ((CallbacksMP.ON_INJECT_MODEL, injected), (CallbacksMP.ON_LOAD, loaded),
                            (CallbacksMP.ON_DETACH, detached)):
        patcher.remove_callbacks_with_key(event, key)
        patcher.add_callback_with_key(event, key, callback)
    patcher.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, key)
    patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, key, sampling)
