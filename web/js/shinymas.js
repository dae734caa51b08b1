// Shows what a node of this pack said in its last run, in the node itself, for as long as its picture stays.
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { afterLoading, keepOutput, keptOutput, nodeAt, nodesWithPaths } from "./graph.js";

const SHOWN = new Set([
  "ShinyMasCharacterPrompt", "ShinyMasLoadLoha", "ShinyMasApplyLoha", "ShinyMasTrainingData",
  "ShinyMasTrainingSettings", "ShinyMasTrainLoha", "ShinyMasSaveLoha",
]);
const NAME = "shinymas_said";
const RUNS = 64; // of the server's history that are looked through
const WARNING = { color: "#fff", background: "#9a3412" }; // 7.3 : 1, on a light page and on a dark one
const PLAIN = { color: "var(--input-text)", background: "transparent" };

function addView(node) {
  const box = document.createElement("div");
  const head = document.createElement("div");
  const area = document.createElement("textarea");
  box.className = "shinymas-view";
  head.className = "shinymas-head";
  area.className = "comfy-multiline-input shinymas-said";
  area.readOnly = true;
  area.placeholder = "…";
  // Nodes 2.0 leaves the size to the element; the canvas keeps 80 less its margins.
  Object.assign(box.style, { display: "flex", flexDirection: "column", width: "100%", height: "100%" });
  Object.assign(head.style, { flex: "none", padding: "2px 6px", borderRadius: "4px", font: "bold 11px sans-serif" });
  Object.assign(area.style, { flex: "1", width: "100%", minHeight: "60px" });
  box.append(head, area);
  const widget = node.addDOMWidget(NAME, NAME, box, {
    // What a run said is no setting: it stays out of the prompt (here) and of the saved graph (below).
    serialize: false,
    getValue: () => area.value,
    setValue: (text) => {
      area.value = text;
      showHead(head, text);
    },
    getMinHeight: () => 80,
  });
  widget.serialize = false;
  showHead(head, "");
}

// The counts of a report, so that a LoHa applied in part does not look like one applied whole.
function showHead(head, text) {
  const counts = /^modules: (\d+)\napplied: (\d+)\nskipped: (\d+)\nunknown: (\d+)(?:\n|$)/.exec(text);
  head.hidden = !counts;
  if (!counts) return;
  const [all, applied, skipped, unknown] = counts.slice(1).map(Number);
  head.textContent = `applied ${applied} of ${all} · skipped ${skipped} · unknown ${unknown}`;
  Object.assign(head.style, skipped || unknown ? WARNING : PLAIN);
}

function viewOf(node) {
  return SHOWN.has(node?.type) ? node.widgets?.find((widget) => widget.name === NAME) : undefined;
}

function say(node, output) {
  const view = viewOf(node);
  if (view && output?.text) view.value = [].concat(output.text).join("\n");
}

function sayAgain() {
  for (const [node, path] of nodesWithPaths()) say(node, keptOutput(node, path));
}

// A node's part of a prompt, as text: itself and all that it follows from, whatever the numbers of the nodes are.
function partOf(prompt, id) {
  const places = new Map();
  const nodes = [];
  const place = (one) => {
    if (!places.has(one)) {
      const at = places.size;
      places.set(one, at);
      const inputs = Object.entries(prompt[one].inputs).map(([name, value]) => [
        name, Array.isArray(value) && value[0] in prompt ? { from: place(value[0]), output: value[1] } : value]);
      nodes[at] = [prompt[one].class_type, inputs];
    }
    return places.get(one);
  };
  if (id in prompt) place(id);
  return JSON.stringify(nodes);
}

async function history(query) {
  const answer = await api.fetchApi(`/history${query}`);
  return answer.ok ? await answer.json() : {};
}

// Nothing is sent for a node that did not have to run again: what it said is then in the run in which it last did.
async function recall({ detail: { prompt_id: id } }) {
  const run = (await history(`/${id}`))[id];
  const [, , prompt, extra] = run?.prompt ?? [];
  if (!prompt || extra?.extra_pnginfo?.workflow?.id !== (app.rootGraph ?? app.graph).id) return;
  const silent = [];
  for (const [node, path] of nodesWithPaths()) {
    if (!viewOf(node) || prompt[path]?.class_type !== node.type) continue;
    const part = partOf(prompt, path);
    if (!run.outputs[path]?.text && node.shinymasSaid !== part) silent.push([node, path, part]);
    else node.shinymasSaid = part;
  }
  if (!silent.length) return;
  const earlier = Object.values(await history(`?max_items=${RUNS}`)).reverse();
  for (const [node, path, part] of silent) {
    const said = earlier.find((one) => one.outputs[path]?.text && partOf(one.prompt[2], path) === part);
    if (!said) continue;
    node.shinymasSaid = part;
    keepOutput(node, path, said.outputs[path]);
    say(node, said.outputs[path]);
  }
}

// Front ends before the errors tab let half a graph run, and say nothing of the half that the server refused.
function tellOfRefusedHalves() {
  const { setting, toast } = app.extensionManager;
  if (setting.get("Comfy.RightSidePanel.ShowErrorsTab") !== undefined) return;
  const queue = api.queuePrompt;
  api.queuePrompt = async function (...args) {
    const answer = await queue.apply(this, args);
    const refused = Object.entries(answer?.node_errors ?? {});
    if (refused.length && [...nodesWithPaths()].some(([node]) => viewOf(node))) {
      const lines = refused.flatMap(([path, { class_type: kind, errors }]) => errors.map(
        ({ message, details }) => `${nodeAt(path)?.title ?? kind}: ${details || message}`));
      toast.add({ severity: "error", summary: "A part of the graph does not run", detail: lines.join("\n") });
    }
    return answer;
  };
}

app.registerExtension({
  name: "shinymas.said",
  setup() {
    afterLoading(sayAgain);
    api.addEventListener("execution_success", recall);
    tellOfRefusedHalves();
  },
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!SHOWN.has(nodeData.name)) return;
    const { onNodeCreated, onExecuted } = nodeType.prototype;
    nodeType.prototype.onNodeCreated = function (...args) {
      const result = onNodeCreated?.apply(this, args);
      addView(this);
      return result;
    };
    nodeType.prototype.onExecuted = function (output, ...args) {
      onExecuted?.call(this, output, ...args);
      say(this, output);
    };
  },
});
