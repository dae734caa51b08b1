// Who to draw: a dialog with everyone in every cast, searched as one types.
import { api } from "../../../scripts/api.js";
import { index } from "./search.js";
import { learnWords, word } from "./words.js";

// Shown at once, whatever a cast holds; typing narrows, and has to be quick.
const MOST_ROWS = 300;
const MOST_TYPED = 100;
const FEW_CARDS = 10;
const FAVOURITES = "shinymas/favourites.json";

export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  const { role, label, ...others } = properties;
  Object.assign(made, others);
  if (role) made.setAttribute("role", role);
  if (label) made.setAttribute("aria-label", label);
  made.append(...children);
  return made;
}

export function button(label, press, properties = {}) {
  const made = element("button", { type: "button", className: "shinymas-button", textContent: label, ...properties });
  made.addEventListener("click", press);
  return made;
}

// Black or white, whichever is the clearer on a colour of six hex digits.
export function ink(colour) {
  const [r, g, b] = colour.match(/../g).map((part) => (parseInt(part, 16) / 255) ** 2.2);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#000" : "#fff";
}

export const nameOf = ({ name, ja }) => ja ? `${name} ${ja}` : name;

// Her colour, with the beginning of her name on it.
export function chip({ name, ja, colour }) {
  const made = element("span", { className: "shinymas-chip", ariaHidden: "true",
    textContent: [...(ja || name)][0] });
  if (/^[0-9a-f]{6}$/i.test(colour)) Object.assign(made.style, { background: `#${colour}`, color: ink(colour) });
  return made;
}

// A dialog beside an element; closes by Escape, by a click beside it and by `close()`, whose value it resolves to.
export function openDialog(anchor, label, fill) {
  const dialog = element("dialog", { className: "shinymas-dialog", label });
  const closed = new Promise((resolve) => dialog.addEventListener("close", () => {
    dialog.remove();
    anchor.focus();
    resolve(dialog.answer);
  }));
  const close = (answer) => {
    dialog.answer = answer;
    dialog.close();
  };
  dialog.addEventListener("pointerdown", (event) => {
    if (event.target === dialog) close();
  });
  // The page's own keys (Delete, R, Ctrl+Enter) are not meant here.
  for (const kind of ["keydown", "keyup", "paste", "copy", "wheel"]) dialog.addEventListener(kind, (event) => {
    event.stopPropagation();
    if (event.key === "Escape" && kind === "keydown" && !event.isComposing) {
      event.preventDefault();
      close();
    }
  });
  const x = button("✕", () => close(), { className: "shinymas-close", label: word("close") });
  dialog.append(element("div", { className: "shinymas-inside" }, element("div", { className: "shinymas-title" },
    element("strong", { textContent: label }), x), ...fill(close)));
  document.body.append(dialog);
  dialog.showModal();
  const { left, bottom } = anchor.getBoundingClientRect();
  const { width, height } = dialog.getBoundingClientRect();
  dialog.style.left = `${Math.max(8, Math.min(left, innerWidth - width - 8))}px`;
  dialog.style.top = `${Math.max(8, Math.min(bottom + 4, innerHeight - height - 8))}px`;
  return closed;
}

// The person that somebody picks, {name, cast, …}; undefined where nobody is picked.
export async function pickPerson(anchor, chosen) {
  const [answer] = await Promise.all([api.fetchApi("/shinymas/casts"), learnWords()]);
  if (!answer.ok) return undefined;
  const { casts, favourites } = await answer.json();
  const people = casts.flatMap(({ name: cast, characters }) => characters.map((who) => ({ ...who, cast })));
  return openDialog(anchor, word("choose"), (close) => list(people, new Set(favourites), chosen, close));
}

