"""What a run is trained on, as the trainer sees it, whoever loaded it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256

import torch
from torch import Tensor, nn

from .data.latents import Encode

_THREADS = 4


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """A CLIP text model: its modules are called one by one, so that no gradient meets an in-place sum.

    Args:
        model: has `embeddings.token_embedding`, `embeddings.position_embedding`, `encoder.layers` (each with
            `layer_norm1`, `self_attn.{q,k,v,out}_proj`, `layer_norm2`, `mlp`) and `final_layer_norm`.
        heads: attention heads of a layer.
        tokenize: text → token ids, without begin and end, neither cut nor padded; no emphasis is parsed.
        begin, end: ids put around every chunk of 75; `end` also fills up.
    """

    model: nn.Module
    heads: int
    tokenize: Callable[[str], list[int]]
    begin: int = 49406
    end: int = 49407


@dataclass(frozen=True, eq=False)
class Models:
    """U-Net, text encoder and VAE on one device, weights frozen and never written.

    Args:
        unet: the U-Net's module, for its weights.
        predict: (noisy latents (batch, 4, h, w), timesteps (batch,) int64, states (batch, tokens, width)) → the
            U-Net's raw output.
        text: the text encoder.
        layers: kohya module name → the Linear or Conv2d that it names, of both models.
        encode: the VAE's encoder, see `data.Latents`.
        device: where the weights lie.
        is_v_prediction: what the U-Net was made to predict.
        blocks: modules that gradient checkpointing computes twice, none inside another.
        vae_key: a hash of the VAE's weights; "" where it is not known.
    """

    unet: nn.Module
    predict: Callable[[Tensor, Tensor, Tensor], Tensor]
    text: TextEncoder
    layers: Mapping[str, nn.Module]
    encode: Encode
    device: torch.device
    is_v_prediction: bool = False
    blocks: tuple[nn.Module, ...] = ()
    vae_key: str = ""


def weights_hash(module: nn.Module) -> str:
    """Hash of a module's weights: sha256 over the sha256 of each tensor with its name, dtype and shape.

    Threads share the work (1.7 GB in one to four seconds); weights on a GPU are copied one at a time.
    """
    def hashed(item: tuple[str, Tensor]) -> bytes:
        name, tensor = item
        digest = sha256(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.digest()

    with ThreadPoolExecutor(_THREADS, "weights") as pool:
        return sha256(b"".join(pool.map(hashed, module.state_dict().items()))).hexdigest()


@contextmanager
def differentiable(*roots: nn.Module) -> Iterator[None]:
    """Let autograd through modules whose weights were made under `torch.inference_mode`.

    Autograd refuses to keep such tensors for backward. Inside, they are replaced by ordinary tensors
    over the same storage: nothing is copied. Afterwards the very same objects are back.
    """
    swapped = []
    try:
        with torch.inference_mode(False):
            for module in (module for root in roots for module in root.modules()):
                for slots in (module._parameters, module._buffers):
                    for name, tensor in slots.items():
                        if tensor is not None and tensor.is_inference():
                            swapped.append((slots, name, tensor))
                            slots[name] = _ordinary(tensor)
        yield
    finally:
        for slots, name, tensor in reversed(swapped):
            slots[name] = tensor


def _ordinary(tensor: Tensor) -> Tensor:
    view = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(
        tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())
    return nn.Parameter(view, requires_grad=False) if isinstance(tensor, nn.Parameter) else view
