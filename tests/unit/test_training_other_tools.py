"""The trainer's file in other tools: read by LyCORIS, and under the names that A1111 looks for."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lohas import sd15_rows
from safetensors import safe_open
from shinymas_loha.loha import files
from shinymas_loha.loha.module import Loha
from shinymas_loha.loha.training.models import Models, TextEncoder
from shinymas_loha.loha.training.network.loha_network import LohaNetwork
from shinymas_loha.loha.training.settings.hyper_parameters import TrainingSettings
from torch import nn

TESTS = Path(__file__).resolve().parent.parent
ROWS = sd15_rows()


def network(module_set: str) -> LohaNetwork:
    """A network on layers of SD 1.5's shapes, which have no memory."""
    with torch.device("meta"):
        layers = {
            row.kohya_name: nn.Linear(row.shape[1], row.shape[0]) if len(row.shape) == 2
            else nn.Conv2d(row.shape[1], row.shape[0], row.shape[2]) for row in ROWS
        }
    nothing = nn.Module()
    models = Models(nothing, None, TextEncoder(nothing, 12, None), layers, None, torch.device("cpu"))
    return LohaNetwork(models, TrainingSettings(network_rank=2, module_set=module_set))


@pytest.fixture(scope="module", params=["linear", "all"])
def trained(request, tmp_path_factory):
    """A saved file of the whole network, no factor of it zero."""
    made = network(request.param)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for factors in made.factors.values():
            factors.hada_w2_a.copy_(torch.randn(factors.hada_w2_a.shape, generator=generator))
    path = tmp_path_factory.mktemp("trained") / "trained.safetensors"
    files.save(Loha(made.modules_for_file(), metadata={"ss_network_module": "lycoris.kohya"}), path, torch.float32)
    return path, {"linear": 302, "all": 354}[request.param]


def test_lycoris_finds_every_module(trained):
    path, modules = trained
    read = subprocess.run([sys.executable, TESTS / "support" / "lycoris_read.py", path],
                          capture_output=True, text=True, encoding="utf-8", errors="replace")
    assert read.returncode == 0, read.stderr
    told = json.loads(read.stdout.splitlines()[-1])
    assert (told["unet"], told["text"], told["left"]) == (modules - 72, 72, [])
    assert told["kinds"] == ["LohaModule"]
    assert told["error"] < 1e-4


def test_a1111_finds_every_module(trained):
    path, modules = trained
    with safe_open(path, "pt") as file:
        names = {key.partition(".")[0] for key in file.keys()}  # noqa: SIM118
    assert len(names) == modules
    compvis = {row.weight.removeprefix("clip_l.").removesuffix(".weight").replace(".", "_"): row for row in ROWS}
    found = {name: compvis.get(a1111_name(name)) for name in names}
    assert {name for name, row in found.items() if row is None or row.kohya_name != name} == set()


_SUFFIXES = {"conv1": "in_layers_2", "conv2": "out_layers_3", "time_emb_proj": "emb_layers_1",
             "conv_shortcut": "skip_connection"}


def a1111_name(name: str) -> str:
    """The module that A1111 puts a kohya name on, in CompVis's names (extensions-builtin/Lora/networks.py)."""

    def inside(kind: str, rest: str) -> str:
        return _SUFFIXES.get(rest, rest) if kind == "resnets" else rest

    def block(kind: str) -> int:
        return 1 if kind == "attentions" else 0

    rules = (
        (r"lora_te_text_model_(.+)", lambda rest: f"transformer_text_model_{rest}"),
        (r"lora_unet_conv_in", lambda: "diffusion_model_input_blocks_0_0"),
        (r"lora_unet_conv_out", lambda: "diffusion_model_out_2"),
        (r"lora_unet_time_embedding_linear_(\d)", lambda at: f"diffusion_model_time_embed_{int(at) * 2 - 2}"),
        (r"lora_unet_down_blocks_(\d)_(attentions|resnets)_(\d)_(.+)", lambda level, kind, at, rest:
            f"diffusion_model_input_blocks_{1 + int(level) * 3 + int(at)}_{block(kind)}_{inside(kind, rest)}"),
        (r"lora_unet_mid_block_(attentions|resnets)_(\d)_(.+)", lambda kind, at, rest:
            f"diffusion_model_middle_block_{1 if kind == 'attentions' else int(at) * 2}_{inside(kind, rest)}"),
        (r"lora_unet_up_blocks_(\d)_(attentions|resnets)_(\d)_(.+)", lambda level, kind, at, rest:
            f"diffusion_model_output_blocks_{int(level) * 3 + int(at)}_{block(kind)}_{inside(kind, rest)}"),
        (r"lora_unet_down_blocks_(\d)_downsamplers_0_conv", lambda level:
            f"diffusion_model_input_blocks_{3 + int(level) * 3}_0_op"),
        (r"lora_unet_up_blocks_(\d)_upsamplers_0_conv", lambda level:
            f"diffusion_model_output_blocks_{2 + int(level) * 3}_{2 if int(level) > 0 else 1}_conv"),
    )
    for pattern, made in rules:
        if match := re.fullmatch(pattern, name):
            return made(*match.groups())
    return ""