function list(people, favourites, chosen, close) {
  const find = index(people);
  const search = element("input", { type: "text", role: "combobox", className: "shinymas-search", autofocus: true,
    placeholder: word("search"), label: word("search"), autocomplete: "off", spellcheck: false });
  const box = element("div", { id: "shinymas-people", role: "listbox", className: "shinymas-list", label: word("choose") });
  const said = element("div", { role: "status", className: "shinymas-hint" });
  search.setAttribute("aria-controls", box.id);
  search.setAttribute("aria-expanded", "true");
  search.setAttribute("aria-autocomplete", "list");
  let rows = [];
  let active = -1;

  function activate(at, { scroll = true } = {}) {
    rows[active]?.classList.remove("active");
    active = Math.max(0, Math.min(at, rows.length - 1));
    const row = rows[active];
    row?.classList.add("active");
    if (row) search.setAttribute("aria-activedescendant", row.id);
    else search.removeAttribute("aria-activedescendant");
    if (scroll) row?.scrollIntoView({ block: "nearest" });
  }

  function show() {
    const typed = search.value.trim();
    const { found, best } = find(typed);
    const marked = typed ? [] : found.filter((at) => favourites.has(people[at].name));
    const shown = [...marked.map((at) => [word("favourites"), at]), ...found.map((at) => [headOf(people[at]), at])]
      .slice(0, typed ? MOST_TYPED : MOST_ROWS);
    const groups = new Map();
    for (const [head, at] of shown) groups.get(head)?.push(at) ?? groups.set(head, [at]);
    rows = [];
    box.replaceChildren(...[...groups].map(([head, members]) => element("div", { role: "group", label: head },
      element("div", { className: "shinymas-head-row", textContent: head, ariaHidden: "true" }),
      ...members.map((at) => row(people[at])))));
    const more = found.length - (shown.length - marked.length);
    said.textContent = !found.length ? word("nobody") : more > 0 ? word("more", more) : word("keys");
    const wanted = typed ? best : found.find((at) => people[at].name === chosen);
    activate(rows.findIndex((one) => one.person === people[wanted]));
  }

  function row(person) {
    const { name, ja, cards, cast, picture } = person;
    const id = `shinymas-person-${rows.length}`;
    const few = cards !== null && cards < FEW_CARDS;
    const made = element("div", { id, role: "option", className: "shinymas-row", person },
      picture ? thumbnail(person) : chip(person),
      element("bdi", { className: "shinymas-name", textContent: name }), element("bdi", { textContent: ja }),
      element("span", { className: few ? "shinymas-few" : "shinymas-cards",
        textContent: cards === null ? "" : word(few ? "few" : "cards", cards) }),
      star(name));
    made.setAttribute("aria-selected", String(name === chosen));
    made.addEventListener("click", () => close({ name, cast, ja }));
    made.addEventListener("pointermove", () => activate(rows.indexOf(made), { scroll: false }));
    rows.push(made);
    return made;
  }

  function star(name) {
    const made = button("", (event) => {
      event.stopPropagation();
      mark(name);
    }, { tabIndex: -1, className: "shinymas-star", label: word("favourite") });
    paintStar(made, favourites.has(name));
    return made;
  }

  function mark(name) {
    if (!favourites.delete(name)) favourites.add(name);
    for (const one of rows) if (one.person.name === name) paintStar(one.lastChild, favourites.has(name));
    api.storeUserData(FAVOURITES, [...favourites], { overwrite: true, stringify: true, throwOnError: false });
    search.focus();
  }

  search.addEventListener("input", show);
  search.addEventListener("keydown", (event) => {
    if (event.isComposing) return; // Enter and arrows belong to the input method
    const page = Math.max(1, Math.floor(box.clientHeight / 36));
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page }[event.key];
    if (step) activate(active + step);
    else if (event.key === "Enter" && rows[active]) {
      if (event.ctrlKey || event.metaKey) mark(rows[active].person.name);
      else rows[active].click();
    } else return;
    event.preventDefault();
  });
  show();
  return [search, box, said];
}

const headOf = ({ cast, unit }) => [unit, cast].filter(Boolean).join(" · ");

function paintStar(star, on) {
  star.textContent = on ? "★" : "☆";
  star.setAttribute("aria-pressed", String(on));
}

function thumbnail({ name, cast, picture, ...person }) {
  const file = encodeURIComponent(`shinymas/thumbnails/${cast}/${name}.webp`);
  const made = element("img", { className: "shinymas-chip", alt: "", loading: "lazy",
    src: api.apiURL(`/userdata/${file}?${picture}`) });
  made.addEventListener("error", () => made.replaceWith(chip({ name, ...person })));
  return made;
}
