// The first view: where a study goes in, and the list of those that are kept.

import * as api from "./api.js";
import { byId, make } from "./dom.js";
import { ANSWERS, SIDES, STAGE_WORDS, isPending, shape, taskTitle, time } from "./words.js";

const REFRESH_MS = 1500;
let timer = 0;

/** Show the list, and keep it up to date while something is under way. */
export async function showHome(onDelete) {
  clearTimeout(timer);
  if (byId("home").hidden) return;
  let studies;
  try {
    studies = await api.studies();
  } catch (error) {
    byId("no-studies").textContent = error.message;
    byId("no-studies").hidden = false;
    return;
  }
  const focused = document.activeElement?.getAttribute("data-key");
  byId("studies").hidden = studies.length === 0;
  byId("no-studies").hidden = studies.length > 0;
  byId("no-studies").textContent = "None yet.";
  byId("study-rows").replaceChildren(...studies.flatMap((study) => rows(study, onDelete)));
  if (focused) document.querySelector(`[data-key="${focused}"]`)?.focus();
  if (studies.some(isPending)) timer = setTimeout(() => showHome(onDelete), REFRESH_MS);
}

function rows(study, onDelete) {
  const knees = study.knees.length ? study.knees : [null];
  return knees.map((knee, index) => make(
    "tr", {},
    index ? make("td", {}) : make("th", { scope: "row" }, link(study)),
    make("td", {}, index ? "" : time(study.received)),
    make("td", {}, knee ? SIDES[knee.side] : STAGE_WORDS[study.stage]),
    make("td", {}, knee ? answers(knee) : study.sentence),
    make("td", { class: "soft" }, index || !study.expires ? "" : time(study.expires)),
    make("td", {}, index ? "" : deleteButton(study, onDelete)),
  ));
}

function link(study) {
  return make("a", { href: `#/studies/${study.id}`, "data-key": `open-${study.id}` }, `Study ${study.id}`);
}

function deleteButton(study, onDelete) {
  return make("button", {
    type: "button", class: "quiet", "data-key": `delete-${study.id}`, click: () => onDelete(study.id),
  }, "Delete", make("span", { class: "unseen" }, ` study ${study.id}`));
}

function answers(knee) {
  return make("ul", { class: "chips" }, knee.findings.map((finding) => {
    const { word, kind } = ANSWERS[finding.answer];
    return make("li", { class: `answer ${kind}` }, shape(kind), `${taskTitle(finding.task)}: ${word.toLowerCase()}`);
  }));
}
