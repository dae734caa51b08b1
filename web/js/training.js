// Draws the loss in Train LoHa while it runs, and afterwards: as it came, faint, and a running mean over it.
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { keepOutput, nodeAt, whenCreated } from "./graph.js";
import { say } from "./view.js";

const NODE = "ShinyMasTrainLoha";
const NAME = "shinymas_loss";
const [WIDTH, HEIGHT] = [400, 160];
const [LEFT, RIGHT, TOP, BOTTOM] = [46, WIDTH - 8, 8, HEIGHT - 20]; // what the axes leave to the curve

function svg(name, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

function addChart(node) {
  const box = document.createElement("div");
  const line = document.createElement("div");
  const chart = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}` });
  box.className = "shinymas-chart";
  line.className = "shinymas-line";
  box.append(line, chart);
  const widget = node.addDOMWidget(NAME, NAME, box, { serialize: false, getMinHeight: () => 190 });
  widget.serialize = false;
  node.shinymasLoss = { line, chart, points: [], total: 1, validation: [] };
  draw(node.shinymasLoss);
}

// A running mean over a tenth of the points.
function means(losses) {
  const window = Math.max(1, Math.floor(losses.length / 10));
  let sum = 0;
  return losses.map((loss, at) => {
    sum += loss - (at >= window ? losses[at - window] : 0);
    return sum / Math.min(at + 1, window);
  });
}

// What the axis of the losses shows. One wild step must not flatten all the others; every validation is in it.
function range(losses, found) {
  const sorted = [...losses].sort((a, b) => a - b);
  const low = Math.min(sorted[0], ...found);
  const high = Math.max(sorted[Math.floor(0.99 * (sorted.length - 1))], ...found);
  return high > low ? [low, high] : [low - 0.05, low + 0.05];
}

// The loss on pictures that are not trained on: a dot each time, a ring about the best.
function validated(validation, across, up) {
  if (!validation.length) return [];
  const places = validation.map(([step, loss]) => [across(step).toFixed(1), up(loss).toFixed(1)]);
  const losses = validation.map(([, loss]) => loss);
  const [x, y] = places[losses.indexOf(Math.min(...losses))];
  return [
    svg("polyline", { class: "validation", points: places.map((place) => place.join(",")).join(" ") }),
    ...places.map(([cx, cy]) => svg("circle", { class: "dot", cx, cy, r: 2 })),
    svg("circle", { class: "best", cx: x, cy: y, r: 5 }),
  ];
}

function draw({ chart, points, total, validation = [] }) {
  const shown = points.filter(([, loss]) => Number.isFinite(loss));
  const losses = shown.map(([, loss]) => loss);
  const axes = svg("path", { class: "axis", d: `M${LEFT} ${TOP}V${BOTTOM}H${RIGHT}` });
  if (!shown.length) {
    chart.replaceChildren(axes);
    return;
  }
  const found = validation.map(([, loss]) => loss).filter(Number.isFinite);
  const [low, high] = range(losses, found);
  const across = (step) => LEFT + (total > 1 ? (step - 1) / (total - 1) : 0) * (RIGHT - LEFT);
  const up = (loss) => BOTTOM - Math.min(1, Math.max(0, (loss - low) / (high - low))) * (BOTTOM - TOP);
  const curve = (name, values) => svg("polyline", {
    class: name, points: shown.map(([step], at) => `${across(step).toFixed(1)},${up(values[at]).toFixed(1)}`).join(" "),
  });
  const marks = [low, (low + high) / 2, high].map((loss) => svg(
    "text", { x: LEFT - 4, y: up(loss) + 3.5, "text-anchor": "end" }, loss.toPrecision(3)));
  const middle = Math.round((total + 1) / 2);
  const steps = [[1, "start"], ...(total > 4 ? [[middle, "middle"]] : []), ...(total > 1 ? [[total, "end"]] : [])];
  marks.push(...steps.map(([step, anchor]) => svg(
    "text", { x: across(step), y: BOTTOM + 14, "text-anchor": anchor }, step === 1 ? "step 1" : String(step))));
  chart.replaceChildren(
    axes, curve("each", losses), curve("mean", means(losses)), ...validated(validation, across, up), ...marks);
}

// The curve that came with what a node said, so that both come back together.
export function showCurve(node, output) {
  const [curve] = output?.shinymas_curve ?? [];
  if (!curve || !node.shinymasLoss) return;
  node.shinymasLoss.line.textContent = "";
  draw(Object.assign(node.shinymasLoss, curve));
}

// Each message holds the whole run, so that a page loaded in the middle of it needs nothing else.
function onMessage({ detail: { node: path, points, total, validation, line, output } }) {
  const node = nodeAt(path);
  const loss = node?.shinymasLoss;
  if (!loss) return;
  loss.line.textContent = line ?? "";
  draw(Object.assign(loss, { points, total, validation }));
  // Of a run that ended early ComfyUI keeps nothing; of one that goes on, the one before says nothing any more.
  const kept = output ?? { text: [""] };
  keepOutput(node, path, kept);
  say(node, kept);
}

app.registerExtension({
  name: "shinymas.training",
  setup() {
    api.addEventListener("shinymas.training", onMessage);
  },
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name === NODE) whenCreated(nodeType, addChart);
  },
});
