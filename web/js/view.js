// The view in a node: what it said in its last run, or of a prompt will say. A head in bold, the text to copy, notes.
import { word } from "./words.js";

const NAME = "shinymas_said";
const WARNING = { color: "#fff", background: "#9a3412" }; // 7.3 : 1, on a light page and on a dark one
const PLAIN = { color: "var(--input-text)", background: "transparent" };

// With the first node that needs it.
function addStyles() {
  if (document.getElementById("shinymas-css")) return;
  const href = new URL("../css/shinymas.css", import.meta.url).href;
  document.head.append(Object.assign(document.createElement("link"), { id: "shinymas-css", rel: "stylesheet", href }));
}

export function addView(node, height = 80) {
  addStyles();
  const box = document.createElement("div");
  const area = document.createElement("textarea");
  box.className = "shinymas-view";
  area.className = "comfy-multiline-input shinymas-said";
  area.readOnly = true;
  area.placeholder = "…";
  box.append(line("head"), area, line("notes"));
  const widget = node.addDOMWidget(NAME, NAME, box, {
    // What a run said is no setting: it stays out of the prompt (here) and of the saved graph (below).
    serialize: false,
    getValue: () => area.value,
    setValue: (text) => {
      area.value = text;
      paint(node);
    },
    getMinHeight: () => height,
  });
  widget.serialize = false;
  paint(node);
}

// A line of small text to copy, that takes no place while it is empty.
function line(name) {
  const made = document.createElement("div");
  made.className = `shinymas-${name}`;
  fill(made, "");
  return made;
}

function fill(element, text) {
  element.textContent = text;
  element.style.display = text ? "" : "none";
}

const part = (node, name) => viewOf(node)?.element.querySelector(`:scope > .shinymas-${name}`);

// Applied in part does not look like applied whole, nor an early end like any; what a person left off is no alarm.
function headOf(text) {
  const counts = /^modules: (\d+)\napplied: (\d+)\nskipped: (\d+)\nunknown: (\d+)\b/.exec(text);
  const [, stopped] = /^stopped: (.+)/.exec(text) ?? [];
  if (!counts) return [stopped ? `stopped ${stopped}` : "", stopped];
  const [all, applied, skipped, unknown] = counts.slice(1).map(Number);
  const [first] = text.split("\nmodules:"); // of several strengths
  const asked = [...first.matchAll(/^left off (\d+): (?:strength|block weight) 0/gm)].reduce((sum, [, n]) => sum + +n, 0);
  return [`applied ${applied} of ${all} · skipped ${skipped} · unknown ${unknown}`, skipped + unknown > asked];
}

function paint(node) {
  const warnings = [node.shinymasAnswer?.error, node.shinymasWarning].filter(Boolean).join("\n");
  const [text, isWarning] = warnings ? [warnings, true] : headOf(viewOf(node).value);
  const head = part(node, "head");
  fill(head, text);
  Object.assign(head.style, isWarning ? WARNING : PLAIN);
}

export function viewOf(node) {
  return node?.widgets?.find((widget) => widget.name === NAME);
}

// What is to be known of a node before it runs, in the head; "" for nothing.
export function warn(node, text) {
  if ((node.shinymasWarning ?? "") === text) return;
  node.shinymasWarning = text;
  if (viewOf(node)) paint(node);
}

export function say(node, output) {
  if (!viewOf(node) || !output?.text) return;
  viewOf(node).value = [].concat(output.text).join("\n");
  fill(part(node, "notes"), (output.notes ?? []).join("\n"));
}

// Something of the node's own above the text.
export function putFirst(node, element) {
  viewOf(node).element.prepend(element);
}

// Calls `then` with each answer from now on; what it returns ends that.
export function onAnswer(node, then) {
  node.shinymasListeners ??= new Set();
  node.shinymasListeners.add(then);
  return () => node.shinymasListeners.delete(then);
}

export const tokensOf = ({ tokens }) => tokens ? word("tokens", tokens.join(" / ")) : "";

// What the node would say if it ran now, or why it would not.
export function showAnswer(node, answer) {
  if (!viewOf(node)) return;
  say(node, { text: [answer.positive ?? ""], notes: answer.notes });
  fill(part(node, "tokens") ?? addTokens(node), tokensOf(answer));
  const negative = part(node, "negative");
  negative.hidden = answer.negative === undefined;
  negative.firstChild.textContent = `${word("negative")} · ${tokensOf({ tokens: answer.negative_tokens })}`;
  fill(negative.lastChild, answer.negative ?? "");
  for (const then of node.shinymasListeners ?? []) then(answer);
  paint(node);
}

// Below the text: how long it is, and the negative prompt, folded away.
function addTokens(node) {
  const tokens = line("tokens");
  const negative = document.createElement("details");
  negative.className = "shinymas-negative";
  negative.append(document.createElement("summary"), line("text"));
  viewOf(node).element.querySelector("textarea").after(tokens, negative);
  return tokens;
}
