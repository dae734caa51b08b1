"""Which files a run trains on, for the metadata: given by the command line, or found in the graph that is run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths

from ...loha.errors import FileError
from ...loha.files.hashes import HashLedger, OnBlock
from ...loha.training.run.metadata import BaseFiles
from ...text import show

_MODEL, _VAE = "MODEL", "VAE"
# Type of an output → inputs of loaders that name the file it comes from, and ComfyUI's folders that it may lie in. Of
# a VAE's the first that a loader has counts: beside it ckpt_name is the model's.
_NAMES = {
    _MODEL: {"ckpt_name": ("checkpoints",), "unet_name": ("diffusion_models", "unet_gguf")},
    _VAE: {"vae_name": ("vae",), "ckpt_name": ("checkpoints",)},
}
_ANYTHING = ("*", "COMFY_MATCHTYPE_V3")  # types of outputs that may be a model too: of reroutes and switches
_SECONDS = 0.5  # between two lines on how far it is


class Untraced(Exception):
    """Why nobody can say which file it is."""


def base_files(model: Path, vae: Path | None, ledger: Path) -> BaseFiles:
    """Names and hashes of these files, kept in the file `ledger`; `vae` is None where it is the model's own.

    Raises:
        FileError: one of them cannot be read.
    """
    hashes = HashLedger(ledger)
    return _base((*hashes.hashes(model), model.name), vae and (*hashes.hashes(vae), vae.name))


def base_of_graph(prompt: Mapping[str, Any] | None, node: str, ledger: Path,
                  say: Callable[[str], None]) -> tuple[BaseFiles, list[str]]:
    """What the graph loads into the inputs `model` and `vae` of `node`, and a note on each file that cannot be told.

    Args:
        prompt: as ComfyUI was sent it.
        ledger: file that hashes are kept in.
        say: is told how far it is; cancelling ends it with ComfyUI's exception.
    """
    hashes, notes = HashLedger(ledger), []
    files: dict[str, Path] = {}
    named: dict[str, tuple[str, str, str]] = {}
    for kind, words in ((_MODEL, "base model"), (_VAE, "VAE")):
        try:
            file = files[kind] = file_behind(prompt or {}, node, kind.lower(), kind)
            # A VAE of the model's own file is not named, as in kohya's scripts.
            if kind == _MODEL or file != files.get(_MODEL):
                named[kind] = *hashes.hashes(file, _progress(file.name, say)), file.name
        except (Untraced, FileError) as why:
            notes.append(f"{words}: the trained file tells no name and no hash of it: {why}")
    return _base(named.get(_MODEL), named.get(_VAE)), notes


def file_behind(prompt: Mapping[str, Any], node: str, name: str, kind: str) -> Path:
    """The one file that an input's MODEL or VAE comes from.

    Nodes in between are passed by all their links of that type, so that a merge of two checkpoints has two files.

    Raises:
        Untraced: none is named, or not by all that comes together in it, or there are several.
    """
    files: dict[Path, None] = {}
    waiting, seen = list(_links(prompt, node, kind, only=name)), set()
    if not waiting:
        raise Untraced("the graph that was sent does not show where it comes from")
    while waiting:
        source = waiting.pop()
        if source in seen:
            continue
        seen.add(source)
        named, links = list(_files(prompt[source], kind)), list(_links(prompt, source, kind))
        if not named and not links:
            raise Untraced(f"{_class(prompt[source])} names no file in the graph")
        files |= dict.fromkeys(named)
        waiting += links
    if len(files) > 1:
        raise Untraced(f"it comes from several files, {', '.join(sorted(show(file.name) for file in files))}")
    if not files:
        raise Untraced("no node names a file in the graph")
    return next(iter(files))


def _links(prompt: Mapping[str, Any], node: str, kind: str, only: str = "") -> Iterator[str]:
    """The nodes that something of this type may come from into `node`; with `only`, into that input."""
    for name, value in prompt.get(node, {}).get("inputs", {}).items():
        if (isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and value[0] in prompt
                and only in ("", name) and _type(prompt[value[0]], value[1]) in (kind, *_ANYTHING)):
            yield value[0]


def _type(node: Mapping[str, Any], slot: int) -> str:
    """Of a node's output; anything, where it is not known."""
    import nodes  # ComfyUI's

    types = getattr(nodes.NODE_CLASS_MAPPINGS.get(node.get("class_type")), "RETURN_TYPES", ())
    try:
        return str(types[slot])
    except (IndexError, TypeError):
        return _ANYTHING[0]


def _files(node: Mapping[str, Any], kind: str) -> Iterator[Path]:
    """Files that a loader names. Raises `Untraced` where one of its names is none of a file."""
    for name, folders in _NAMES[kind].items():
        value = node.get("inputs", {}).get(name)
        if value is None:
            continue
        if not isinstance(value, str):
            raise Untraced(f"{_class(node)} takes its {name} from another node")
        paths = (folder_paths.get_full_path(folder, value) for folder in folders)
        path = next(filter(None, paths), None)
        if path is None:
            raise Untraced(f"{_class(node)} names '{show(value)}', which is no file in ComfyUI's models folders")
        yield Path(path)
        if kind == _VAE:
            return


def _class(node: Mapping[str, Any]) -> str:
    return show(str(node.get("class_type", "")), 60)


def _base(model: tuple[str, str, str] | None, vae: tuple[str, str, str] | None) -> BaseFiles:
    """Of each file's old hash, sha256 and name."""
    nothing = ("", "", "")
    (model_hash, model_sha256, model_name), (vae_hash, vae_sha256, vae_name) = model or nothing, vae or nothing
    return BaseFiles(model_hash, model_sha256, vae_hash, vae_sha256, model_name, vae_name)


def _progress(name: str, say: Callable[[str], None]) -> OnBlock:
    told = time.monotonic()

    def on_block(done: int, total: int) -> None:
        nonlocal told
        comfy.model_management.throw_exception_if_processing_interrupted()
        if time.monotonic() - told >= _SECONDS:
            told = time.monotonic()
            say(f"hashing {show(name)}: {done * 100 // max(total, 1)} %")

    return on_block
