// What is said of each finding: state, probability with its interval and operating points, reasons, key slices.

import { make } from "./dom.js";
import { answerMark, interval, percent, taskTitle, title } from "./words.js";

/** The list of findings; `onPick(task)` and `onKeySlice(task, number)` hear what the reader chooses. */
export function findingList(findings, onPick, onKeySlice) {
  return make("ul", { class: "findings" }, findings.map((finding) => card(finding, onPick, onKeySlice)));
}

function card(finding, onPick, onKeySlice) {
  const hasHeat = finding.planes.length > 0;
  const name = make("span", { class: "task" }, taskTitle(finding.task));
  const head = make("button", {
    type: "button", class: "pick", "aria-pressed": "false", disabled: !hasHeat, click: () => onPick(finding.task),
  }, name, answerMark(finding.answer));
  return make(
    "li", { class: "finding", "data-task": finding.task },
    head,
    finding.probability === null ? null : probability(finding),
    finding.reasons.length ? make("ul", { class: "reasons" }, finding.reasons.map((text) => make("li", {}, `${title(text)}.`))) : null,
    finding.key_slices.length ? keySlices(finding, onKeySlice) : null,
  );
}

function probability(finding) {
  const points = finding.operating_points;
  const limits = points && (points.rule_in > 1
    ? `No below ${percent(points.rule_out)}; yes is never said`
    : `No below ${percent(points.rule_out)}, yes from ${percent(points.rule_in)}`);
  const words = finding.interval ? `95 % interval ${interval(finding.interval)}` : "No interval";
  return make(
    "div", { class: "probability" },
    make("p", {}, make("b", { class: "figure" }, percent(finding.probability)),
      make("span", { class: "soft" }, finding.calibrated ? words : "Not calibrated")),
    bar(finding, points),
    limits ? make("p", { class: "small soft" }, limits) : null,
    make("p", { class: "small soft" }, `From ${finding.planes.join(" and ")}`),
  );
}

/** The probability on a line from 0 to 1; the text beside it says the same. */
function bar(finding, points) {
  const part = (kind, from, to) => {
    const element = make("span", { class: kind });
    element.style.left = `${100 * from}%`;
    element.style.width = `${100 * (to - from)}%`;
    return element;
  };
  const zones = points ? [
    part("zone no", 0, points.rule_out),
    part("zone doubt", points.rule_out, Math.min(1, points.rule_in)),
    part("zone yes", Math.min(1, points.rule_in), 1),
  ] : [];
  return make("div", { class: "scale", "aria-hidden": "true" }, ...zones,
    finding.interval ? part("interval", ...finding.interval) : null,
    part("point", finding.probability, finding.probability));
}

function keySlices(finding, onKeySlice) {
  return make("div", { class: "keys" }, make("span", { class: "small soft" }, "Key slices"),
    finding.key_slices.map((key, index) => make("button", {
      type: "button", click: () => onKeySlice(finding.task, index + 1),
      "aria-label": `Key slice ${index + 1} of ${taskTitle(finding.task)}: ${key.plane} ${key.slice}, ${percent(key.share)} of what speaks for it`,
    }, make("kbd", {}, String(index + 1)), ` ${title(key.plane)} ${key.slice}`, make("span", { class: "soft" }, ` ${percent(key.share)}`))));
}
