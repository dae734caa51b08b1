"""Captions to the states that the U-Net reads, as kohya's trainer makes them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models import TextEncoder

CHUNK = 75


def token_rows(ids: list[int], max_length: int, begin: int, end: int) -> list[list[int]]:
    """Chunks of a caption's ids, each `[begin] + 75 + [end]`, always `max_length / 75` of them.

    Ids beyond `max_length` are cut, missing ones are `end` (kohya-ss/sd-scripts,
    library/train_util.py, get_input_ids for SD 1.x).
    """
    filled = (ids[:max_length] + [end] * max_length)[:max_length]
    return [[begin, *filled[at:at + CHUNK], end] for at in range(0, max_length, CHUNK)]


def encode(text: TextEncoder, captions: list[str], max_length: int, clip_skip: int, device: torch.device) -> Tensor:
    """States (captions, max_length + 2, width): the chunks' states in a row, with one begin and one end.

    `clip_skip` 1 takes the last layer, 2 the last but one, both through the final norm. Layers that
    are skipped are not computed and get no gradient.
    """
    rows = [token_rows(text.tokenize(caption), max_length, text.begin, text.end) for caption in captions]
    ids = torch.tensor(rows, device=device)
    states = hidden_states(text, ids.flatten(0, 1), clip_skip).unflatten(0, ids.shape[:2])
    middle = states[:, :, 1:-1].flatten(1, 2)
    return torch.cat((states[:, 0, :1], middle, states[:, -1, -1:]), dim=1)


def hidden_states(text: TextEncoder, ids: Tensor, clip_skip: int) -> Tensor:
    """States (rows, tokens, width) of ids (rows, tokens)."""
    model = text.model
    embeddings = model.embeddings
    positions = embeddings.position_embedding.weight[:ids.shape[1]]
    x = F.embedding(ids, embeddings.token_embedding.weight).float() + positions.float()
    layers = model.encoder.layers
    for layer in layers[:len(layers) + 1 - clip_skip]:
        x = x + _attention(layer.self_attn, layer.layer_norm1(x), text.heads)
        x = x + layer.mlp(layer.layer_norm2(x))
    return model.final_layer_norm(x)


def _attention(layer: nn.Module, x: Tensor, heads: int) -> Tensor:
    q, k, v = (
        project(x).unflatten(-1, (heads, -1)).transpose(1, 2)
        for project in (layer.q_proj, layer.k_proj, layer.v_proj)
    )
    return layer.out_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
