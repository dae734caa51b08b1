// What a node would get if it ran now: its widgets, and what links bring as far as the page can know it.
import { app } from "../../../scripts/app.js";
import { nodesWithPaths } from "./graph.js";

const SUBGRAPH_INPUT = "-10"; // the front end's own number for the node inside a subgraph that brings its inputs
const DEEPEST = 12;
const MUTED_OR_BYPASSED = [2, 4];

const slotOf = (node, name) => node.inputs?.findIndex((one) => one.name === name) ?? -1;
const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name);

// The node whose inside a subgraph is.
function holderOf(graph) {
  for (const [node] of nodesWithPaths()) if (node.subgraph === graph) return node;
  return undefined;
}

// A subgraph's own node answers with the links inside of it.
const linkTo = (node, slot) => LiteGraph.LGraphNode.prototype.getInputLink.call(node, slot);

// The value at an input's other end; undefined where only a run will know it.
function follow(node, slot, depth) {
  const link = linkTo(node, slot);
  if (!link || depth > DEEPEST) return undefined;
  if (String(link.origin_id) === SUBGRAPH_INPUT) {
    const holder = holderOf(node.graph);
    const outer = holder?.inputs[link.origin_slot];
    if (!outer) return undefined;
    return holder.isInputConnected(link.origin_slot) ? follow(holder, link.origin_slot, depth + 1)
      : widgetOf(holder, outer.widget?.name ?? outer.name)?.value;
  }
  const origin = node.graph.getNodeById(link.origin_id);
  if (!origin || MUTED_OR_BYPASSED.includes(origin.mode)) return undefined;
  if (origin.type === "Reroute") return follow(origin, 0, depth + 1);
  if (origin.type.startsWith("Primitive")) return origin.widgets?.[0]?.value;
  if (origin.type === "ShinyMasLoadLoha") return valueOf(origin, "lora_name", depth + 1);
  if (origin.type === "ShinyMasCharacterPrompt" && link.origin_slot === 0) return question(origin, depth + 1);
  return undefined;
}

function valueOf(node, name, depth) {
  return isLinked(node, name) ? follow(node, slotOf(node, name), depth) : widgetOf(node, name)?.value;
}

export function isLinked(node, name) {
  const slot = slotOf(node, name);
  return slot >= 0 && node.isInputConnected(slot);
}

// As the server's route takes it: the values of the node's inputs, and the names of those that are open until a run.
export function question(node, depth = 0) {
  const inputs = {};
  const open = [];
  const { required, optional } = node.constructor.nodeData?.input ?? {};
  for (const name of Object.keys({ ...required, ...optional })) {
    const value = valueOf(node, name, depth);
    // Only another prompt of ours may stand for a text; elsewhere it is a text that a run makes.
    if (value !== undefined && (typeof value !== "object" || name === "previous")) inputs[name] = value;
    else if (isLinked(node, name)) open.push(name);
  }
  return { inputs, open };
}

// As an edit by hand does: with the widgets' callbacks, and as one step for undo.
export function setValues(node, values) {
  for (const [name, value] of Object.entries(values)) {
    const widget = widgetOf(node, name);
    if (!widget || isLinked(node, name)) continue;
    widget.value = value;
    widget.callback?.(value);
  }
  node.setDirtyCanvas?.(true, true);
  const tracker = app.extensionManager.workflow?.activeWorkflow?.changeTracker;
  if (tracker?.captureCanvasState) tracker.captureCanvasState();
  else tracker?.checkState?.();
}
