"""Pack what a GPU machine without a network lacks into .gpu-kit/: `make gpu-kit`.

Into it go this tree, a ComfyUI, two LyCORIS and the packages of requirements-gpu.txt, each as one archive; dev/gpu.sh
unpacks them there. What is downloaded stays in .tools/gpu-wheels for the next time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
KIT = ROOT / ".gpu-kit"
WHEELS = ROOT / ".tools" / "gpu-wheels"
REQUIREMENTS = ROOT / "dev" / "requirements-gpu.txt"
LIMIT = 58_000_000

# The last of the series that trainers use, and the newest, which has fused kernels.
LYCORIS = {"lycoris-eager": "lycoris-lora==3.4.0", "lycoris-fused": "lycoris-lora==4.1.3"}
_PYTHON = ("--python-version", "3.12", "--implementation", "cp", "--abi", "cp312", "--abi", "abi3", "--abi", "none")
_PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (39, 35, 34, 31, 28, 27, 24, 17, 12)] + [
    "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "any"]

# Machine code for other machines than CUDA 13's. comfy-kitchen's is 104 MB of kernels for weights in 4 and 8 bits.
_UNUSED_CODE = ("comfy_kitchen/backends/cuda/_C.abi3.so", "comfy_aimdo/aimdo_rocm.so")
_BITSANDBYTES_KEPT = ("libbitsandbytes_cpu.so", "libbitsandbytes_cuda130.so")
# Of a ComfyUI: what somebody else keeps in it, and what no server without a front end reads.
_COMFYUI_LEFT_OUT = {
    ".git", ".ci", ".github", ".venv", "venv", "blueprints", "custom_nodes", "input", "models", "output",
    "script_examples", "temp", "tests", "tests-unit", "user",
}
# Tokenizers of other models than SD 1.5; the largest file of SD 1.5's has 1.06 MB.
_COMFYUI_LARGEST = 1_200_000


class KitError(RuntimeError):
    """The kit cannot be packed; the text is one sentence."""


def pack(comfyui: Path) -> dict[str, int]:
    """Write the kit and return name → bytes of each part. Raises KitError where it is too large."""
    if not (comfyui / "main.py").is_file():
        raise KitError(f"{comfyui} is no ComfyUI: it has no main.py; set COMFYUI_DIR to one.")
    for old in (KIT.iterdir() if KIT.exists() else ()):
        if old.name != "site.tar.xz":  # takes a minute, and changes with requirements-gpu.txt alone
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    KIT.mkdir(exist_ok=True)
    download([line for line in REQUIREMENTS.read_text().splitlines() if line and line[0] != "#"], WHEELS / "site")
    _write_site(KIT / "site.tar.xz", sorted((WHEELS / "site").glob("*.whl")))
    for name, requirement in LYCORIS.items():
        download([requirement], WHEELS / name)
        with tarfile.open(KIT / f"{name}.tar.xz", "w:xz") as archive:
            _add_wheels(archive, (WHEELS / name).glob("*.whl"))
    _write_files(KIT / "comfyui.tar.xz", comfyui, comfyui_files(comfyui))
    _write_files(KIT / "tree.tar.xz", ROOT, tree_files())
    shutil.copy(ROOT / "dev" / "gpu.sh", KIT / "gpu.sh")
    (KIT / "kit.json").write_text(json.dumps(_facts(comfyui), indent=1), encoding="utf-8")
    sizes = {path.name: path.stat().st_size for path in sorted(KIT.iterdir())}
    check_size(sizes)
    return sizes


def check_size(sizes: dict[str, int], limit: int = LIMIT) -> None:
    """Raise KitError, naming the largest part, where the parts (name → bytes) are more than `limit` together."""
    total = sum(sizes.values())
    if total > limit:
        largest = max(sizes, key=sizes.__getitem__)
        raise KitError(f"The kit has {total / 1e6:.1f} MB and may have {limit / 1e6:.1f}: its largest part is "
                       f"{largest} with {sizes[largest] / 1e6:.1f} MB.")


def download(requirements: list[str], folder: Path) -> None:
    """Bring exactly these wheels into `folder`, with pip as it is set up here; nothing where they are there already."""
    stamp = folder / "stamp"
    wanted = "\n".join(requirements)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    platforms = [part for name in _PLATFORMS for part in ("--platform", name)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", *_PYTHON, *platforms,
         "--dest", str(folder), *requirements], capture_output=True, text=True, check=False)
    if done.returncode:
        raise KitError(f"pip could not download the wheels: {done.stderr.strip().splitlines()[-1]}")
    stamp.write_text(wanted)


def is_kept(member: str) -> bool:
    """Whether a file of a wheel goes into the kit."""
    path = PurePosixPath(member)
    if path.parts[0] == "bitsandbytes" and path.suffix == ".so":
        return path.name in _BITSANDBYTES_KEPT
    return member not in _UNUSED_CODE


def comfyui_files(comfyui: Path) -> Iterator[Path]:
    """What a server needs of this ComfyUI: no models, no pictures, no nodes of others, no large data."""
    for folder, folders, files in os.walk(comfyui):
        at_top = Path(folder) == comfyui
        folders[:] = sorted(
            name for name in folders
            if name != "__pycache__" and not (at_top and name in _COMFYUI_LEFT_OUT))
        for name in sorted(files):
            path = Path(folder, name)
            if path.stat().st_size <= _COMFYUI_LARGEST and path.suffix != ".pyc" and not path.is_symlink():
                yield path


def tree_files() -> Iterator[Path]:
    """The working tree as it is, changes that are not committed included; nothing that git ignores."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                            capture_output=True, text=True, check=True).stdout
    return (path for name in sorted(set(listed.split("\0")) - {""}) if (path := ROOT / name).is_file())


