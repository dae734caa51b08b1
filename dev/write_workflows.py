"""Write `workflows/*.json` anew: `python dev/write_workflows.py [FOLDER]`."""

import sys
from pathlib import Path

from kit import drawing_graphs, scene_graph, sheet_graph, training_graphs
from kit.workspace import ROOT

if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "workflows"
    drawing_graphs.write(folder)
    scene_graph.write(folder)
    sheet_graph.write(folder)
    training_graphs.write(folder)
