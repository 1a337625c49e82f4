// The second view: one study, from its way through the worker to its planes side by side.

import * as api from "./api.js";
import { downloads, flagList, leftOut, modelFacts, seriesTable } from "./details.js";
import { announce, byId, make } from "./dom.js";
import { findingList } from "./findings.js";
import { PlaneView } from "./plane.js";
import { SIDES, STAGES, STAGE_WORDS, isPending, taskTitle, time, title } from "./words.js";

const ASK_MS = 300;
const STRONGEST = 0.62; // as the reports have it
const OPACITY_STEP = 10;

/** What is on the screen: one study at most. */
export class Reading {
  constructor(server, onDelete) {
    this.server = server;
    this.onDelete = onDelete;
    this.opening = 0;
    this.clear();
    byId("opacity").value = 100 * STRONGEST;
    byId("opacity").addEventListener("input", () => this.showHeat());
    byId("heat-on").addEventListener("change", () => this.showHeat());
  }

  clear() {
    this.opening += 1;
    this.study = null;
    this.views = [];
    this.active = null;
    this.task = null;
    this.heats = new Map();
  }

  /** Show a study, and follow it until it is done. */
  async open(id, knee) {
    this.clear();
    const mine = this.opening;
    const current = () => mine === this.opening;
    for (const part of ["answer", "failure", "work"]) byId(part).hidden = true;
    byId("study-title").textContent = `Study ${id}`;
    byId("study-facts").replaceChildren();
    let stage = null;
    try {
      for (;;) {
        const study = await api.study(id);
        if (!current()) return;
        this.study = study;
        if (!isPending(study)) break;
        this.showWork(study, study.stage !== stage);
        stage = study.stage;
        await new Promise((resolve) => { setTimeout(resolve, ASK_MS); });
        if (!current()) return;
      }
      byId("work").hidden = true;
      if (this.study.stage === "failed") this.showFailure(this.study.sentence);
      else await this.showAnswer(Math.min(knee, this.study.answers.length), current);
      if (stage) announce(STAGE_WORDS[this.study.stage]);
    } catch (error) {
      if (!(error instanceof api.Refused)) throw error;
      if (current()) this.showFailure(error.message);
    }
  }

  showWork(study, isNew) {
    const at = STAGES.indexOf(study.stage);
    byId("work").hidden = false;
    byId("steps").replaceChildren(...STAGES.slice(0, -1).map((stage, index) => {
      const state = index < at ? "past" : index === at ? "now" : "ahead";
      const wait = stage === "queued" && state === "now" && study.ahead ? `, ${study.ahead} ahead` : "";
      return make("li", { class: state, "aria-current": state === "now" ? "step" : null }, STAGE_WORDS[stage] + wait);
    }));
    if (isNew) announce(STAGE_WORDS[study.stage]);
  }

  showFailure(sentence) {
    byId("answer").hidden = true;
    byId("work").hidden = true;
    byId("failure").hidden = false;
    byId("failure-text").textContent = sentence;
    byId("failure-delete").hidden = !this.study;
  }

  async showAnswer(knee, current) {
    const { study } = this;
    const answer = study.answers[knee - 1];
    this.knee = knee;
    this.answer = answer;
    byId("study-title").textContent = `Study ${study.id} · ${SIDES[answer.laterality.side]}`;
    byId("study-facts").replaceChildren(
      "Received ", time(study.received), " · will be deleted ", time(study.expires),
    );
    byId("badge").hidden = answer.model.synthetic !== true;
    byId("knees").replaceChildren(...this.kneeLinks());
    byId("flags").replaceChildren(flagList(answer));
    byId("findings").replaceChildren(findingList(
      answer.findings, (task) => this.pick(task), (task, number) => this.keySlice(number, task),
    ));
    byId("downloads").replaceChildren(...downloads(study, knee), make(
      "button", { type: "button", class: "quiet", click: () => this.onDelete(study.id) }, "Delete study",
    ));
    byId("series").replaceChildren(...[seriesTable(answer), leftOut(answer)].filter(Boolean));
    byId("model").replaceChildren(modelFacts(answer));
    byId("answer").hidden = false;
    this.buildPlanes();
    await Promise.all(this.views.map(async (view) => {
      const bytes = await api.slices(study.id, knee, view.plane);
      if (current()) view.setSlices(bytes);
    }));
    const first = answer.findings.find((finding) => finding.planes.length);
    if (first && current()) await this.pick(first.task, true);
  }

  kneeLinks() {
    if (this.study.answers.length < 2) return [];
    return this.study.answers.map((answer, index) => make("a", {
      class: "button", href: `#/studies/${this.study.id}/${index + 1}`,
      "aria-current": index + 1 === this.knee ? "true" : null,
    }, SIDES[answer.laterality.side]));
  }

  buildPlanes() {
    const { planes } = this.answer;
    const activate = (view) => this.activate(view);
    this.views = Object.keys(this.server.directions)
      .filter((plane) => plane in planes)
      .map((plane) => new PlaneView(plane, planes[plane], this.server.directions[plane], activate));
    byId("planes").replaceChildren(...this.views.map((view) => view.root));
    byId("planes").dataset.count = this.views.length;
    byId("planes").dataset.shown = "all";
    byId("tabs").replaceChildren(...(this.views.length > 1 ? this.tabs() : []));
    byId("viewer").hidden = this.views.length === 0;
    this.active = null;
    if (this.views.length) this.activate(this.views[0]);
  }

  tabs() {
    const tab = (shown, word) => make("button", {
      type: "button", "data-shown": shown, "aria-pressed": String(shown === "all"), click: () => this.enlarge(shown),
    }, word);
    return [tab("all", "All planes"), ...this.views.map((view) => tab(view.plane, title(view.plane)))];
  }

