"""How many tokens a text is, by ComfyUI's own tokenizer for SD 1.5."""

from __future__ import annotations

from functools import lru_cache

from comfy.sd1_clip import SDTokenizer

CHUNK = 75  # tokens that the text encoder takes at once


@lru_cache(maxsize=1)
def _tokenizer() -> SDTokenizer:
    # Without a folder of embeddings: nothing that somebody types opens a file here.
    return SDTokenizer()


def count_tokens(text: str) -> tuple[int, int]:
    """(tokens, how many there is room for in as many chunks as they take). An embedding counts by its name."""
    chunks = _tokenizer().tokenize_with_weights(text, return_word_ids=True)
    return sum(word != 0 for chunk in chunks for _, _, word in chunk), CHUNK * len(chunks)
