// The Character Prompt: a new node's seed stays, broken cast files are told, a refusal leaves nobody else's prompt.
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { forgetOutput, nodeAt, nodesWithPaths } from "./graph.js";
import { partOf } from "./shinymas.js";
import { empty, warn } from "./view.js";

const NODE = "ShinyMasCharacterPrompt";
let problems = []; // of cast files, when the lists were last read

function* promptNodes() {
  for (const one of nodesWithPaths()) if (one[0].type === NODE) yield one;
}

function learn(definition) {
  problems = definition?.input?.optional?.cast?.[1]?.shinymas_problems ?? [];
}

function forget(node, path) {
  forgetOutput(node, path);
  node.shinymasSaid = undefined;
  empty(node);
}

// As the server runs it: a seed that chooses nobody counts for nothing there.
function asRun(prompt) {
  const changed = Object.entries(prompt).map(([path, node]) => [
    path, node.class_type === NODE && node.inputs.pick === "selected" && Number.isInteger(node.inputs.seed)
      ? { ...node, inputs: { ...node.inputs, seed: 0 } } : node]);
  return Object.fromEntries(changed);
}

// What a node says is of an earlier run: it stays only where that run asked for the same.
function forgetOthers(prompt) {
  const asked = asRun(prompt ?? {});
  for (const [node, path] of promptNodes()) {
    if (!asked[path] || node.shinymasSaid !== partOf(asked, path)) forget(node, path);
  }
}

function watchRefusals() {
  const queue = api.queuePrompt;
  api.queuePrompt = async function (number, data, ...more) {
    let refused = true;
    try {
      const answer = await queue.call(this, number, data, ...more);
      refused = Object.keys(answer?.node_errors ?? {}).length > 0;
      return answer;
    } finally {
      if (refused) forgetOthers(data?.output);
    }
  };
  api.addEventListener("execution_error", ({ detail: { node_id: path } }) => {
    const node = nodeAt(path);
    if (node?.type === NODE) forget(node, path);
  });
}

app.registerExtension({
  name: "shinymas.prompt",
  setup: watchRefusals,
  refreshComboInNodes(definitions) {
    learn(definitions[NODE]);
    for (const [node] of promptNodes()) warn(node, problems.join("\n"));
  },
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name !== NODE) return;
    learn(nodeData);
    const { onNodeCreated, onExecuted } = nodeType.prototype;
    nodeType.prototype.onNodeCreated = function (...args) {
      const result = onNodeCreated?.apply(this, args);
      // Front ends let a new node's seed change after each run; a saved graph brings its own setting.
      const control = this.widgets?.find((widget) => widget.name === "control_after_generate");
      if (control) control.value = "fixed";
      warn(this, problems.join("\n"));
      return result;
    };
    nodeType.prototype.onExecuted = function (output, ...args) {
      onExecuted?.call(this, output, ...args);
      if (output?.problems) warn(this, output.problems.join("\n"));
    };
  },
});
