// Files from a drop or a chooser, and their way to the server.

import { Refused, send } from "./api.js";
import { announce, byId } from "./dom.js";
import { bytes } from "./words.js";

const HIDDEN = /^(\.|__MACOSX$|Thumbs\.db$|desktop\.ini$)/;
let sending = null;

/** All files of a drop, those in folders too. */
export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  return (await Promise.all(entries.map(inside))).flat();
}

async function inside(entry) {
  if (HIDDEN.test(entry.name)) return [];
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const found = [];
  for (;;) { // a reader gives at most 100 at a time
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    found.push(...some);
  }
  return (await Promise.all(found.map(inside))).flat();
}

/** Send files and show how far it is. Returns the study's number, or null where it did not go. */
export async function upload(files, limits) {
  if (sending) return tell("One study is being sent already; wait for it, or cancel it.");
  const wanted = files.filter((file) => file.size > 0 && !HIDDEN.test(file.name));
  const total = wanted.reduce((sum, file) => sum + file.size, 0);
  if (!wanted.length) return tell("There are no files in that.");
  if (wanted.length > limits.files) return tell(`More than ${limits.files} files; send one study at a time.`);
  if (total > limits.bytes) return tell(`Larger than ${bytes(limits.bytes)}; send one study at a time.`);
  sending = new AbortController();
  show(wanted.length, total);
  try {
    return await send(wanted, progress, sending.signal);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return tell(error.message);
  } finally {
    sending = null;
    byId("sending").hidden = true;
  }
}

function show(count, total) {
  const words = `${count} ${count === 1 ? "file" : "files"}, ${bytes(total)}`;
  byId("problem").hidden = true;
  byId("sending").hidden = false;
  byId("sending-what").textContent = words;
  progress(0);
  announce(`Sending ${words}`);
}

function progress(share) {
  byId("sending-bar").value = share;
  byId("sending-share").textContent = share < 1 ? `${Math.floor(100 * share)} %` : "sent; being stored";
}

function tell(sentence) {
  byId("problem").textContent = sentence;
  byId("problem").hidden = false;
  return null;
}

/** Stop what is being sent. */
export const cancel = () => sending?.abort();
