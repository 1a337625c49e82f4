// The REST interface of this server; no other is ever asked.

/** What the server said against a request, as a sentence. */
export class Refused extends Error {}

async function ask(method, path) {
  let response;
  try {
    response = await fetch(path, { method, credentials: "same-origin", cache: "no-store" });
  } catch {
    throw new Refused("The server does not answer; it may have been stopped.");
  }
  if (response.status === 401) location.assign("/login");
  if (!response.ok) throw new Refused(await sentence(response));
  return response;
}

async function sentence(response) {
  try {
    return (await response.json()).detail;
  } catch {
    return `The server refused this (status ${response.status}).`;
  }
}

export const server = async () => (await ask("GET", "/api/server")).json();
export const studies = async () => (await ask("GET", "/api/studies")).json();
export const study = async (id) => (await ask("GET", `/api/studies/${id}`)).json();
export const remove = async (id) => { await ask("DELETE", `/api/studies/${id}`); };

/** uint8 grey values of a plane, slice after slice. */
export async function slices(id, knee, plane) {
  const response = await ask("GET", `/api/studies/${id}/slices/${plane}?knee=${knee}`);
  return new Uint8Array(await response.arrayBuffer());
}

/** int8 heat of a finding in a plane, slice after slice. */
export async function heat(id, knee, plane, task) {
  const response = await ask("GET", `/api/studies/${id}/heat/${plane}/${encodeURIComponent(task)}?knee=${knee}`);
  return new Int8Array(await response.arrayBuffer());
}

/** Where a file of an answer can be had: report, result, sr or capture. */
export const fileAddress = (id, knee, kind) => `/api/studies/${id}/${kind}?knee=${knee}`;

/** Send files; their names stay here. `onProgress` hears the share sent. Returns the study's number. */
export function send(files, onProgress, signal) {
  const form = new FormData();
  for (const file of files) form.append("files", file, "file");
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/api/studies");
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => onProgress(event.loaded / (event.total || 1)));
    request.addEventListener("load", () => {
      if (request.status === 401) location.assign("/login");
      if (request.status === 202) resolve(request.response.id);
      else reject(new Refused(request.response?.detail ?? `The server refused this (status ${request.status}).`));
    });
    request.addEventListener("error", () => reject(new Refused("The upload broke off; send it again.")));
    request.addEventListener("abort", () => reject(new Refused("The upload was cancelled.")));
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}
