// What a LoHa file is (Load LoHa) and what became of it (Apply LoHa), drawn above the text.
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { keepOutput, keptOutput, nodeAt } from "./graph.js";
import { say, viewOf } from "./view.js";

function make(name, attributes, ...inside) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...inside); // strings become text, never elements
  return element;
}

function list(pairs) {
  return make("dl", {}, ...pairs.flatMap(([what, text]) => [make("dt", {}, what), make("dd", {}, text)]));
}

// As wide as their shares.
function partsBar(parts) {
  const there = parts.filter(([, count]) => count > 0);
  const said = there.map(([part, count, why]) => [`${part}: ${count}`, ...why].join("\n"));
  return make("div", { class: "parts", role: "img", "aria-label": said.join("\n") }, ...there.map(
    ([part, count], at) => make("i", { class: part, title: said[at], style: `flex: ${count} 0 0` })));
}

// BASE, IN, MID and OUT, each as wide as it has blocks.
function blockChart(norms, areEstimated) {
  const most = Math.max(...norms.map(([, norm]) => norm ?? 0)) || 1;
  const said = ([block, norm]) => `${block} ${norm === null ? "too large to draw" : norm}`;
  const kinds = Map.groupBy(norms, ([block]) => block.replace(/\d+$/, ""));
  const groups = [...kinds].map(([kind, blocks]) => make(
    "div", { style: `flex: ${Math.max(blocks.length, 3)} 0 0` },
    make("div", { class: "bars" }, ...blocks.map(([block, norm]) => make("i", {
      title: said([block, norm]), class: norm === null ? "endless" : "",
      style: `height: ${norm === null ? 100 : 100 * norm / most}%` }))),
    kind));
  const title = `‖ΔW‖ by block${areEstimated ? ", about" : ""}`;
  return make("figure", { role: "img", "aria-label": `${title}: ${norms.map(said).join(", ")}` },
    make("figcaption", {}, title), make("div", { class: "blocks" }, ...groups));
}

// Comes with what a node said, and comes back with it.
export function showLoha(node, output) {
  const box = output?.text && viewOf(node)?.element;
  if (!box) return;
  box.querySelector(".shinymas-loha")?.remove();
  const [drawn] = output.shinymas_loha ?? [];
  if (!drawn) return;
  const { facts = [], parts = [], norms = [], words = [] } = drawn;
  box.classList.add("shinymas-drawn");
  box.dataset.captureWheel = "true"; // Nodes 2.0 zooms otherwise
  box.firstChild.after(make("div", { class: "shinymas-loha" },
    parts.length ? partsBar(parts) : "", facts.length ? list(facts) : "",
    words.length ? make("details", {}, make("summary", {}, `trigger words: ${words.length}`), list(words)) : "",
    norms.length ? blockChart(norms, drawn.are_estimated) : ""));
}

// What LoHa Hook could bind is known once the model runs. Newer front ends drop the line after the run.
function keepBound({ detail: { nodeId, text } }) {
  const path = String(nodeId);
  const node = nodeAt(path);
  if (node?.type !== "ShinyMasHookLoha") return;
  const part = (lines) => lines.split("\n", 1)[0].split(" on ")[1];
  const kept = keptOutput(node, path) ?? { text: [viewOf(node).value] };
  const said = { ...kept, notes: [...(kept.notes ?? []).filter((lines) => part(lines) !== part(text)), text] };
  keepOutput(node, path, said);
  say(node, said);
}

app.registerExtension({
  name: "shinymas.loha",
  setup() {
    api.addEventListener("progress_text", keepBound);
  },
});
