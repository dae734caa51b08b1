"""A changed strength in a running ComfyUI: from queueing to the first step's end, in each of its ways to hold a model.

The floor is a run that changes the seed alone: what is above it is the price of the new strength.
On a GPU the model is the size of SD 1.5, on a CPU a small one.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import numpy as np
from kit.comfyui_server import ComfyUIServer, ServerFailed
from kit.workspace import CHECKPOINT, COMFYUI, LOHA, PYTHON, add_samples

from suite.measure import Timing
from suite.results import Case, Row
from suite.session import Session

_CLIENT = "bench"
_OURS, _CORE = "Apply LoHa", "ComfyUI's LoraLoader"
_LOADERS: dict[str, dict[str, Any]] = {
    _OURS: {
        "file": {"class_type": "ShinyMasLoadLoha", "inputs": {"lora_name": LOHA}},
        "lora": {"class_type": "ShinyMasApplyLoha", "inputs": {
            "model": ["checkpoint", 0], "clip": ["checkpoint", 1], "loha": ["file", 0], "strict": True}},
    },
    _CORE: {
        "lora": {"class_type": "LoraLoader", "inputs": {
            "model": ["checkpoint", 0], "clip": ["checkpoint", 1], "lora_name": LOHA}},
    },
}
_MODE_SECONDS = 150  # about 40 on a GPU
_NO_DYNAMIC = "--disable-dynamic-vram"
# How a person may start ComfyUI. A core of today streams weights by default (Dynamic VRAM); --highvram and --novram
# turn that off, --lowvram does nothing beside it.
_MODES = {
    "Dynamic VRAM": (), "classic": (_NO_DYNAMIC,), "highvram": ("--highvram",), "lowvram": ("--lowvram", _NO_DYNAMIC),
    "novram": ("--novram",),
}
# What the log says about the patcher in use. The core that streams says "prepared", the other one "loaded".
_TELLING = re.compile(
    r"DynamicVRAM support.*|legacy ModelPatcher|Set vram state to.*|prepared for dynamic VRAM loading|"
    r"loaded completely|loaded partially")
_LOADED = re.compile(rb"prepared for dynamic VRAM loading|loaded completely|loaded partially")


@dataclass
class _Found:
    """What one server showed: seconds and loads of models by job, pictures by loader, our report's route lines."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    loads: dict[str, int] = field(default_factory=dict)
    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    routes: list[str] = field(default_factory=list)


def cases(session: Session) -> Iterator[Case]:
    """A case for each mode that this ComfyUI knows; notes say what its log proves, and how far pictures differ."""
    on_gpu = session.device.type == "cuda"
    reference: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        add_samples(Path(folder), "sd15" if on_gpu and not session.quick else "tests")
        for mode, options in _modes(on_gpu).items():
            title = f"queue to first step, {mode}, U-Net and text encoder patched"
            server = ComfyUIServer(COMFYUI, Path(folder), python=PYTHON, gpu=on_gpu,
                                   options=(*options, *_front_end(Path(folder))))
            began = time.perf_counter()
            try:
                with server:
                    found = asyncio.run(asyncio.wait_for(_measure(server, 2 if session.quick else 5), _MODE_SECONDS))
            except (ServerFailed, RuntimeError, TimeoutError, aiohttp.ClientError) as error:
                # The other modes say something without this one.
                print(f"{mode} failed: {error!r}\n{server.log_tail()}", flush=True)
                yield Case("strength change", title, [Row("FAILED after", Timing.of([time.perf_counter() - began]))],
                           f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}", _OURS)
                continue
            log = server.log.read_text(encoding="utf-8", errors="replace")
            print(log[-6000:], flush=True)
            reference = reference or found.pictures
            yield Case(
                "strength change", title, [Row(name, Timing.of(measured)) for name, measured in found.seconds.items()],
                "; ".join([_proof(log), _loads(found), _pictures(found.pictures, reference), *found.routes]), _OURS)


def _modes(on_gpu: bool) -> dict[str, tuple[str, ...]]:
    if not on_gpu:
        return {"CPU": ()}
    known = (COMFYUI / "comfy" / "cli_args.py").read_text(encoding="utf-8")
    if f'"{_NO_DYNAMIC}"' in known:
        return _MODES
    return {mode: tuple(option for option in options if option != _NO_DYNAMIC)
            for mode, options in _MODES.items() if mode != "Dynamic VRAM"}


def _front_end(folder: Path) -> tuple[str, ...]:
    """ComfyUI does not start without a front end: a page of one word where its package is not installed."""
    if importlib.util.find_spec("comfyui_frontend_package"):
        return ()
    root = folder / "front-end"
    root.mkdir(exist_ok=True)
    (root / "index.html").write_text("none", encoding="utf-8")
    return "--front-end-root", str(root)


