// The REST interface in words, from this server's own /openapi.json.

import { byId, make } from "./dom.js";

const last = (reference) => reference.split("/").at(-1);

/** A JSON schema as a short type; names of types are links. */
function type(schema) {
  if (!schema) return ["any"];
  if (schema.$ref) return [make("a", { href: `#${last(schema.$ref)}` }, last(schema.$ref))];
  if (schema.anyOf) return schema.anyOf.flatMap((one, index) => (index ? [" or ", ...type(one)] : type(one)));
  if (schema.const !== undefined) return [JSON.stringify(schema.const)];
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(" or ")];
  if (schema.prefixItems) return ["[", ...schema.prefixItems.flatMap((one, i) => (i ? [", ", ...type(one)] : type(one))), "]"];
  if (schema.type === "array") return ["list of ", ...type(schema.items)];
  if (schema.additionalProperties) return ["object of ", ...type(schema.additionalProperties)];
  return [schema.format === "binary" ? "bytes" : schema.format ?? schema.type ?? "object"];
}

function operation(path, method, told) {
  const body = told.requestBody?.content;
  const rows = (told.parameters ?? []).map((one) => [one.name, `${one.in}${one.required ? "" : ", optional"}`, type(one.schema), one.description ?? ""]);
  for (const [kind, content] of Object.entries(body ?? {})) {
    for (const [name, schema] of Object.entries(content.schema.properties ?? {})) rows.push([name, kind, type(schema), ""]);
  }
  return make(
    "section", { class: "operation" },
    make("h3", {}, make("span", { class: "method" }, method.toUpperCase()), " ", make("code", {}, path)),
    make("p", {}, told.description ?? told.summary),
    rows.length ? table(["Name", "In", "Type", ""], rows) : null,
    table(["Status", "Type", ""], Object.entries(told.responses).map(response)),
  );
}

function response([status, told]) {
  const [kind, content] = Object.entries(told.content ?? {})[0] ?? ["", {}];
  const what = content.schema ? type(content.schema) : [""];
  return [status, [...what, kind && kind !== "application/json" ? `, ${kind}` : ""], told.description];
}

function table(head, rows) {
  return make("div", { class: "scrolls", tabindex: 0, role: "region", "aria-label": head.join(" ") }, make(
    "table", {}, make("thead", {}, make("tr", {}, head.map((name) => make("th", { scope: "col" }, name)))),
    make("tbody", {}, rows.map((cells) => make("tr", {}, cells.map((cell) => make("td", {}, cell))))),
  ));
}

function typeSection([name, schema]) {
  const rows = Object.entries(schema.properties ?? {}).map(([field, told]) => [field, type(told), told.description ?? ""]);
  return make("section", { id: name, class: "operation" }, make("h3", {}, name), make("p", {}, schema.description ?? ""),
    table(["Field", "Type", ""], rows));
}

const told = await (await fetch("/openapi.json")).json();
byId("about").textContent = told.info.description;
byId("example").textContent = `curl -F files=@study.zip ${location.origin}/api/studies`;
byId("paths").append(...Object.entries(told.paths).flatMap(([path, methods]) => Object.entries(methods).map(
  ([method, one]) => operation(path, method, one),
)));
byId("types").append(...Object.entries(told.components.schemas).map(typeSection));