  /** Show one plane alone, or all; a phone always shows one: the one at hand. */
  enlarge(shown) {
    byId("planes").dataset.shown = shown;
    if (shown !== "all") this.activate(this.view(shown));
    this.markTabs();
  }

  activate(view) {
    this.active = view;
    for (const other of this.views) other.root.classList.toggle("active", other === view);
    const { shown } = byId("planes").dataset;
    if (shown !== "all") byId("planes").dataset.shown = view.plane;
    for (const other of this.views) other.root.classList.toggle("alone", other.plane === byId("planes").dataset.shown);
    this.markTabs();
  }

  markTabs() {
    const { shown } = byId("planes").dataset;
    for (const tab of byId("tabs").children) {
      tab.setAttribute("aria-pressed", String(tab.dataset.shown === shown));
      tab.classList.toggle("at-hand", tab.dataset.shown === this.active?.plane);
    }
  }

  view(plane) {
    return this.views.find((view) => view.plane === plane);
  }

  /** Show a finding's heat. */
  async pick(task, silently = false) {
    this.task = task;
    for (const card of byId("findings").querySelectorAll(".finding")) {
      const chosen = card.dataset.task === task;
      card.classList.toggle("chosen", chosen);
      card.querySelector(".pick").setAttribute("aria-pressed", String(chosen));
    }
    byId("heat-of").textContent = `Heat of ${taskTitle(task)}`;
    const finding = this.answer.findings.find((one) => one.task === task);
    const keys = finding.key_slices.map((key, index) => ({ plane: key.plane, index: key.slice - 1, number: index + 1 }));
    const exact = this.views.every((view) => this.answer.planes[view.plane].heat_exact);
    byId("against").hidden = !exact;
    const mine = this.opening;
    byId("viewer").setAttribute("aria-busy", "true");
    await Promise.all(this.views.map(async (view) => {
      const heat = finding.planes.includes(view.plane) ? await this.heatOf(view.plane, task) : null;
      if (mine === this.opening && this.task === task) view.setHeat(heat, keys.filter((key) => key.plane === view.plane));
    }));
    if (mine !== this.opening || this.task !== task) return;
    byId("viewer").setAttribute("aria-busy", "false");
    this.showHeat();
    if (silently && keys.length) for (const key of [...keys].reverse()) this.view(key.plane).go(key.index);
    if (!silently) announce(`Heat of ${taskTitle(task)}`);
  }

  heatOf(plane, task) {
    const key = JSON.stringify([plane, task]);
    if (!this.heats.has(key)) this.heats.set(key, api.heat(this.study.id, this.knee, plane, task));
    return this.heats.get(key);
  }

  showHeat() {
    const share = Number(byId("opacity").value);
    const on = byId("heat-on").checked;
    byId("opacity-text").textContent = `${share} %`;
    for (const view of this.views) view.setOpacity(on ? share / 100 : 0);
  }

  changeOpacity(sign) {
    byId("opacity").value = Number(byId("opacity").value) + sign * OPACITY_STEP;
    byId("heat-on").checked = true;
    this.showHeat();
  }

  async keySlice(number, task = this.task) {
    const picked = task === this.task ? null : this.pick(task);
    const key = this.answer.findings.find((one) => one.task === task)?.key_slices[number - 1];
    if (!key) return;
    const view = this.view(key.plane);
    this.activate(view);
    view.go(key.slice - 1);
    view.canvas.focus({ preventScroll: true });
    view.root.scrollIntoView({ block: "nearest" });
    await picked;
  }

  nextFinding(sign) {
    const tasks = this.answer.findings.filter((finding) => finding.planes.length).map((finding) => finding.task);
    if (tasks.length) this.pick(tasks[(tasks.indexOf(this.task) + sign + tasks.length) % tasks.length]);
  }

  otherKnee() {
    const { study, knee } = this;
    if (study.answers.length > 1) location.hash = `#/studies/${study.id}/${(knee % study.answers.length) + 1}`;
  }

  focusPlane(plane) {
    const view = this.view(plane);
    if (!view) return;
    this.activate(view);
    view.canvas.focus();
  }

  /** What keys do, by the names of `keys.TABLE`; each is false while no slices are on the screen. */
  actions() {
    const shown = (act) => (key) => (this.active && !byId("answer").hidden ? act(key) : false);
    const go = (by) => shown(() => this.active.go(this.active.index + by));
    const drag = (dx, dy) => shown(() => this.active.drag(dx, dy));
    return {
      previous: go(-1), next: go(1), back5: go(-5), on5: go(5), first: go(-Infinity), last: go(Infinity),
      key: shown((key) => { this.keySlice(Number(key)); }),
      nextFinding: shown(() => this.nextFinding(1)), previousFinding: shown(() => this.nextFinding(-1)),
      heat: shown(() => { byId("heat-on").click(); }),
      denser: shown(() => this.changeOpacity(1)), thinner: shown(() => this.changeOpacity(-1)),
      narrower: drag(-10, 0), wider: drag(10, 0), lower: drag(0, -10), higher: drag(0, 10),
      reset: shown(() => this.active.resetWindow()),
      sagittal: shown(() => this.focusPlane("sagittal")),
      coronal: shown(() => this.focusPlane("coronal")),
      axial: shown(() => this.focusPlane("axial")),
      enlarge: shown(() => this.enlarge(byId("planes").dataset.shown === "all" ? this.active.plane : "all")),
      knee: shown(() => this.otherKnee()),
      download: shown(() => byId("download-report").click()),
    };
  }
}
