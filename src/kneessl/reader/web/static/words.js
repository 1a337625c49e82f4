// How answers, numbers and times are said.

import { draw, make } from "./dom.js";

export const ANSWERS = {
  yes: { word: "Yes", kind: "yes" },
  doubt: { word: "In doubt", kind: "doubt" },
  no: { word: "No", kind: "no" },
  "not assessed": { word: "Not assessed", kind: "none" },
  "no operating points": { word: "Probability only", kind: "plain" },
};

export const STAGES = ["queued", "reading headers", "model", "writing", "done"];
export const STAGE_WORDS = {
  receiving: "Being sent",
  queued: "Queued",
  "reading headers": "Reading headers",
  model: "Decoding, and asking the model",
  writing: "Writing the answer",
  done: "Done",
  failed: "Failed",
};

export const SIDES = { L: "Left knee", R: "Right knee", "": "Knee, side unknown" };
export const isPending = (study) => !["done", "failed"].includes(study.stage);

/** A shape that stands for an answer, so that colour is never needed to tell it. */
export function shape(kind) {
  const parts = {
    yes: [draw("path", { d: "M8 1.5 15 14H1Z", class: "full" })],
    doubt: [draw("path", { d: "M8 1 15 8 8 15 1 8Z", class: "line" }), draw("path", { d: "M8 1 8 15 1 8Z", class: "full" })],
    no: [draw("circle", { cx: 8, cy: 8, r: 6, class: "line" })],
    none: [draw("path", { d: "M2 2H14V14H2Z M2 14 14 2", class: "line dashed" })],
    plain: [draw("path", { d: "M2 2H14V14H2Z", class: "line" })],
  };
  return draw("svg", { viewBox: "0 0 16 16", class: `shape ${kind}`, "aria-hidden": "true" }, ...parts[kind]);
}

/** An answer as shape and word. */
export function answerMark(answer) {
  const { word, kind } = ANSWERS[answer];
  return make("span", { class: `answer ${kind}` }, shape(kind), make("b", {}, word));
}

export const title = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** A task as a heading: short names are abbreviations. */
export const taskTitle = (task) => (task.length <= 3 ? task.toUpperCase() : title(task));

/** A probability in whole per cent, never 0 or 100. */
export function percent(value) {
  if (value < 0.01) return "below 1 %";
  if (value > 0.99) return "above 99 %";
  return `${Math.round(100 * value)} %`;
}

export function interval([low, high]) {
  return `${Math.round(100 * low)} to ${Math.round(100 * high)} %`;
}

export function bytes(count) {
  const [factor, unit] = count >= 2 ** 30 ? [2 ** 30, "GiB"] : [2 ** 20, "MiB"];
  return `${(count / factor).toLocaleString("en", { maximumFractionDigits: 1 })} ${unit}`;
}

/** A time, with the day where it is not today. */
export function time(text) {
  const when = new Date(text);
  const clock = when.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  const day = when.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
  const today = when.toDateString() === new Date().toDateString();
  return make("time", { datetime: text }, today ? clock : `${day}, ${clock}`);
}
