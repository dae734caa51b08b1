// Draws the loss in Train LoHa while it runs: each step faint, a running mean over it.
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

const NODE = "ShinyMasTrainLoha";
const NAME = "shinymas_loss";
const [WIDTH, HEIGHT] = [400, 160];
const MOST = 4000; // points kept: a long run is thinned out, not cut

function addChart(node) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [WIDTH, HEIGHT];
  Object.assign(canvas.style, { width: "100%", height: "100%", minHeight: "120px", background: "#fff" });
  const widget = node.addDOMWidget(NAME, NAME, canvas, { serialize: false, getMinHeight: () => 140 });
  widget.serialize = false;
  node.shinymasLoss = { canvas, points: [], total: 1 };
}

function draw({ canvas, points, total }) {
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, WIDTH, HEIGHT);
  if (!points.length) return;
  const losses = points.map(([, loss]) => loss).filter(Number.isFinite);
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
    points.forEach(([step], at) => pen.lineTo(across(step), up(values[at])));
    pen.stroke();
  };
  const window = Math.max(1, Math.min(100, Math.floor(losses.length / 10)));
  let sum = 0;
  const mean = losses.map((loss, at) => {
    sum += loss - (at >= window ? losses[at - window] : 0);
    return sum / Math.min(at + 1, window);
  });
  line("#cfd8e3", 1, losses);
  line("#144384", 2, mean);
  pen.fillStyle = "#333";
  pen.font = "11px sans-serif";
  pen.fillText(`loss ${mean.at(-1).toFixed(4)} · step ${points.at(-1)[0]} of ${total}`, 6, 12);
}

app.registerExtension({
  name: "shinymas.training",
  setup() {
    api.addEventListener("shinymas.training", ({ detail }) => {
      const chart = app.graph.getNodeById(Number(detail.node))?.shinymasLoss;
      if (!chart) return;
      const first = detail.points[0][0];
      // A step that was seen already means that another run began.
      if (chart.points.length && chart.points.at(-1)[0] >= first) chart.points = [];
      chart.points.push(...detail.points);
      chart.total = detail.total;
      if (chart.points.length > MOST) chart.points = chart.points.filter((_, at) => at % 2 === 0);
      draw(chart);
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
