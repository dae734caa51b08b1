"""Files that people have beside kohya's, and that are no configuration of its scripts: what each is called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_INSTEAD = "write what it says with kohya's keys (network_dim = 16), or set the widgets"
_PRESET = ("a LyCORIS preset, which says what to train and not how: give a training configuration, and choose with "
           "module_set or module_filter")
# Top-level keys, all of which are there → what the file is.
_BY_KEYS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("training_method", "base_model_name"),
     f"a configuration of OneTrainer, whose keys mean other things: {_INSTEAD}"),
    (("nodes", "links"), "a ComfyUI workflow: drag it into ComfyUI"),
    (("peft_type",), "PEFT's description of a trained adapter, not of a training"),
    (("unet_target_module",), _PRESET),
    (("module_algo_map",), _PRESET),
    (("directory",), "a dataset of diffusion-pipe: write [[datasets]] with [[datasets.subsets]] and image_dir"),
    (("prompt",), "a file of sample prompts: write them as sample_prompts = [\"…\"]"),
    (("adapter", "model"), f"a configuration of diffusion-pipe, whose keys mean other things: {_INSTEAD}"),
    (("ss_network_module",), "the metadata of a trained file: train with its values, under kohya's keys"),
    (("job", "config"), f"a configuration of ai-toolkit, whose keys mean other things: {_INSTEAD}"),
)
# What is neither TOML nor JSON.
_BY_TEXT: tuple[tuple[str, str], ...] = (
    (r"(?m)^job:\s", f"a configuration of ai-toolkit, whose keys mean other things: {_INSTEAD}"),
    (r"(?m)^compute_environment:\s", "accelerate's own configuration, of machines and not of a training"),
    (r"(?m)^_base_:", f"a configuration of HCP-Diffusion, whose keys mean other things: {_INSTEAD}"),
    (r"(?m)\btrain_network\.py\b|^\s*--\w+", "a command line: write each option as a line, --network_dim 16 as "
                                             "network_dim = 16"),
    (r"\A\s*([\w.-]+:(\s.*)?(\n|\Z)|#.*\n)+", f"YAML, and kohya's configurations are TOML: {_INSTEAD}"),
)


def named_by_keys(tables: Mapping[str, Any]) -> str:
    """What a file with these top-level keys is, and what to do instead; "" where it is not known."""
    if any(isinstance(value, Mapping) and "class_type" in value for value in tables.values()):
        return "a ComfyUI prompt: drag it into ComfyUI"
    return next((what for keys, what in _BY_KEYS if tables.keys() >= set(keys)), "")


def named_by_text(text: str) -> str:
    """The same for text that no parser takes."""
    return next((what for pattern, what in _BY_TEXT if re.search(pattern, text)), "")