def _write_site(target: Path, wheels: list[Path]) -> None:
    """All wheels unpacked over one another: compressed together they are a fifth smaller than apart."""
    wanted = "\n".join([*(wheel.name for wheel in wheels), *_UNUSED_CODE, *_BITSANDBYTES_KEPT])
    stamp = WHEELS / "site-packed"
    if target.exists() and stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"packing {len(wheels)} packages (about a minute)", flush=True)
    stamp.unlink(missing_ok=True)
    with tarfile.open(target, "w:xz", preset=7) as archive:
        _add_wheels(archive, wheels)
    stamp.write_text(wanted)


def _add_wheels(archive: tarfile.TarFile, wheels: Iterable[Path]) -> None:
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as opened:
            for member in opened.infolist():
                if member.is_dir() or not is_kept(member.filename):
                    continue
                entry = tarfile.TarInfo(member.filename)
                entry.size, entry.mode = member.file_size, 0o644
                with opened.open(member) as data:
                    archive.addfile(entry, data)


def _write_files(target: Path, base: Path, files: Iterable[Path]) -> None:
    with tarfile.open(target, "w:xz") as archive:
        for path in files:
            archive.add(path, path.relative_to(base).as_posix(), recursive=False)


def _facts(comfyui: Path) -> dict[str, str]:
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True,
                            check=False).stdout.strip()
    version = (comfyui / "comfyui_version.py").read_text(encoding="utf-8").rpartition("=")[2].strip(' "\n')
    return {"commit": commit, "comfyui": version, "packed": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--comfyui", type=Path, required=True, help="ComfyUI's own folder")
    given = parser.parse_args()
    try:
        sizes = pack(given.comfyui.resolve())
    except KitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name, size in sizes.items():
        print(f"{size / 1e6:7.2f} MB  {name}")
    print(f"{sum(sizes.values()) / 1e6:7.2f} MB  in {KIT.relative_to(ROOT)}/; on the other side: bash dev/gpu.sh all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
