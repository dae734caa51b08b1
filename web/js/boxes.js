// A box over the picture's shape that is moved and resized by the pointer or the keys.
import { element, ink } from "./picker.js";

const SMALLEST = 5; // per cent: the server takes no less
const EDGE = 8; // pixels from an edge that are the edge
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

// As a person could have typed it, in whole per cents.
export function textOf([left, top, right, bottom]) {
  const rows = top === 0 && bottom === 100 ? "" : `, ${top}-${bottom}`;
  return `${left}-${right}${rows}`;
}

// The box after a move of these edges ("all" moves it whole), within the picture.
export function moved([left, top, right, bottom], edges, across, down) {
  if (edges === "all") {
    const x = clamp(across, -left, 100 - right);
    const y = clamp(down, -top, 100 - bottom);
    return [left + x, top + y, right + x, bottom + y];
  }
  return [
    edges.includes("w") ? clamp(left + across, 0, right - SMALLEST) : left,
    edges.includes("n") ? clamp(top + down, 0, bottom - SMALLEST) : top,
    edges.includes("e") ? clamp(right + across, left + SMALLEST, 100) : right,
    edges.includes("s") ? clamp(bottom + down, top + SMALLEST, 100) : bottom,
  ];
}

// Which edges a pointer is at, "all" in the middle. The element may be shown at any zoom of the canvas.
function edgesAt(event, box) {
  const { left, top, right, bottom } = box.getBoundingClientRect();
  const reach = (length) => Math.min(EDGE, length / 4);
  const [x, y] = [reach(right - left), reach(bottom - top)];
  const vertical = event.clientY < top + y ? "n" : event.clientY > bottom - y ? "s" : "";
  const horizontal = event.clientX < left + x ? "w" : event.clientX > right - x ? "e" : "";
  return vertical + horizontal || "all";
}

// Puts a box on the stage; `then` gets its text when it was moved. `show` gives it its person and place.
export function drag(stage, then) {
  const name = element("span", { className: "shinymas-box-name" });
  const box = element("div", { className: "shinymas-box", tabIndex: 0, role: "group" }, name);
  let place = [0, 0, 100, 100];
  let start;

  function paint() {
    const [left, top, right, bottom] = place;
    Object.assign(box.style, { left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%` });
  }

  box.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.stopPropagation();
    box.setPointerCapture(event.pointerId);
    start = { x: event.clientX, y: event.clientY, edges: edgesAt(event, box), place };
  });
  box.addEventListener("pointermove", (event) => {
    const edges = start?.edges ?? edgesAt(event, box);
    box.style.cursor = edges === "all" ? "move" : `${edges}-resize`;
    if (!start) return;
    event.stopPropagation();
    const { width, height } = stage.getBoundingClientRect();
    const per = (pixels, length) => Math.round(100 * pixels / length);
    place = moved(start.place, edges, per(event.clientX - start.x, width), per(event.clientY - start.y, height));
    paint();
  });
  const end = () => {
    if (start && String(start.place) !== String(place)) then(textOf(place));
    start = undefined;
  };
  box.addEventListener("pointerup", end);
  box.addEventListener("pointercancel", end);
  box.addEventListener("keydown", (event) => {
    const step = KEYS[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    place = moved(place, event.shiftKey ? "se" : "all", ...step);
    paint();
    then(textOf(place));
  });
  stage.append(box);

  function show(person, label) {
    if (start) return; // somebody holds it
    place = person.box.map((part) => Math.round(100 * part));
    name.textContent = person.name;
    Object.assign(name.style, { background: `#${person.colour}`, color: ink(person.colour) });
    box.style.borderColor = `#${person.colour}`;
    box.style.background = `#${person.colour}55`;
    box.setAttribute("aria-label", label);
    paint();
  }

  return { show };
}
