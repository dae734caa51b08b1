// Widgets that do not count look so; what is rarely touched is folded away on the canvas.
import { app } from "../../../scripts/app.js";
import { afterLoading, nodesWithPaths, whenCreated } from "./graph.js";
import { isLinked } from "./inputs.js";
import { warn } from "./view.js";
import { learnWords, word } from "./words.js";

// One that is filled stands for all.
const WHOLE = new Set(["config", "dataset"]);
const FOLD = "shinymas_fold";
const CONTROL = "control_after_generate"; // the page's, below a number

// Of each node, the widgets that change nothing. `value` is undefined where a link decides.
const UNUSED = {
  ShinyMasTrainingSettings: (value, names) => value("config")?.trim() ? names.filter((name) => name !== "config") : [
    ...(value("module_set") === "all" ? [] : ["conv_alpha"]),
    ...(value("train_unet") === false ? ["unet_lr"] : []),
    ...(value("train_text_encoder") === false ? ["text_encoder_rank", "text_encoder_alpha", "text_encoder_lr"] : []),
    ...(value("lr_scheduler") === "cosine_with_restarts" ? [] : ["lr_num_cycles"]),
    ...(["every_n_epochs", "every_n_steps", "at_first"].some((n) => value(`sample_${n}`) ?? 1) ? [] : ["sample_prompts"]),
  ],
  ShinyMasTrainingData: (value, names) => value("dataset")?.trim() ? names.filter((name) => name !== "dataset") :
    value("buckets") === false ? ["bucket_min", "bucket_max", "upscale"] : [],
  ShinyMasCharacterPrompt: (value) => value("pick") === "random" ? ["character"] : [
    "seed", CONTROL, ...(value("tags")?.startsWith(`${value("character")}:`) ? ["tag_set", "max_tags"] : [])],
  ShinyMasScene: (value, names, linked) => linked("latent") ? ["width", "height"] : [],
  ShinyMasCharacterList: (value) => [...(value("names")?.trim() ? ["unit"] : []),
    ...(value("run") === "whole cast" ? ["index", CONTROL] : [])],
  ShinyMasApplyLoha: (value, names, linked) => linked("clip") ? [] : ["strength_clip"],
};

function judge(node) {
  const linked = (name) => isLinked(node, name);
  const own = node.widgets.filter((widget) => node.shinymasFields.has(widget.name));
  const value = (name) => linked(name) ? undefined : own.find((widget) => widget.name === name)?.value;
  const unused = new Set(UNUSED[node.type](value, own.map((widget) => widget.name), linked));
  const changed = own.filter((widget) => !widget.disabled === unused.has(widget.name));
  for (const widget of changed) {
    const off = unused.has(widget.name);
    Reflect.set(widget, "disabled", off); // fixed for the control of a seed
    widget.options.disabled = off;
    const area = widget.element;
    if (area) {
      area.disabled = off;
      area.style.opacity = off ? "0.4" : "";
    }
  }
  if (changed.length) drawAgain(node);
  const whole = own.find((widget) => WHOLE.has(widget.name) && String(value(widget.name) ?? "").trim());
  if (node.shinymasFold) warn(node, whole ? word("# is filled: of this node only it counts", whole.label ?? whole.name) : "");
}

// 1.32's Nodes 2.0 copies a widget's options once and does not fold.
const isOld = (node) => !node.getLayoutWidgets;

function drawAgain(node) {
  if (isOld(node)) node.widgets = [...node.widgets];
  node.setDirtyCanvas?.(true, true);
}

// Nodes 2.0 folds by itself and has a button of its own; the canvas has a line in a menu that nobody finds.
function addFold(node, folded) {
  const rest = node.widgets.filter((widget) => folded.has(widget.name));
  if (!rest.length) return;
  const button = node.addWidget("button", FOLD, null, () => node.toggleAdvanced(),
    { serialize: false, canvasOnly: !isOld(node) });
  button.serialize = false;
  const { toggleAdvanced } = node;
  for (const widget of rest) {
    widget.advanced = true;
    // The canvas leaves room for what it does not show.
    let { computeSize } = widget;
    Object.defineProperty(widget, "computeSize", {
      get: () => node.showAdvanced ? computeSize : () => [0, -4],
      set: (size) => { computeSize = size; },
    });
  }
  node.shinymasFold = () => {
    button.label = word(node.showAdvanced ? "hide # settings" : "show # more settings", rest.length);
    if (isOld(node)) for (const widget of rest) widget.options.hidden = !node.showAdvanced;
    drawAgain(node);
  };
  node.toggleAdvanced = function () {
    toggleAdvanced.call(this);
    this.shinymasFold();
    this.setSize([this.size[0], this.computeSize()[1]]);
  };
  node.shinymasFold();
  learnWords().then(judgeAll);
}

// The canvas names a box of text only while it is empty: a small label above a filled one.
const LABEL_ROOM = 15;

function addLabels(node) {
  const boxes = node.widgets.filter((widget) => node.shinymasFields.has(widget.name) && widget.element);
  for (const widget of boxes) widget.options.margin = LABEL_ROOM;
  const { onDrawForeground } = node;
  node.onDrawForeground = function (pen, ...args) {
    onDrawForeground?.call(this, pen, ...args);
    if (this.flags.collapsed || app.canvas.ds.scale < 0.5) return;
    pen.save();
    pen.font = "11px sans-serif";
    pen.textAlign = "left";
    pen.fillStyle = LiteGraph.WIDGET_SECONDARY_TEXT_COLOR;
    for (const widget of boxes) {
      if (widget.value && isShown(this, widget)) pen.fillText(widget.label ?? widget.name, LABEL_ROOM, widget.y + LABEL_ROOM - 4);
    }
    pen.restore();
  };
}

const isShown = (node, widget) => !widget.hidden && !widget.options.hidden && (!widget.advanced || node.showAdvanced);

function judgeAll() {
  for (const [node] of nodesWithPaths()) {
    if (node.shinymasFields) judge(node);
    node.shinymasFold?.();
  }
}

app.registerExtension({
  name: "shinymas.widgets",
  setup() {
    afterLoading(judgeAll);
  },
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!(nodeData.name in UNUSED)) return;
    const inputs = Object.entries({ ...nodeData.input?.required, ...nodeData.input?.optional });
    const folded = new Set(inputs.filter(([, [, options]]) => options?.advanced).map(([name]) => name));
    const fields = new Set([...inputs.map(([name]) => name), CONTROL]);
    const { onConnectionsChange } = nodeType.prototype;
    whenCreated(nodeType, (node) => {
      node.shinymasFields = fields;
      for (const widget of node.widgets) {
        if (!fields.has(widget.name)) continue;
        const { callback } = widget;
        widget.callback = (...given) => {
          const answer = callback?.apply(widget, given);
          judge(node);
          return answer;
        };
      }
      addFold(node, folded);
      addLabels(node);
      judge(node);
    });
    nodeType.prototype.onConnectionsChange = function (...args) {
      const result = onConnectionsChange?.apply(this, args);
      if (this.shinymasFields) judge(this);
      return result;
    };
  },
});
