#!/usr/bin/env bash
# Check and measure this pack on a machine with a GPU and no network:
#   bash dev/gpu.sh correctness|bench|tune|training|server|all ...
# Beside it lies the kit of `make gpu-kit` (.gpu-kit/ in the tree, or GPU_KIT); the kit's own copy of this script brings
# the tree along. PYTHON is a Python 3.12 that has torch and triton. Results go to OUT, .gpu-kit/out by default.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=$(command -v "${PYTHON:-python3}") || { echo "no Python: set PYTHON to one that has torch and triton" >&2; exit 1; }
if [ -f "$here/tree.tar.xz" ]; then kit=$here; else kit=${GPU_KIT:-$here/../.gpu-kit}; fi
[ -f "$kit/site.tar.xz" ] || { echo "no kit in $kit: run make gpu-kit where there is a network" >&2; exit 1; }
kit=$(cd "$kit" && pwd)
unpacked=${TMPDIR:-/tmp}/shinymas-gpu-kit-$(id -u)

# Not tar: it needs xz, which is not everywhere.
unpack() {
  local archive=$kit/$1.tar.xz folder=$unpacked/$1 sum
  sum=$(cksum <"$archive")
  if [ "$(cat "$folder.sum" 2>/dev/null)" != "$sum" ]; then
    rm -rf "$folder" && mkdir -p "$folder"
    "$python" -W ignore -m tarfile -e "$archive" "$folder" >/dev/null
    echo "$sum" >"$folder.sum"
  fi
}
for part in site lycoris-eager lycoris-fused comfyui; do unpack "$part"; done
tree=$here/..
if [ "$kit" = "$here" ]; then unpack tree; tree=$unpacked/tree; fi

export PYTHON=$python COMFYUI=$unpacked/comfyui GPU_KIT=$kit GPU_KIT_UNPACKED=$unpacked OUT=${OUT:-$kit/out}
export PYTHONPATH=$unpacked/site${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
mkdir -p "$OUT"
cd "$tree"
exec "$python" dev/gpu_run.py "$@"
