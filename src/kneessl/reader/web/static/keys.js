// The keyboard: one table that is both what keys do and what the help shows.

import { byId, make } from "./dom.js";

const TYPED = "input:not([type=range], [type=radio]), select, textarea";
const MOVES = "input, .scrolls, summary";
const MOVING = /^(Arrow|Page|Home|End)/;

/** Each: keys as `KeyboardEvent.key` has them, how the help shows them, what they do, and the action's name. */
export const TABLE = [
  [["ArrowUp", "ArrowLeft"], "↑ ←", "Previous slice of the plane at hand (or turn the wheel)", "previous"],
  [["ArrowDown", "ArrowRight"], "↓ →", "Next slice", "next"],
  [["PageUp"], "Page ↑", "Five slices back", "back5"],
  [["PageDown"], "Page ↓", "Five slices on", "on5"],
  [["Home"], "Home", "First slice", "first"],
  [["End"], "End", "Last slice", "last"],
  [["1", "2", "3"], "1 2 3", "Key slices of the chosen finding", "key"],
  [["f"], "F", "Next finding", "nextFinding"],
  [["F"], "Shift F", "Previous finding", "previousFinding"],
  [["h", "H"], "H", "Heat on or off", "heat"],
  [["+", "="], "+", "Denser heat", "denser"],
  [["-"], "−", "Thinner heat", "thinner"],
  [["Shift+ArrowLeft"], "Shift ←", "Narrower window (or drag left)", "narrower"],
  [["Shift+ArrowRight"], "Shift →", "Wider window (or drag right)", "wider"],
  [["Shift+ArrowUp"], "Shift ↑", "Lower level, brighter (or drag up)", "lower"],
  [["Shift+ArrowDown"], "Shift ↓", "Higher level, darker (or drag down)", "higher"],
  [["r", "R"], "R", "Reset the window (or double click)", "reset"],
  [["s", "S"], "S", "Go to the sagittal plane", "sagittal"],
  [["c", "C"], "C", "Go to the coronal plane", "coronal"],
  [["a", "A"], "A", "Go to the axial plane", "axial"],
  [["e", "E"], "E", "The plane at hand alone, or all", "enlarge"],
  [["k", "K"], "K", "The other knee, where there are two", "knee"],
  [["d", "D"], "D", "Download the report", "download"],
  [["l", "L"], "L", "List of studies", "list"],
  [["u", "U"], "U", "Choose files of a study", "choose"],
  [["?"], "?", "This help; Escape closes it", "help"],
];

/** Call `actions[name](key)` where a key of the table is pressed; an action that returns false leaves it alone. */
export function listenToKeys(actions) {
  const names = new Map(TABLE.flatMap(([keys, , , name]) => keys.map((key) => [key, name])));
  document.addEventListener("keydown", (event) => {
    const { target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (target.closest(TYPED) || (MOVING.test(event.key) && target.closest(MOVES))) return;
    const pressed = event.shiftKey && MOVING.test(event.key) ? `Shift+${event.key}` : event.key;
    const action = actions[names.get(pressed)];
    if (action && action(event.key) !== false) event.preventDefault();
  });
}

/** Fill the help. */
export function fillHelp() {
  byId("help-rows").replaceChildren(...TABLE.map(([, shown, text]) => make(
    "div", {}, make("dt", {}, make("kbd", {}, shown)), make("dd", {}, text),
  )));
}
