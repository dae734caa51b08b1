"""The benchmarks of `make bench`, one file a comparison, and what they share."""

import sys
from pathlib import Path

# The sample models and the server of `dev/kit`.
sys.path.append(str(Path(__file__).resolve().parents[2] / "dev"))
