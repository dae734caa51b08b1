// The Scene's editor: a row for each person, and her box over the picture's shape. It writes the lines of `people`.
import { app } from "../../../scripts/app.js";
import { whenCreated } from "./graph.js";
import { drag } from "./boxes.js";
import { isLinked, setValues } from "./inputs.js";
import { button, chip, element, pickPerson } from "./picker.js";
import "./shinymas.js"; // the view must be there first
import { onAnswer, putFirst, tokensOf, warn } from "./view.js";
import { word } from "./words.js";

const LINES = /\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/; // as the server tells lines apart
const HIGHEST = 120; // pixels of the picture's shape
const NAME = 0;
const BOX = 1;
const TAGS = 2;
const WEIGHT = 3;

const valueOf = (node, name) => node.widgets.find((widget) => widget.name === name)?.value;

// Changes the lines of `people`: by the line's number, from 1, and what becomes of it.
function rewrite(node, number, change) {
  const lines = String(valueOf(node, "people")).split(LINES);
  lines.splice(number - 1, 1, ...change());
  setValues(node, { people: lines.join("\n") });
}

function write(node, row, field, text) {
  const [number, ...fields] = row.typed;
  fields[field] = text;
  row.typed = [number, ...fields];
  rewrite(node, number, () => [fields.join(" | ").replace(/[\s|]+$/, "")]);
}

function makeRow(node, stage) {
  const who = button("", async () => {
    const found = await pickPerson(who, who.person);
    if (found) write(node, row, NAME, found.name);
  });
  const tags = element("input", { type: "text", className: "shinymas-search", placeholder: word("more tags"),
    label: word("more tags") });
  const weight = element("input", { type: "number", className: "shinymas-weight", min: 0, max: 3, step: 0.05,
    label: word("weight") });
  const remove = button("✕", () => rewrite(node, row.typed[0], () => []),
    { className: "shinymas-close", label: word("remove") });
  const text = element("div", { className: "shinymas-said-of" });
  const row = { who, tags, weight, text, typed: [], line: element("div", { className: "shinymas-person" },
    element("div", { className: "shinymas-bar" }, who, tags, weight, remove), text) };
  row.box = drag(stage, (place) => write(node, row, BOX, place));
  tags.addEventListener("change", () => write(node, row, TAGS, tags.value.trim()));
  weight.addEventListener("change", () => {
    if (weight.checkValidity()) write(node, row, WEIGHT, ["", "1"].includes(weight.value) ? "" : weight.value);
  });
  // Keys in it are not the graph's.
  row.line.addEventListener("keydown", (event) => event.stopPropagation());
  return row;
}

function fillRow(row, typed, person) {
  const [, name, , tags, weight] = typed;
  row.typed = typed;
  row.who.person = person?.name;
  row.who.replaceChildren(...(person ? [chip(person)] : []), `${person?.name ?? name} ▾`);
  if (document.activeElement !== row.tags) row.tags.value = tags;
  if (document.activeElement !== row.weight) row.weight.value = weight || "1";
  row.text.textContent = person ? `${tokensOf(person)} · ${person.text}` : "";
  if (person) row.box.show(person, word("box", person.name));
}

function addEditor(node) {
  const stage = element("div", { className: "shinymas-stage" });
  const list = element("div", {});
  const rest = element("div", { className: "shinymas-said-of" });
  const add = button("+", async () => {
    const found = await pickPerson(add);
    if (found) setValues(node, { people: `${String(valueOf(node, "people")).trimEnd()}\n${found.name}`.trimStart() });
  });
  const editor = element("div", { className: "shinymas-editor" }, stage, list, rest, add);
  let rows = [];
  putFirst(node, editor);
  onAnswer(node, (answer) => {
    const typed = answer.rows ?? [];
    if (rows.length !== typed.length) {
      stage.replaceChildren();
      rows = typed.map(() => makeRow(node, stage));
      list.replaceChildren(...rows.map((row) => row.line));
    }
    rows.forEach((row, at) => fillRow(row, typed[at], answer.people?.[at]));
    const elsewhere = answer.people?.find(({ box }) => !box);
    rest.textContent = elsewhere ? `${word("elsewhere")}: ${tokensOf(elsewhere)} · ${elsewhere.text}` : "";
    const shape = (valueOf(node, "width") || 1) / (valueOf(node, "height") || 1);
    Object.assign(stage.style, { aspectRatio: String(shape), width: `min(100%, ${HIGHEST * shape}px)` });
    add.textContent = word("add");
    editor.inert = isLinked(node, "people");
    warn(node, answer.problems?.join("\n") ?? "");
  });
}

app.registerExtension({
  name: "shinymas.scene",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name === "ShinyMasScene") whenCreated(nodeType, addEditor);
  },
});
