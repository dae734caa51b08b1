"""The house: imports go down only, in no circle; small files; names that a stranger can tell apart."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from itertools import permutations
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# From the ground up. What stands on one line knows nothing of its neighbours.
FLOORS = (
    ("text",),
    ("loha", "characters"),
    ("patcher", "taggers"),
    ("nodes",),
)
# The same inside the library, by the first name below it.
LIBRARY = (
    ("errors", "scale", "factors"),
    ("module", "precision", "naming"),
    ("block_weights",),
    ("product", "targets"),
    ("foreign_kinds", "kernels", "files", "base_models"),
    ("fitting",),
    ("matching",),
    ("binding",),
    ("report",),
    ("overview",),
    ("training",),
)
TRAINING = (
    ("randomness",),
    ("settings",),
    ("data",),
    ("models",),
    ("network", "objective", "optimisation"),
    ("kohya",),
    ("run",),
)
FILES = sorted(path for folder in ("loha", "characters", "taggers", "patcher", "nodes")
               for path in (ROOT / folder).rglob("*.py"))
FILES.append(ROOT / "text.py")


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for path in FILES}


def _imports(name: str, *, whole: bool = False) -> set[str]:
    """Modules of the pack that a module imports when it is loaded; with `whole`, in its functions too."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if whole else (
        node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)))
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = [part for part in base if part]
            module = ".".join([*base, node.module] if node.module else base)
            for alias in node.names:
                one = f"{module}.{alias.name}" if module else alias.name
                found.add(one if one in MODULES else module)
    return found & MODULES.keys()


def _floor(name: str, floors: tuple[tuple[str, ...], ...], below: str) -> int | None:
    inside = name.removeprefix(f"{below}.") if below else name
    if below and inside == name:
        return None
    place = [number for number, rooms in enumerate(floors) if inside.partition(".")[0] in rooms]
    assert place, f"{name} stands on no floor"
    return place[0]


@pytest.mark.parametrize(("floors", "below"), [(FLOORS, ""), (LIBRARY, "loha"), (TRAINING, "loha.training")],
                         ids=["house", "library", "training"])
def test_no_import_goes_up_or_to_a_neighbour(floors, below):
    wrong = []
    for name in MODULES:
        mine = _floor(name, floors, below)
        for target in _imports(name, whole=True):
            theirs = _floor(target, floors, below)
            if mine is None or theirs is None:
                continue
            room = (name if not below else name.removeprefix(f"{below}.")).partition(".")[0]
            other = (target if not below else target.removeprefix(f"{below}.")).partition(".")[0]
            if theirs > mine or (theirs == mine and room != other):
                wrong.append(f"{name} imports {target}")
    assert not wrong


def test_no_circle():
    try:
        tuple(TopologicalSorter({name: _imports(name) - {name} for name in MODULES}).static_order())
    except CycleError as error:
        pytest.fail(f"a circle: {' → '.join(error.args[1])}")


def test_only_the_upper_floors_know_comfyui():
    comfyui = ("comfy", "folder_paths", "server", "nodes", "execution")
    for name, path in MODULES.items():
        if name.partition(".")[0] in ("patcher", "nodes"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else [
                alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [one for one in named if one.partition(".")[0] in comfyui], name


def test_casts_and_taggers_need_no_torch():
    for name, path in MODULES.items():
        if name.partition(".")[0] in ("characters", "taggers", "text"):
            assert not re.search(r"^\s*(import|from) torch\b", path.read_text(encoding="utf-8"), re.MULTILINE), name


def test_what_comfyui_keeps_inside_is_named_in_one_file():
    inside = ("current_weight_patches_uuid", ".hook_patches", "hook_backup", "cached_hook_patches", "model_lowvram",
              "weight_function", "LowVramPatch", "is_dynamic", ".backup", "patch_weight_to_device", "forced_hooks")
    for name, path in MODULES.items():
        if name == "patcher.comfyui":
            continue
        text = path.read_text(encoding="utf-8")
        found = [word for word in inside if word in text]
        # Training asks whether a weight is patched as it is used: then it does not fit as a whole.
        assert found in ([], ["weight_function"]) if name == "patcher.trainer.models" else not found, (name, found)


def test_files_are_rooms_and_not_halls():
    folders = ("loha", "characters", "taggers", "patcher", "nodes", "bench", "dev")
    long = {path: count for folder in folders for path in (ROOT / folder).rglob("*.py")
            if (count := len(path.read_text(encoding="utf-8").splitlines())) > 300}
    assert not long


def test_no_two_names_in_a_folder_differ_by_a_prefix_only():
    for folder in {path.parent for path in FILES}:
        names = [path.stem for path in folder.iterdir() if path.suffix == ".py" and path.stem != "__init__"]
        names += [path.name for path in folder.iterdir() if path.is_dir() and (path / "__init__.py").is_file()]
        for one, other in permutations(names, 2):
            assert not one.startswith(f"{other}_") and not one.endswith(f"_{other}"), (folder.name, one, other)


def test_the_command_line_trainer_needs_no_nodes():
    assert "shinymas_loha.nodes" not in (ROOT / "train.py").read_text(encoding="utf-8")
