"""Write `workflows/*.json` and `subgraphs/*.json` anew: `python dev/write_workflows.py [FOLDER]`."""

import sys
from pathlib import Path

from kit import blueprints, circle_graph, drawing_graphs, hook_graph, scene_graph, sheet_graph, training_graphs
from kit.workspace import ROOT

if __name__ == "__main__":
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    folder = root / "workflows"
    folder.mkdir(exist_ok=True)
    drawing_graphs.write(folder)
    hook_graph.write(folder)
    scene_graph.write(folder)
    sheet_graph.write(folder)
    training_graphs.write(folder)
    circle_graph.write(folder)
    blueprints.write(root / "subgraphs")
