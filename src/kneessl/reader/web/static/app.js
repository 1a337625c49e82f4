// The page: which view is shown, what is dropped, and what is asked before something is deleted.

import * as api from "./api.js";
import { announce, byId } from "./dom.js";
import { showHome } from "./home.js";
import { fillHelp, listenToKeys } from "./keys.js";
import { Reading } from "./reading.js";
import { cancel, dropped, upload } from "./upload.js";
import { bytes } from "./words.js";

let server;
let reading;

async function start() {
  fillHelp();
  byId("help-open").addEventListener("click", openHelp);
  byId("help-close").addEventListener("click", () => byId("help").close());
  byId("skip").addEventListener("click", () => byId("main").focus());
  byId("cancel").addEventListener("click", cancel);
  for (const kind of ["files", "folder"]) {
    byId(`choose-${kind}`).addEventListener("click", () => byId(kind).click());
    byId(kind).addEventListener("change", (event) => { take([...event.target.files]); event.target.value = ""; });
  }
  listenToDrops();
  try {
    server = await api.server();
  } catch (error) {
    byId("problem").textContent = error.message;
    byId("problem").hidden = false;
    return;
  }
  tellServer();
  reading = new Reading(server, askDelete);
  byId("failure-delete").addEventListener("click", () => askDelete(reading.study.id));
  listenToKeys({ ...reading.actions(), help: openHelp, list: () => { location.hash = "#/"; }, choose });
  addEventListener("hashchange", () => route(true));
  route(false);
}

/** Where an address leads; `moved`: the reader came here from another view, and focus follows. */
function route(moved) {
  const [, id, knee] = location.hash.match(/^#\/studies\/(\d+)(?:\/(\d+))?$/) ?? [];
  byId("home").hidden = id !== undefined;
  byId("reading").hidden = id === undefined;
  document.title = id ? `Study ${id} · kneessl` : "kneessl";
  if (id) reading.open(Number(id), Number(knee ?? 1));
  else reading.clear();
  showHome(askDelete);
  if (moved) byId(id ? "study-title" : "home-title").focus({ preventScroll: true });
  if (moved) scrollTo(0, 0);
}

function tellServer() {
  const { limits, keep_hours: hours, model, version } = server;
  byId("version").textContent = `kneessl ${version}`;
  byId("served").textContent = `Model ${model.name}: ${model.tasks.join(", ")}; ${model.planes.join(", ")}`;
  byId("served-synthetic").hidden = model.synthetic !== true;
  byId("limits").textContent = `At most ${limits.files.toLocaleString("en")} files and ${bytes(limits.bytes)}. `
    + `What is sent is deleted as soon as it is answered, the answer after ${hours.toLocaleString("en")} hours. `
    + "File names are not sent.";
}

async function take(files) {
  location.hash = "#/";
  const id = await upload(files, server.limits);
  if (id !== null) location.hash = `#/studies/${id}`;
}

function choose() {
  history.pushState(null, "", "#/"); // no "hashchange", which would move the focus elsewhere
  route(false);
  byId("choose-files").focus();
}

function openHelp() {
  byId("help").showModal();
}

/** Ask, then delete a study. */
function askDelete(id) {
  const dialog = byId("confirm");
  byId("confirm-text").textContent = `Delete study ${id}? Its answers and slices are removed from the server.`;
  byId("confirm-no").onclick = () => dialog.close();
  byId("confirm-yes").onclick = async () => {
    dialog.close();
    try {
      await api.remove(id);
      announce(`Study ${id} deleted`);
    } catch (error) {
      announce(error.message);
    }
    location.hash = "#/";
    await showHome(askDelete);
    byId("home-title").focus();
  };
  dialog.showModal();
}

function listenToDrops() {
  let depth = 0; // elements of the page are entered and left one by one
  const hint = (shown) => { byId("drop-hint").hidden = !shown; };
  const withFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => { if (withFiles(event)) { depth += 1; hint(true); } });
  addEventListener("dragleave", (event) => { if (withFiles(event)) { depth -= 1; hint(depth > 0); } });
  addEventListener("dragover", (event) => { if (withFiles(event)) event.preventDefault(); });
  addEventListener("drop", async (event) => {
    if (!withFiles(event)) return;
    event.preventDefault();
    depth = 0;
    hint(false);
    await take(await dropped(event.dataTransfer));
  });
}

start();
