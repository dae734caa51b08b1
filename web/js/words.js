// Words in the page's language, out of the pack's locales.
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

let words = {};
let learning;

// What a key says, with a number or a name at its #.
export const word = (key, value = "") => (words[key] ?? key).replace("#", () => value);

export function learnWords() {
  learning ??= api.fetchApi("/i18n").then((answer) => answer.json()).then((all) => {
    const language = app.extensionManager.setting.get("Comfy.Locale") ?? "en";
    words = { ...all.en?.shinymas, ...all[language.split("-")[0]]?.shinymas, ...all[language]?.shinymas };
  });
  return learning;
}
