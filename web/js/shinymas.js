// Shows what a node of this pack said in its last run, in the node itself, for as long as its picture stays.
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { afterLoading, keepOutput, keptOutput, nodeAt, nodesWithPaths, whenCreated } from "./graph.js";
import { LIVE } from "./live.js";
import { showLoha } from "./loha.js";
import { showCurve } from "./training.js";
import { addView, say, viewOf } from "./view.js";

const SHOWN = new Set([
  ...LIVE, "ShinyMasLoadLoha", "ShinyMasApplyLoha", "ShinyMasHookLoha", "ShinyMasTrainingData",
  "ShinyMasTrainingSettings", "ShinyMasTrainLoha", "ShinyMasSaveLoha", "ShinyMasCharacterList", "ShinyMasSheet",
  "ShinyMasTagImages", "ShinyMasTagStatistics", "ShinyMasRecognition",
]);
const HIGH = { ShinyMasScene: 300, ShinyMasCharacterPrompt: 140 }; // pixels that a view takes at least
const RUNS = 64; // of the server's history that are looked through

function show(node, output) {
  say(node, output);
  showCurve(node, output);
  showLoha(node, output);
}

function sayAgain() {
  for (const [node, path] of nodesWithPaths()) show(node, keptOutput(node, path));
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
    if (!viewOf(node) || LIVE.has(node.type) || prompt[path]?.class_type !== node.type) continue;
    const part = partOf(prompt, path);
    const said = run.outputs[path];
    if (!said?.text && node.shinymasSaid !== part) silent.push([node, path, part]);
    else node.shinymasSaid = part;
    // Tabs drop what comes before the prompt's answer.
    if (said?.text) keepOutput(node, path, said);
  }
  if (!silent.length) return;
  const earlier = Object.values(await history(`?max_items=${RUNS}`)).reverse();
  for (const [node, path, part] of silent) {
    const said = earlier.find((one) => one.outputs[path]?.text && partOf(one.prompt[2], path) === part);
    if (!said) continue;
    node.shinymasSaid = part;
    keepOutput(node, path, said.outputs[path]);
    show(node, said.outputs[path]);
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

// The server lists a pack's graphs as the disk does; here: the newest version first, the simple before the rare.
function sortTemplates() {
  const pack = decodeURIComponent(new URL(import.meta.url).pathname.split("/").at(-3));
  const rank = (name) => name.startsWith("pic") ? 4 : name.startsWith("train-") ? 3 : name.endsWith("-hook") ? 2 : /-v[\d.]+$/.test(name) ? 0 : 1;
  const order = (one, other) => rank(one) - rank(other) || (rank(one) ? 1 : -1) * one.localeCompare(other);
  const ask = api.getWorkflowTemplates;
  api.getWorkflowTemplates = async function (...args) {
    const templates = await ask.apply(this, args);
    templates?.[pack]?.sort?.(order);
    return templates;
  };
}

app.registerExtension({
  name: "shinymas.said",
  setup() {
    afterLoading(sayAgain);
    api.addEventListener("execution_success", recall);
    tellOfRefusedHalves();
    sortTemplates();
  },
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!SHOWN.has(nodeData.name)) return;
    const { onExecuted } = nodeType.prototype;
    whenCreated(nodeType, (node) => {
      addView(node, HIGH[nodeData.name]);
    });
    nodeType.prototype.onExecuted = function (output, ...args) {
      onExecuted?.call(this, output, ...args);
      show(this, output);
    };
  },
});