def _proof(log: str) -> str:
    said = Counter(match[0].strip() for match in _TELLING.finditer(log))
    return "log: " + ", ".join(f"{words} × {count}" for words, count in said.items())


def _loads(found: _Found) -> str:
    return "weights loaded in the timed runs: " + ", ".join(f"{name} {count}" for name, count in found.loads.items())


def _pictures(found: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> str:
    beside_core, beside_first = (_apart(found[_OURS], other) for other in (found[_CORE], reference[_OURS]))
    return f"pictures: ours and core's {beside_core}, ours and the first mode's {beside_first}"


def _apart(one: np.ndarray, other: np.ndarray) -> str:
    if np.array_equal(one, other):
        return "equal in every bit"
    apart = np.abs(one.astype(int) - other.astype(int))
    return f"apart by at most {apart.max()} of 255, {apart.mean():.3f} on average"


async def _measure(server: ComfyUIServer, rounds: int) -> _Found:
    found = _Found(seconds={
        loader + step: [] for step in (", new strength", ", first new strength", ", new seed") for loader in _LOADERS})
    found.loads = dict.fromkeys(found.seconds, 0)
    async with aiohttp.ClientSession(server.url) as http, http.ws_connect(f"/ws?clientId={_CLIENT}") as socket:
        seed = 0
        for turn in range(rounds + 1):
            for loader in _LOADERS:
                new = 0.75 + turn / 100
                # The first run changes loaders; what is timed starts from a model that this one has patched. The first
                # change after it may bring what later ones need onto the GPU.
                for step, strength in (("", 0.5), (", first new strength", new - 0.2), (", new strength", new),
                                       (", new seed", new)):
                    seed += 1
                    before = _count_loads(server)
                    took, outputs = await _run(http, socket, _graph(loader, strength, seed))
                    if step and turn:  # the first turn warms up
                        found.seconds[loader + step].append(took)
                        found.loads[loader + step] += _count_loads(server) - before
        for loader in _LOADERS:
            _, outputs = await _run(http, socket, _graph(loader, 0.9, 7, steps=2, side=256))
            found.pictures[loader] = await _picture(http, outputs["show"]["images"][0])
            if loader == _OURS:
                text = "\n".join(outputs.get("lora", {}).get("text", ()))
                found.routes = [line for line in text.splitlines() if line.startswith("route")]
    return found


def _count_loads(server: ComfyUIServer) -> int:
    return len(_LOADED.findall(server.log.read_bytes()))


async def _picture(http: aiohttp.ClientSession, image: dict[str, str]) -> np.ndarray:
    from PIL import Image

    async with http.get("/view?" + urlencode(image)) as answer:
        return np.asarray(Image.open(BytesIO(await answer.read())).convert("RGB"))


async def _run(http: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse,
               graph: dict) -> tuple[float, dict[str, Any]]:
    """Queue the graph and see it through: seconds from queueing to the sampler's first step's end, outputs shown."""
    began = time.perf_counter()
    async with http.post("/prompt", json={"prompt": graph, "client_id": _CLIENT}) as answer:
        accepted = await answer.json()
    if "prompt_id" not in accepted:
        raise RuntimeError(f"ComfyUI refused the graph: {json.dumps(accepted)}")
    first, outputs = None, {}
    async for message in socket:
        if message.type is not aiohttp.WSMsgType.TEXT:
            continue
        event = message.json()
        if event["data"].get("prompt_id") != accepted["prompt_id"]:
            continue
        if event["type"] == "progress" and first is None:
            first = time.perf_counter() - began
        elif event["type"] == "executed":
            outputs[event["data"]["node"]] = event["data"]["output"]
        elif event["type"] == "execution_success":
            return first, outputs
        elif event["type"] == "execution_error":
            raise RuntimeError(f"{event['data']['node_type']}: {event['data']['exception_message']}")
    raise RuntimeError("ComfyUI closed the connection")


def _graph(loader: str, strength: float, seed: int, *, steps: int = 1, side: int = 64) -> dict[str, Any]:
    nodes = json.loads(json.dumps(_LOADERS[loader]))
    nodes["lora"]["inputs"] |= {"strength_model": strength, "strength_clip": strength}
    return nodes | {
        "checkpoint": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": CHECKPOINT}},
        "text": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["lora", 1], "text": "Kazano Hiori"}},
        "latent": {"class_type": "EmptyLatentImage", "inputs": {"width": side, "height": side, "batch_size": 1}},
        "sampler": {"class_type": "KSampler", "inputs": {
            "model": ["lora", 0], "positive": ["text", 0], "negative": ["text", 0], "latent_image": ["latent", 0],
            "seed": seed, "steps": steps, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}},
        "picture": {"class_type": "VAEDecode", "inputs": {"samples": ["sampler", 0], "vae": ["checkpoint", 2]}},
        "show": {"class_type": "PreviewImage", "inputs": {"images": ["picture", 0]}},
    }
