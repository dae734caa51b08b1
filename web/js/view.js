// The view in a node that shows what it said in its last run: a head in bold, and the text for people to copy.
const NAME = "shinymas_said";
const WARNING = { color: "#fff", background: "#9a3412" }; // 7.3 : 1, on a light page and on a dark one
const PLAIN = { color: "var(--input-text)", background: "transparent" };

export function addView(node) {
  const box = document.createElement("div");
  const head = document.createElement("div");
  const area = document.createElement("textarea");
  box.className = "shinymas-view";
  head.className = "shinymas-head";
  area.className = "comfy-multiline-input shinymas-said";
  area.readOnly = true;
  area.placeholder = "…";
  // Nodes 2.0 leaves the size to the element; the canvas keeps 80 less its margins.
  Object.assign(box.style, { display: "flex", flexDirection: "column", width: "100%", height: "100%" });
  Object.assign(head.style, { flex: "none", padding: "2px 6px", borderRadius: "4px", font: "bold 11px sans-serif",
    whiteSpace: "pre-wrap" });
  Object.assign(area.style, { flex: "1", width: "100%", minHeight: "60px" });
  const notes = document.createElement("div");
  notes.className = "shinymas-notes";
  Object.assign(notes.style, {
    flex: "none", maxHeight: "40%", overflow: "auto", padding: "2px 6px", display: "none", whiteSpace: "pre-wrap",
    font: "11px sans-serif", color: "var(--input-text)", userSelect: "text",
  });
  box.append(head, area, notes);
  const widget = node.addDOMWidget(NAME, NAME, box, {
    // What a run said is no setting: it stays out of the prompt (here) and of the saved graph (below).
    serialize: false,
    getValue: () => area.value,
    setValue: (text) => {
      area.value = text;
      paint(node);
    },
    getMinHeight: () => 80,
  });
  widget.serialize = false;
  paint(node);
}

// What must not be overlooked: a LoHa applied in part does not look like one applied whole, nor an early end like any.
function headOf(text) {
  const counts = /^modules: (\d+)\napplied: (\d+)\nskipped: (\d+)\nunknown: (\d+)(?:\n|$)/.exec(text);
  if (!counts) {
    const [, stopped] = /^stopped: (.+)/.exec(text) ?? [];
    return [stopped ? `stopped ${stopped}` : "", Boolean(stopped)];
  }
  const [all, applied, skipped, unknown] = counts.slice(1).map(Number);
  return [`applied ${applied} of ${all} · skipped ${skipped} · unknown ${unknown}`, skipped + unknown > 0];
}

function paint(node) {
  const view = viewOf(node);
  const [text, isWarning] = node.shinymasWarning ? [node.shinymasWarning, true] : headOf(view.value);
  const head = view.element.firstChild;
  head.textContent = text;
  Object.assign(head.style, isWarning ? WARNING : PLAIN, { display: text ? "" : "none" });
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
  const view = viewOf(node);
  if (!view || !output?.text) return;
  view.value = [].concat(output.text).join("\n");
  note(view, output.notes ?? []);
}

// Apart from the text, which people copy as it is.
function note(view, lines) {
  const notes = view.element.lastChild;
  notes.textContent = lines.join("\n");
  notes.style.display = lines.length ? "" : "none";
}

export function empty(node) {
  const view = viewOf(node);
  if (!view) return;
  view.value = "";
  note(view, []);
}
