// Shows what a node of this pack said in its last run, in the node itself.
import { app } from "../../../scripts/app.js";

const SHOWN = new Set([
  "ShinyMasCharacterPrompt", "ShinyMasLoadLoha", "ShinyMasApplyLoha", "ShinyMasTrainingData",
  "ShinyMasTrainingSettings", "ShinyMasTrainLoha", "ShinyMasSaveLoha",
]);
const NAME = "shinymas_said";

function addView(node) {
  const area = document.createElement("textarea");
  area.className = "comfy-multiline-input shinymas-said";
  area.readOnly = true;
  area.placeholder = "…";
  // Nodes 2.0 leaves the size to the element; the canvas keeps 80 less its margins.
  Object.assign(area.style, { width: "100%", height: "100%", minHeight: "60px" });
  const widget = node.addDOMWidget(NAME, NAME, area, {
    // What a run said is no setting: it stays out of the prompt (here) and of the saved graph (below).
    serialize: false,
    getValue: () => area.value,
    setValue: (text) => {
      area.value = text;
    },
    getMinHeight: () => 80,
  });
  widget.serialize = false;
}

app.registerExtension({
  name: "shinymas.said",
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
      const view = this.widgets?.find((widget) => widget.name === NAME);
      if (view && output?.text) view.value = [].concat(output.text).join("\n");
    };
  },
});
