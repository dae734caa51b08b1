// Draws the loss in Train LoHa while it runs: as it came, faint, and a running mean over it.
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { nodeAt } from "./graph.js";

const NODE = "ShinyMasTrainLoha";
const NAME = "shinymas_loss";
const [WIDTH, HEIGHT] = [400, 160];
const SHARP = 2; // pixels for each unit of WIDTH and HEIGHT: the view is zoomed

function addChart(node) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [WIDTH * SHARP, HEIGHT * SHARP];
  canvas.getContext("2d").scale(SHARP, SHARP);
  Object.assign(canvas.style, {
    width: "100%", height: "100%", minHeight: "120px", objectFit: "contain", background: "#fff",
  });
  const widget = node.addDOMWidget(NAME, NAME, canvas, { serialize: false, getMinHeight: () => 140 });
  widget.serialize = false;
  node.shinymasLoss = { canvas, points: [], total: 1 };
}

function draw({ canvas, points, total }) {
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, WIDTH, HEIGHT);
  const shown = points.filter(([, loss]) => Number.isFinite(loss));
  if (!shown.length) return;
  const losses = shown.map(([, loss]) => loss);
  const sorted = [...losses].sort((a, b) => a - b);
  // One wild step must not flatten all the others.
  const [low, high] = [sorted[0], sorted[Math.floor(0.99 * (sorted.length - 1))]];
  const span = high > low ? high - low : 1;
  const across = (step) => (step / total) * WIDTH;
  const up = (loss) => HEIGHT - 16 - Math.min(1, (loss - low) / span) * (HEIGHT - 32);
  const line = (colour, width, values) => {
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.beginPath();
    shown.forEach(([step], at) => pen.lineTo(across(step), up(values[at])));
    pen.stroke();
  };
  const window = Math.max(1, Math.floor(losses.length / 10));
  let sum = 0;
  const mean = losses.map((loss, at) => {
    sum += loss - (at >= window ? losses[at - window] : 0);
    return sum / Math.min(at + 1, window);
  });
  line("#cfd8e3", 1, losses);
  line("#144384", 2, mean);
  pen.fillStyle = "#333";
  pen.font = "11px sans-serif";
  pen.fillText(`loss ${mean.at(-1).toFixed(4)} · step ${shown.at(-1)[0]} of ${total}`, 6, 12);
}

app.registerExtension({
  name: "shinymas.training",
  setup() {
    // Each message holds the whole run, so that a page loaded in the middle of it needs nothing else.
    api.addEventListener("shinymas.training", ({ detail: { node, points, total } }) => {
      const chart = nodeAt(node)?.shinymasLoss;
      if (chart) draw(Object.assign(chart, { points, total }));
    });
  },
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name !== NODE) return;
    const { onNodeCreated } = nodeType.prototype;
    nodeType.prototype.onNodeCreated = function (...args) {
      const result = onNodeCreated?.apply(this, args);
      addChart(this);
      return result;
    };
  },
});
