// Forms from the schemas of requests.

import { el, said, words } from "./dom.js";

export const schemas = {};

/** Fields whose default depends on the model: while they are empty, the model decides. */
const OF_THE_MODEL = ["width", "height", "resolution"];
/** The longest description that is shown whole. */
const SHORT = 90;

/** A property with what it refers to, and its choices. */
function resolved(property) {
  const parts = property.allOf ?? [property];
  const all = parts.map((part) => (part.$ref ? schemas[part.$ref.split("/").at(-1)] : part));
  return Object.assign({}, ...all, property);
}

/** The fields of a request: `values()` has those that were changed, `set(values)` fills them, `mark(fields)` shows problems. */
export class Form {
  constructor(schema, hidden = []) {
    this.fields = new Map();
    const properties = Object.entries(schema.properties).filter(([name]) => !hidden.includes(name));
    properties.sort(([, a], [, b]) => a["x-order"] - b["x-order"]);
    for (const [name, property] of properties) {
      const id = `${schema.title}-${name}`.toLowerCase().replaceAll("_", "-");
      this.fields.set(name, fieldOf(id, name, resolved(property)));
    }
  }

  control(name) {
    return this.fields.get(name)?.control;
  }

  /** Moves fields into an element: those that are named, or all that have no place yet. */
  place(element, names) {
    for (const name of names ?? [...this.fields.keys()]) {
      const field = this.fields.get(name);
      if (field && !field.placed) { element.append(field.element); field.placed = true; }
    }
  }

  values() {
    const values = {};
    for (const [name, { schema, control }] of this.fields) {
      const value = valueOf(schema, control);
      const isDefault = value === schema.default && !OF_THE_MODEL.includes(name);
      if (value !== undefined && !isDefault) values[name] = value;
    }
    return values;
  }

  set(values) {
    for (const [name, { schema, control }] of this.fields) {
      const value = values[name] ?? (OF_THE_MODEL.includes(name) ? "" : schema.default);
      if (schema.type === "boolean") control.checked = Boolean(value);
      else control.value = value ?? "";
    }
  }

  /** Shows problems beside their fields, and goes to the first. */
  mark(problems) {
    for (const [name, { control, problem }] of this.fields) {
      problem.textContent = problems[name] ?? "";
      if (name in problems) control.setAttribute("aria-invalid", "true");
      else control.removeAttribute("aria-invalid");
    }
    const first = this.control(Object.keys(problems).find((name) => this.fields.has(name)));
    first?.closest("details")?.setAttribute("open", "");
    first?.focus({ preventScroll: true });
    first?.closest(".field").scrollIntoView({ block: "nearest" });
  }
}

function fieldOf(id, name, schema) {
  const control = controlOf(name, schema);
  const problem = el("p", { class: "problem", id: `${id}-problem` });
  control.id = id;
  control.setAttribute("aria-describedby", `${id}-about ${id}-problem`);
  const title = el("label", { class: "name", for: id }, words(name));
  const top = schema.type === "boolean" ? [el("div", { class: "check" }, control, title)] : [title, control];
  const element = el("div", { class: control.tagName === "TEXTAREA" ? "field wide" : "field" }, ...top, ...aboutOf(`${id}-about`, name, schema), problem);
  return { schema, control, problem, element };
}

/** A field's description without links' marks; none where it only repeats the name. A long one can be folded out. */
function aboutOf(id, name, schema) {
  const said = (schema.description ?? "").replace(/\[([^\]]*)\]\([^)]*\)/g, "$1").replaceAll("`", "");
  const bare = said.toLowerCase().replace(/^input /, "");
  if (!said || bare === words(name).toLowerCase()) return [];
  const about = el("p", { class: "about", id }, said);
  if (said.length <= SHORT) return [about];
  about.classList.add("folded");
  const fold = (event) => {
    const folded = about.classList.toggle("folded");
    event.target.textContent = folded ? "More" : "Less";
    event.target.setAttribute("aria-expanded", String(!folded));
  };
  return [about, el("button", { type: "button", class: "more", "aria-expanded": "false", "aria-label": `More about ${words(name)}`, onclick: fold }, "More")];
}

function controlOf(name, schema) {
  if (schema.enum) {
    const select = el("select", {}, ...schema.enum.map((choice) => el("option", { value: choice }, choice)));
    select.value = schema.default ?? schema.enum[0];
    return select;
  }
  if (schema.type === "boolean") return el("input", { type: "checkbox", checked: Boolean(schema.default) });
  if (schema.type === "integer" || schema.type === "number") {
    const value = OF_THE_MODEL.includes(name) ? "" : text(schema.default ?? "");
    const placeholder = name === "resolution" ? String(resolutionOf(schema)) : OF_THE_MODEL.includes(name) ? "auto" : name === "seed" ? "random" : null;
    const step = schema.multipleOf ?? (schema.type === "integer" ? 1 : "any");
    return el("input", { type: "number", inputmode: "decimal", step: String(step), min: text(schema.minimum), max: text(schema.maximum), value, placeholder });
  }
  if (name.endsWith("prompt") || name.endsWith("prompts")) {
    const area = el("textarea", { rows: name === "prompt" ? "3" : "2" });
    area.value = schema.default ?? "";
    return area;
  }
  return el("input", { type: "text", value: schema.default ?? "", spellcheck: "false" });
}

/** The resolution where none is given: a small model trains at its own size. */
const resolutionOf = (schema) => Math.min(schema.default, Number(said("native-size")) || schema.default);

const text = (value) => (value === undefined || value === null ? null : String(value));

function valueOf(schema, control) {
  if (schema.type === "boolean") return control.checked;
  if (control.value === "") return schema.type === "string" && schema.default !== undefined ? "" : undefined;
  return schema.type === "integer" || schema.type === "number" ? Number(control.value) : control.value;
}
