// Which of a character's tags go into the prompt, and how much each weighs.
import { setValues } from "./inputs.js";
import { button, element, nameOf, openDialog } from "./picker.js";
import { onAnswer, tokensOf } from "./view.js";
import { word } from "./words.js";

const MOST_ROWS = 300; // shown at once, whatever a cast holds

// As the node's input `tags` is read: a name in front says for whom it was chosen.
function textOf(name, tags) {
  const written = tags.filter(([, , weight]) => weight).map(([tag, , weight]) => {
    const escaped = tag.replace(/[()]/g, "\\$&");
    return weight === 1 ? escaped : `(${escaped}:${weight})`;
  });
  return `${name}: ${written.join(", ")}`.trim();
}

export async function pickTags(anchor, node) {
  const { who, tags } = node.shinymasAnswer;
  const tokens = element("div", { className: "shinymas-hint" });
  const stop = onAnswer(node, (answer) => { tokens.textContent = answer.error ?? tokensOf(answer); });
  tokens.textContent = tokensOf(node.shinymasAnswer);
  await openDialog(anchor, `${word("tags", "")} ${nameOf(who)}`, (close) => [
    ...parts(node, who.name, structuredClone(tags), close), tokens]);
  stop();
}

function parts(node, name, tags, close) {
  const rows = element("div", { className: "shinymas-list" });
  const hint = element("div", { role: "status", className: "shinymas-hint" });
  const search = element("input", { type: "text", className: "shinymas-search", placeholder: word("search tags"),
    label: word("search tags"), autocomplete: "off", spellcheck: false });
  const write = () => setValues(node, { tags: textOf(name, tags) });

  function row(entry) {
    const [tag, isIdentity] = entry;
    const toggle = element("input", { type: "checkbox", checked: Boolean(entry[2]) });
    const weight = element("input", { type: "number", min: 0.05, max: 3, step: 0.05, value: entry[2] || 1,
      className: "shinymas-weight", label: `${word("weight")}: ${tag}`, disabled: !entry[2] });
    toggle.addEventListener("change", () => {
      weight.disabled = !toggle.checked;
      entry[2] = toggle.checked ? Number(weight.value) || 1 : 0;
      write();
    });
    weight.addEventListener("input", () => {
      if (!weight.checkValidity() || !weight.value) return;
      entry[2] = Number(weight.value);
      write();
    });
    const label = element("label", {}, toggle, element("bdi", { textContent: tag }));
    if (isIdentity) label.append(element("span", { className: "shinymas-identity", textContent: word("identity") }));
    return element("div", { className: "shinymas-tag" }, label, weight);
  }

  function show() {
    const typed = search.value.trim().toLowerCase();
    const found = tags.filter(([tag]) => tag.toLowerCase().includes(typed));
    rows.replaceChildren(...found.slice(0, MOST_ROWS).map(row));
    hint.textContent = found.length > MOST_ROWS ? word("more", found.length - MOST_ROWS) : "";
  }

  function all(change) {
    for (const entry of tags) entry[2] = change(entry);
    write();
    show();
  }

  search.addEventListener("input", show);
  show();
  return [search, element("div", { className: "shinymas-bar" },
    button(word("as tag_set"), () => {
      setValues(node, { tags: "" });
      close();
    }),
    button(word("identity alone"), () => all(([, isIdentity]) => Number(isIdentity))),
    button(word("none"), () => all(() => 0))), rows, hint];
}
