"""ComfyUI's tokenizer of SD 1.x, where no CLIP is connected yet."""

from __future__ import annotations

from collections.abc import Callable

import comfy.sd1_clip


def tokenizer() -> Callable[[str], list[int]]:
    """Text → token ids as `TextEncoder.tokenize` gives them: without begin and end, no emphasis parsed."""
    found = comfy.sd1_clip.SDTokenizer().tokenizer
    return lambda text: found(text, add_special_tokens=False, verbose=False)["input_ids"]
