"""Whether this tree computes the bits that another revision does: `python dev/same_bits.py REVISION`.

Both trees, each in a process of its own, do the same on the sample models through the nodes that people use:
every weight of U-Net and text encoder under a LoHa (and under one with Tucker and DoRA modules) at three
strengths, and the factors that a short training run writes. Prints one line each; ends with 1 where any differs.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kit.workspace import CHECKPOINT, COMFYUI, LOHA, PYTHON, ROOT, add_samples

_STRENGTHS = (1.0, 0.37, -1.5)
_SEED = 7
_CONFIG = """
[training]
output_name = "bits"
max_train_epochs = 2
max_token_length = 75
train_batch_size = 2
resolution = 64
min_bucket_reso = 64
max_bucket_reso = 64
shuffle_caption = true
min_snr_gamma = 5
seed = 7
network_module = "lycoris.kohya"
network_dim = 4
network_args = ["algo=loha", "conv_dim=4", "use_tucker=True", "rank_dropout=0.1"]
optimizer_type = "AdamW"
lr_scheduler = "custom"
save_precision = "float"
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revision", help="of this repository: a commit, a tag, a branch")
    parser.add_argument("--worker", type=Path, metavar="TREE", help=argparse.SUPPRESS)
    parser.add_argument("--base", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(_digests(given.worker, given.base)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        other, base = Path(folder) / "other", Path(folder) / "base"
        add_samples(base, "tests")
        _pictures(base / "input" / "1_girl")
        subprocess.run(["git", "worktree", "add", "--detach", "-q", other, given.revision], cwd=ROOT, check=True)
        try:
            theirs, ours = (_in_process(tree, base, given.revision) for tree in (other, ROOT))
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", other], cwd=ROOT, check=True)
    for name in theirs.keys() | ours.keys():
        print(f"{name}: {'same' if theirs.get(name) == ours.get(name) else 'DIFFERENT'} ({ours.get(name, '')[:16]})")
    return int(theirs != ours)


def _in_process(tree: Path, base: Path, revision: str) -> dict[str, str]:
    command = [PYTHON, __file__, revision, "--worker", str(tree), "--base", str(base)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _pictures(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True)
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"girl {number}, smile", encoding="utf-8")


def _digests(tree: Path, base: Path) -> dict[str, str]:
    """What one tree computes: name → sha256."""
    sys.path.insert(0, str(COMFYUI))
    from comfy.cli_args import args

    args.cpu, args.base_directory = True, str(base)
    import comfy.sd
    import torch

    spec = importlib.util.spec_from_file_location(
        "shinymas_loha", tree / "__init__.py", submodule_search_locations=[str(tree)])
    pack = sys.modules["shinymas_loha"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    # Not through the extension: it asks for the server.
    nodes = importlib.import_module("shinymas_loha.nodes")

    torch.set_num_threads(1)
    found = {}
    with torch.inference_mode():
        path = base / "models" / "checkpoints" / CHECKPOINT
        model, clip = comfy.sd.load_checkpoint_guess_config(str(path))[:2]
        loras = base / "models" / "loras"
        _mixed(loras / LOHA, loras / "mixed.safetensors")
        for name in (LOHA, "mixed.safetensors"):
            loha = nodes.LoadLoha.execute(name).result[0]
            for strength in _STRENGTHS:
                patched = nodes.ApplyLoha.execute(model, loha, strength, strength, True, clip).result
                found[f"{name} at {strength}"] = _weights(patched[0], patched[1].patcher)
    found["a training run"] = _trained(tree, base)
    return found


def _mixed(source: Path, target: Path) -> None:
    """The sample with DoRA scales on every third module, so that the reference path runs too."""
    if target.exists():
        return
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(source)
    names = sorted(name.removesuffix(".hada_w1_a") for name in tensors if name.endswith(".hada_w1_a"))
    for name in names[::3]:
        rows = tensors[f"{name}.hada_w1_a"].shape[0]
        scales = torch.rand(rows, 1, generator=torch.Generator().manual_seed(_SEED)) + 0.5
        tensors[f"{name}.dora_scale"] = scales
    save_file(tensors, target)


def _weights(*patchers: Any) -> str:
    """Digest of the weights that these ModelPatchers patch; they are as before afterwards.

    Not of all: what a checkpoint leaves out (a text projection) is whatever memory held.
    """
    merged = {}
    for place, patcher in enumerate(patchers):
        patcher.patch_model()
        weights = patcher.model.state_dict()
        merged |= {f"{place}.{name}": weights[name].clone() for name in patcher.patches}
        patcher.unpatch_model()
    return _digest(merged)


def _trained(tree: Path, base: Path) -> str:
    """The factors that a run of the tree's command line writes; the metadata holds times."""
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "run.toml"
        config.write_text(_CONFIG, encoding="utf-8")
        subprocess.run(
            [PYTHON, tree / "train.py", config, "--data", base / "input", "--comfyui", COMFYUI, "--output", folder,
             "--checkpoint", base / "models" / "checkpoints" / CHECKPOINT, "--cpu"],
            check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
        return _digest(load_file(Path(folder) / "bits" / "bits.safetensors"))


def _digest(tensors: Mapping[str, Any]) -> str:
    """sha256 of names and bytes."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
