"""From tensor names to modules: which tensors belong together, and of which kind they are."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches

from ...text import show
from ..module import BIAS_NAMES, CORE_NAMES, FACTOR_NAMES

LOHA = frozenset((*FACTOR_NAMES, *CORE_NAMES))
# Any kind of module may have these; `scalar` is in files that LyCORIS itself did not write.
SHARED = frozenset(("alpha", "dora_scale", "scalar"))
# Embeddings that OneTrainer puts beside the modules.
EMBEDDING = "bundle_emb."
# What ComfyUI's adapters and loader know besides (comfy/weight_adapter, comfy/lora.py).
_SINGLE = LOHA | SHARED | BIAS_NAMES | {
    "diff", "set_weight", "w_norm", "reshape_weight", "lora_A", "lora_B",
    "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2",
    "oft_blocks", "oft_diag", "rescale",
}
_LONGER = frozenset((
    "lora_up.weight", "lora_down.weight", "lora_mid.weight", "lora_A.weight", "lora_B.weight",
    "lora_A.default.weight", "lora_B.default.weight", "lora.up.weight", "lora.down.weight",
    "lora_linear_layer.up.weight", "lora_linear_layer.down.weight", "up.weight", "down.weight",
    "a1.weight", "a2.weight", "b1.weight", "b2.weight",
))
KNOWN = _SINGLE | _LONGER
_MAX_NAME = 256

# module name → suffix → tensor name
ByModule = dict[str, dict[str, str]]


def by_module(keys: Iterable[str]) -> ByModule:
    """Sort tensor names into modules. Every key is `tensor_name(name, suffix)` of exactly one place."""
    groups: ByModule = {}
    for key in keys:
        name, suffix = _split(key)
        groups.setdefault(name, {})[suffix] = key
    return groups


def tensor_name(name: str, suffix: str) -> str:
    """The tensor name of a module's suffix; a name without any dot has the empty suffix."""
    return f"{name}.{suffix}" if suffix else name


def flaw(name: str) -> str | None:
    """Why a module of this name cannot be used whatever its tensors, or None."""
    if not name:
        return "its name is empty"
    if len(name) > _MAX_NAME:
        return f"its name has {len(name)} characters, at most {_MAX_NAME} are sensible"
    if name.isascii() and name.isprintable():
        return None
    if any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in name):
        return "its name holds control or text-direction characters"
    return None


def nearly(suffix: str) -> str:
    """A sentence on the known suffix that this one is nearly (capitals, separators, slips), or ""."""
    if suffix in KNOWN:
        return ""
    plain = suffix.lower().replace("-", "_").removesuffix(".weight")
    close = [plain] if plain in KNOWN else get_close_matches(plain, sorted(KNOWN), 1, 0.85)
    return f"'{show(suffix)}' is nearly '{close[0]}', and has to be to the letter" if close else ""


def _split(key: str) -> tuple[str, str]:
    name, dot, last = key.rpartition(".")
    if not dot or not last:
        return key, ""
    if last not in _SINGLE:
        parts = key.rsplit(".", 3)
        for start in range(1, len(parts) - 1):
            suffix = ".".join(parts[start:])
            if suffix in _LONGER:
                return key[:-len(suffix) - 1], suffix
    return name, last
