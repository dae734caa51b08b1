// The prompt as it will be, in the node, at each change and before anything runs: the server's own builder writes it.
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { nodesWithPaths, whenCreated } from "./graph.js";
import { question } from "./inputs.js";
import { showAnswer } from "./view.js";
import { learnWords } from "./words.js";

export const LIVE = new Set(["ShinyMasCharacterPrompt", "ShinyMasScene"]);
// No event tells of every change: values promoted out of subgraphs, undo and other packs call nobody back.
const EVERY_MS = 75;
let watching = false;

function check() {
  if (document.hidden) return;
  for (const [node] of nodesWithPaths()) {
    if (!LIVE.has(node.type)) continue;
    const asked = JSON.stringify({ node: node.type, ...question(node) });
    if (asked !== node.shinymasAsked) ask(node, asked);
  }
}

// One question at a time for each node; what changed meanwhile is asked next.
async function ask(node, asked) {
  node.shinymasAsked = asked;
  if (node.shinymasAsking) return;
  node.shinymasAsking = true;
  let sent;
  try {
    while (node.shinymasAsked && sent !== node.shinymasAsked) {
      sent = node.shinymasAsked;
      const answer = await answerTo(sent);
      if (sent === node.shinymasAsked) {
        node.shinymasAnswer = answer;
        showAnswer(node, answer);
      }
    }
  } catch {
    setTimeout(() => { node.shinymasAsked = undefined; }, 3000); // the server is away
  } finally {
    node.shinymasAsking = false;
  }
}

async function answerTo(body) {
  const answer = await api.fetchApi("/shinymas/prompt", {
    method: "POST", headers: { "Content-Type": "application/json" }, body });
  return answer.ok ? await answer.json() : { error: await answer.text() };
}

export function askAgain() {
  for (const [node] of nodesWithPaths()) if (LIVE.has(node.type)) node.shinymasAsked = undefined;
}

function watch() {
  if (watching) return;
  watching = true;
  learnWords().finally(askAgain);
  setInterval(check, EVERY_MS);
}

app.registerExtension({
  name: "shinymas.live",
  refreshComboInNodes: askAgain, // cast files may have changed
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (LIVE.has(nodeData.name)) whenCreated(nodeType, watch);
  },
});
