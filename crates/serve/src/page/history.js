// History: what was made, the newest first; and the models that can be used.

import { $, button, count, duration, el, said, when } from "./dom.js";
import { fillMake, promptOf } from "./make.js";
import { enlarge, pictureFrom } from "./pictures.js";
import { all, BASE, list, v1 } from "./service.js";
import { showTraining, using } from "./trainings.js";

const KINDS = ["predictions", "trainings"];
let kind = "predictions", older = null;
/** Ends what the list follows. */
let shown = new AbortController();

export function setUpHistory(problem) {
  for (const each of KINDS) {
    $(`history-${each}`).addEventListener("click", () => {
      kind = each;
      for (const other of KINDS) $(`history-${other}`).setAttribute("aria-pressed", String(other === kind));
      loadHistory().catch(problem);
    });
  }
  $("history-more").addEventListener("click", () => more(older).catch(problem));
  using.version = async (version) => {
    await loadModels();
    $("make-model").value = version;
    location.hash = "#make";
  };
}

export async function loadHistory() {
  const loaded = await list(v1(kind));
  shown.abort();
  shown = new AbortController();
  $("history-list").replaceChildren();
  show(loaded);
}

const more = async (path) => show(await list(path));

function show({ results, next }) {
  const place = $("history-list");
  if (kind === "trainings") results.forEach((job) => showTraining(place, job, false, shown.signal));
  else place.append(...results.map(predictionOf));
  if (!place.children.length) {
    const [what, link] = kind === "trainings" ? ["Nothing trained yet.", el("a", { href: "#train" }, "Train on your pictures")] : ["Nothing made yet.", el("a", { href: "#make" }, "Make a picture")];
    place.append(el("div", { class: "empty" }, el("p", { class: "large" }, what), el("p", {}, link)));
  }
  older = next;
  $("history-more").hidden = !older;
}

function predictionOf(job) {
  const prompt = promptOf(job), pictures = Array.isArray(job.output) ? job.output : [];
  const time = job.metrics?.predict_time && duration(job.metrics.predict_time);
  const thumbs = pictures.map((url) => el("button", { type: "button", "aria-label": `Show large: ${prompt}`, onclick: () => enlarge(url, prompt) }, pictureFrom(url, { alt: "", loading: "lazy" })));
  return el("article", { class: "job past" },
    el("div", { class: "thumbs" }, ...(thumbs.length ? thumbs : [el("div", { class: `none ${job.status}` }, job.status === "canceled" ? "cancelled" : job.status)])),
    el("div", { class: "what" },
      el("h2", {}, prompt),
      el("p", { class: "about" }, [when(job.created_at), time, job.source === "api" ? "by the API" : null].filter(Boolean).join(" · ")),
      job.error ? el("p", { class: "problem" }, job.error) : null),
    el("div", { class: "actions" }, button("Use these settings", () => fillMake(job), { class: "small" })));
}

/** A model's name; that of the base model, with the model that computes in its place. */
const titled = (name) => (name === BASE && said("model") ? `${name} (${said("model")})` : name);

/** Models with their versions: for the list, and for the choice in Make. */
export async function loadModels() {
  const results = await all(v1("models"));
  const select = $("make-model"), chosen = select.value;
  const models = await Promise.all(results.filter((model) => model.latest_version).map(async (model) => {
    const name = `${model.owner}/${model.name}`;
    return { model, name, versions: await all(v1(`models/${name}/versions`)) };
  }));
  const titleOf = (name, version, at) => (at ? `${name}, ${when(version.created_at)}` : titled(name));
  select.replaceChildren(...models.flatMap(({ name, versions }) => versions.map((version, at) => el("option", { value: version.id }, titleOf(name, version, at)))));
  const base = models.find(({ name }) => name === BASE)?.versions[0].id;
  const isThere = [...select.options].some((option) => option.value === chosen);
  select.value = isThere ? chosen : base;
  $("models-list").replaceChildren(...models.map(modelOf));
}

function modelOf({ model, name, versions }) {
  const use = (id) => button("Use in Make", () => using.version(id), { class: "small" });
  return el("article", { class: "job" },
    el("h2", {}, el("span", {}, titled(name)), el("span", { class: "status" }, count(versions.length, "version", "versions"))),
    model.description ? el("p", { class: "about" }, model.description) : null,
    el("ul", { class: "versions" }, ...versions.map((version, at) => el("li", {},
      el("span", {}, at ? when(version.created_at) : `The newest, ${when(version.created_at)}`), el("code", { title: version.id }, version.id.slice(0, 12)), use(version.id)))));
}
