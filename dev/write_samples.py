"""Write the sample checkpoint and LoHa of a size, if they are not there: `python dev/write_samples.py sd15`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from kit.workspace import add_samples

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        add_samples(Path(folder), sys.argv[1])
    print(f"samples of size {sys.argv[1]} are there")
