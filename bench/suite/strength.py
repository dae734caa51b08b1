"""A changed strength in a running ComfyUI: from queueing to the first step's end.

The floor is a run that changes the seed alone: what is above it is the price of the new strength.
On a GPU the model is the size of SD 1.5, on a CPU a small one.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
from kit.comfyui_server import ComfyUIServer
from kit.workspace import CHECKPOINT, COMFYUI, LOHA, PYTHON, add_samples

from suite.measure import Timing
from suite.results import Case, Row
from suite.session import Session

_CLIENT = "bench"
_LOADERS: dict[str, dict[str, Any]] = {
    "Apply LoHa": {
        "file": {"class_type": "ShinyMasLoadLoha", "inputs": {"lora_name": LOHA}},
        "lora": {"class_type": "ShinyMasApplyLoha", "inputs": {
            "model": ["checkpoint", 0], "clip": ["checkpoint", 1], "loha": ["file", 0], "strict": True}},
    },
    "ComfyUI's LoraLoader": {
        "lora": {"class_type": "LoraLoader", "inputs": {
            "model": ["checkpoint", 0], "clip": ["checkpoint", 1], "lora_name": LOHA}},
    },
}


def cases(session: Session) -> Iterator[Case]:
    on_gpu = session.device.type == "cuda"
    with tempfile.TemporaryDirectory() as folder:
        add_samples(Path(folder), "sd15" if on_gpu and not session.quick else "tests")
        with ComfyUIServer(COMFYUI, Path(folder), python=PYTHON, gpu=on_gpu) as server:
            seconds = asyncio.run(_measure(server.url, 2 if session.quick else 5))
    yield Case(
        "strength change", f"queue to first step, {session.device.type}, U-Net and text encoder patched",
        [Row(name, Timing.of(measured)) for name, measured in seconds.items()],
        "A new seed, with the strength unchanged, is the floor.")


async def _measure(url: str, rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {
        loader + step: [] for step in (", new strength", ", new seed") for loader in _LOADERS}
    async with aiohttp.ClientSession(url) as http, http.ws_connect(f"/ws?clientId={_CLIENT}") as socket:
        seed = 0
        for turn in range(rounds + 1):
            for loader in _LOADERS:
                new = 0.75 + turn / 100
                # The first run changes loaders; what is timed starts from a model that this one has patched.
                for step, strength in (("", 0.5), (", new strength", new), (", new seed", new)):
                    seed += 1
                    took = await _first_step(http, socket, _graph(loader, strength, seed))
                    if step and turn:  # the first turn warms up
                        seconds[loader + step].append(took)
    return seconds


async def _first_step(http: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse, graph: dict) -> float:
    """Queue the graph and see it through; seconds from queueing to the end of the sampler's first step."""
    began = time.perf_counter()
    async with http.post("/prompt", json={"prompt": graph, "client_id": _CLIENT}) as answer:
        accepted = await answer.json()
    if "prompt_id" not in accepted:
        raise RuntimeError(f"ComfyUI refused the graph: {json.dumps(accepted)}")
    first = None
    async for message in socket:
        if message.type is not aiohttp.WSMsgType.TEXT:
            continue
        event = message.json()
        if event["data"].get("prompt_id") != accepted["prompt_id"]:
            continue
        if event["type"] == "progress" and first is None:
            first = time.perf_counter() - began
        elif event["type"] == "execution_success":
            return first
        elif event["type"] == "execution_error":
            raise RuntimeError(f"{event['data']['node_type']}: {event['data']['exception_message']}")
    raise RuntimeError("ComfyUI closed the connection")


def _graph(loader: str, strength: float, seed: int) -> dict[str, Any]:
    nodes = json.loads(json.dumps(_LOADERS[loader]))
    nodes["lora"]["inputs"] |= {"strength_model": strength, "strength_clip": strength}
    return nodes | {
        "checkpoint": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": CHECKPOINT}},
        "text": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["lora", 1], "text": "Kazano Hiori"}},
        "latent": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "sampler": {"class_type": "KSampler", "inputs": {
            "model": ["lora", 0], "positive": ["text", 0], "negative": ["text", 0], "latent_image": ["latent", 0],
            "seed": seed, "steps": 1, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}},
        "picture": {"class_type": "VAEDecode", "inputs": {"samples": ["sampler", 0], "vae": ["checkpoint", 2]}},
        "show": {"class_type": "PreviewImage", "inputs": {"images": ["picture", 0]}},
    }
