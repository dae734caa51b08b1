// The Character Prompt: buttons for who is drawn and for her tags. What becomes of a new node's seed.
import { app } from "../../../scripts/app.js";
import { whenCreated } from "./graph.js";
import { isLinked, setValues } from "./inputs.js";
import { button, chip, element, nameOf, pickPerson } from "./picker.js";
import { pickTags } from "./tags.js";
import "./shinymas.js"; // the view must be there first
import { onAnswer, putFirst, warn } from "./view.js";
import { word } from "./words.js";

const NODE = "ShinyMasCharacterPrompt";
// Front ends let a new node's number become a random one after each run; a saved graph brings its own setting.
const CONTROL = { [NODE]: "fixed", ShinyMasCharacterList: "increment" };

async function choose(node, from) {
  const found = await pickPerson(from, node.shinymasAnswer?.who?.name);
  if (!found) return;
  const { name, cast } = found;
  const tags = node.shinymasAnswer?.who?.name === name ? {} : { tags: "" };
  setValues(node, { ...tags, pick: "selected", cast, character: name });
}

function addBar(node) {
  const who = button("…", () => choose(node, who));
  const tags = button("…", () => pickTags(tags, node));
  putFirst(node, element("div", { className: "shinymas-bar" }, who, tags));
  onAnswer(node, (answer) => {
    const person = answer.who;
    who.replaceChildren(...(person ? [chip(person), `${nameOf(person)} ▾`] : [`${word("choose")} ▾`]));
    who.title = person?.unit ?? "";
    who.disabled = isLinked(node, "character");
    const on = answer.tags?.filter(([, , weight]) => weight).length ?? 0;
    tags.textContent = `${word("tags", answer.tags ? `${on} / ${answer.tags.length}` : "")} ▾`;
    tags.disabled = !answer.tags?.length || isLinked(node, "tags");
    warn(node, answer.problems?.join("\n") ?? "");
  });
}

app.registerExtension({
  name: "shinymas.prompt",
  beforeRegisterNodeDef(nodeType, nodeData) {
    const setting = CONTROL[nodeData.name];
    if (setting) whenCreated(nodeType, (node) => {
      const control = node.widgets?.find((widget) => widget.name === "control_after_generate");
      if (control) control.value = setting;
      if (nodeData.name === NODE) addBar(node);
    });
  },
});
