// What stands around an answer: flags, the series of the study, the model, and the files to take away.

import { fileAddress } from "./api.js";
import { make } from "./dom.js";
import { title } from "./words.js";

const FLAGS = {
  quality: "Quality", unfamiliar: "Unlike the training data", laterality: "Side", data: "Data", model: "Model",
};
const FILES = [["report", "Report"], ["result", "result.json"]];
const OBJECTS = [["sr", "DICOM SR"], ["capture", "DICOM capture"]];

/** All that a reader must know first; an alert where the answer as such is in question. */
export function flagList(answer) {
  const texts = answer.flags.map((flag) => ({
    strong: flag.kind === "unfamiliar" || (flag.kind === "model" && answer.model.synthetic === true),
    head: flag.plane ? `${FLAGS[flag.kind]}, ${flag.plane}` : FLAGS[flag.kind],
    text: flag.text,
  }));
  if (answer.missing_planes.length) {
    texts.push({ strong: false, head: "Missing", text: `No ${answer.missing_planes.join(" or ")} series could be used.` });
  }
  texts.sort((a, b) => b.strong - a.strong);
  return make("ul", { class: "flags", "aria-label": "What to know first" }, texts.map(({ strong, head, text }) => make(
    "li", { class: strong ? "flag strong" : "flag" }, make("b", {}, head), make("span", {}, `${title(text).replace(/\.$/, "")}.`),
  )));
}

/** Links to the files of an answer. */
export function downloads(study, knee) {
  const files = study.objects ? [...FILES, ...OBJECTS] : FILES;
  return files.map(([kind, name]) => make("a", {
    class: "button", href: fileAddress(study.id, knee, kind), download: true, id: `download-${kind}`,
  }, name));
}

/** Which series were used and which not, and why. */
export function seriesTable(answer) {
  const head = ["No.", "Plane", "Slices", "Spacing", "Echo", "Contrast", "Used", "Why"];
  const mm = (value, unit) => (value === null ? "–" : `${Number(value.toFixed(1))} ${unit}`);
  const body = answer.series.map((line) => make(
    "tr", { class: line.used ? "used" : "unused" },
    make("th", { scope: "row" }, String(line.number)), make("td", {}, line.plane), make("td", {}, String(line.slices)),
    make("td", {}, mm(line.slice_mm, "mm")), make("td", {}, mm(line.echo_ms, "ms")),
    make("td", {}, contrast(line)), make("td", {}, line.used ? "✓ used" : "✕ not used"),
    make("td", {}, line.reason),
  ));
  return make("div", { class: "scrolls", tabindex: 0, role: "region", "aria-label": "Series of the study" }, make(
    "table", {}, make("thead", {}, make("tr", {}, head.map((name) => make("th", { scope: "col" }, name)))),
    make("tbody", {}, body),
  ));
}

function contrast(line) {
  const fat = { true: ", fat-suppressed", false: "", null: "" }[String(line.fat_suppressed)];
  return `${line.weighting}${fat}`;
}

/** What never became a series. */
export function leftOut(answer) {
  if (!answer.left_out.length) return null;
  return make("p", { class: "small soft" }, `Left out: ${answer.left_out.join("; ")}.`);
}

/** Which model answered. */
export function modelFacts(answer) {
  const { model } = answer;
  const trained = { true: "synthetic knees (a phantom)", false: "an exam folder that is no phantom", null: "not recorded" };
  const facts = [
    ["Model", model.name], ["SHA-256", model.sha256.slice(0, 16)], ["Findings", model.tasks.join(", ")],
    ["Planes", model.planes.join(", ")], ["Trained on", trained[String(model.synthetic)]],
    ["Operating points", model.locked ? "locked" : "none"], ["kneessl", model.version],
    ["Study key", answer.study], ["Side known from", answer.laterality.from || "nothing"],
    ["Time", `${answer.seconds.toFixed(1)} s`],
  ];
  return make("dl", { class: "facts" }, facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}
