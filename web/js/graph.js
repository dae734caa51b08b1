// What the other files ask of the graph on the canvas. The server names a node by its path: "5", or "7:5" in subgraph 7.
import { app } from "../../../scripts/app.js";

// Every node of the graph, subgraphs included, whichever of them the person looks at: [node, path].
export function* nodesWithPaths(graph = app.rootGraph ?? app.graph, inside = "") {
  for (const node of graph?.nodes ?? []) {
    yield [node, inside + node.id];
    if (node.subgraph) yield* nodesWithPaths(node.subgraph, `${inside}${node.id}:`);
  }
}

export function nodeAt(path) {
  for (const [node, its] of nodesWithPaths()) if (its === path) return node;
  return undefined;
}

// Where the front end keeps a node's output, beside the pictures: by path, or by subgraph and id.
function outputKeys(node, path) {
  const graph = node.graph;
  return graph && graph.isRootGraph === false ? [`${graph.id}:${node.id}`, path] : [path];
}

export function keptOutput(node, path) {
  const kept = app.nodeOutputs ?? {};
  return kept[outputKeys(node, path).find((key) => kept[key])];
}

// As the front end does with what a run sends: for the canvas, and for the tab to come back to.
export function keepOutput(node, path, output) {
  if (app.nodeOutputs) app.nodeOutputs[outputKeys(node, path)[0]] = output;
  const tab = app.extensionManager.workflow?.activeWorkflow?.changeTracker;
  if (tab) tab.nodeOutputs = { ...tab.nodeOutputs, [path]: output };
}

// After a tab switch, an undo or a page loaded anew the nodes are new, and the kept outputs come back last of all:
// no hook that every front end has is late enough.
export function afterLoading(then) {
  const load = app.loadGraphData;
  app.loadGraphData = async function (...args) {
    const result = await load.apply(this, args);
    then();
    return result;
  };
}

// Calls `then` with each new node of this type.
export function whenCreated(nodeType, then) {
  const { onNodeCreated } = nodeType.prototype;
  nodeType.prototype.onNodeCreated = function (...args) {
    const result = onNodeCreated?.apply(this, args);
    then(this);
    return result;
  };
}
