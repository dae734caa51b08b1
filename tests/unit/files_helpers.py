"""Write safetensors files by hand, malformed ones too: the library would refuse to."""

import json

import torch


def packed(header: object, data: bytes = b"") -> bytes:
    """A container of this header (JSON value, or the text itself) and this data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def described(label: str, shape: list[int], start: int, end: int) -> dict:
    return {"dtype": label, "shape": shape, "data_offsets": [start, end]}


def file_bytes(tensors: dict[str, torch.Tensor], metadata: dict | None = None) -> bytes:
    """A valid container, tensors in the given order and without any alignment."""
    labels = {
        torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64",
        torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.int8: "I8", torch.int64: "I64",
        torch.bool: "BOOL", torch.complex64: "C64",
    }
    header, data = ({"__metadata__": metadata} if metadata else {}), b""
    for name, tensor in tensors.items():
        part = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        header[name] = described(labels[tensor.dtype], list(tensor.shape), len(data), len(data) + len(part))
        data += part
    return packed(header, data)


def flat(name: str = "m", out: int = 6, in_: int = 5, rank: int = 2, rank2: int | None = None,
         dtype: torch.dtype = torch.float16, alpha: object = 1.0) -> dict[str, torch.Tensor]:
    """The tensors of one flat module; `alpha` None leaves it out."""
    generator = torch.Generator().manual_seed(out * 1009 + in_ * 31 + rank)
    rank2 = rank2 or rank
    shapes = {"hada_w1_a": (out, rank), "hada_w1_b": (rank, in_),
              "hada_w2_a": (out, rank2), "hada_w2_b": (rank2, in_)}
    tensors = {f"{name}.{suffix}": torch.randn(shape, generator=generator).to(dtype)
               for suffix, shape in shapes.items()}
    if alpha is not None:
        tensors[f"{name}.alpha"] = alpha if isinstance(alpha, torch.Tensor) else torch.tensor(alpha)
    return tensors


def tucker(name: str = "m", out: int = 6, in_: int = 5, rank: int = 2, kernel: tuple[int, ...] = (3, 3),
           dtype: torch.dtype = torch.float16) -> dict[str, torch.Tensor]:
    """The tensors of one Tucker module with alpha 1."""
    generator = torch.Generator().manual_seed(out * 1009 + in_ * 31 + rank)
    shapes = {"hada_w1_a": (rank, out), "hada_w1_b": (rank, in_), "hada_t1": (rank, rank, *kernel),
              "hada_w2_a": (rank, out), "hada_w2_b": (rank, in_), "hada_t2": (rank, rank, *kernel)}
    tensors = {f"{name}.{suffix}": torch.randn(shape, generator=generator).to(dtype)
               for suffix, shape in shapes.items()}
    return tensors | {f"{name}.alpha": torch.tensor(1.0)}


def without(tensors: dict[str, torch.Tensor], *names: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name not in names}
