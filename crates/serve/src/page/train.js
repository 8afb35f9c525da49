// Train: the set and the settings, the preparation, which shows what is made of them, and the trainings.

import { $, button, dropped, el, say } from "./dom.js";
import { Form, schemas } from "./form.js";
import { Photos } from "./photos.js";
import { ProgressView } from "./progress.js";
import { Report } from "./report.js";
import { BASE, follow, jobPath, json, list, post, Refusal, upload, v1 } from "./service.js";
import { showTraining } from "./trainings.js";

/** Settings that say what is made of the pictures. */
const OF_THE_SET = ["seed", "resolution", "token_string", "caption_prefix", "mask_target_prompts", "crop_based_on_salience", "use_face_detection_instead", "clipseg_temperature"];
/** Trainings that are shown beside the form. */
const LATEST = 5;

let form, photos, report = null;
/** The set as it was uploaded last, until it changes. */
let uploaded = null;
/** The last preparation, for a page that is loaded again: its id, the form's values, the set's URL, the destination. */
const last = {
  get: () => JSON.parse(sessionStorage.getItem("preparation")),
  set: (preparation) => sessionStorage.setItem("preparation", JSON.stringify(preparation)),
  forget: () => sessionStorage.removeItem("preparation"),
};

export function setUpTrain() {
  form = new Form(schemas.TrainingInput, ["input_images", "input_images_filetype"]);
  form.place($("train-main"), ["token_string", "caption_prefix", "mask_target_prompts", "max_train_steps"]);
  form.place($("train-more-fields"));
  const resolution = form.control("resolution");
  photos = new Photos(() => { uploaded = null; showEmpty(); compare(); }, () => Number(resolution.value || resolution.placeholder));
  resolution.addEventListener("input", () => photos.sum());
  $("photos-input").addEventListener("change", async (event) => { await photos.add([...event.target.files]); event.target.value = ""; });
  dropped($("photos-drop"), (files) => photos.add(files));
  followToken();
  $("train-destination").value = "me/model-1";
  $("train-form").addEventListener("submit", (event) => { event.preventDefault(); attempt(prepare); });
  $("train-form").addEventListener("input", compare);
  window.addEventListener("beforeunload", (event) => { if (report?.isCorrected) event.preventDefault(); });
  $("train-direct").addEventListener("click", () => attempt(async () => train({ ...form.values(), input_images: await set() })));
  if (last.get()) restore(last.get());
}

/** The prefix has the token, as long as nobody writes another one. */
function followToken() {
  const token = form.control("token_string"), prefix = form.control("caption_prefix");
  const prefixOf = (word) => schemas.TrainingInput.properties.caption_prefix.default.replace("TOK", word);
  let former = token.value;
  token.addEventListener("input", () => {
    const word = token.value.trim() || "TOK";
    $("train-token").textContent = word;
    if (prefix.value === prefixOf(former)) prefix.value = prefixOf(word);
    former = word;
  });
}

export async function loadTrainings() {
  const { results } = await list(v1("trainings"));
  const shown = new Set([...$("trainings").children].map((child) => child.dataset.id));
  for (const job of results.slice(0, LATEST)) if (!shown.has(job.id)) showTraining($("trainings"), job, false);
  showEmpty();
  const price = await pricePerSecond();
  if (price) $("train-prices").textContent = `Preparing shows what the training learns from, and its time, memory and price, before it begins. A second of computing costs $${price}.`;
}

function showEmpty() {
  $("train-empty").hidden = !photos.isEmpty || Boolean(uploaded) || Boolean(report) || $("trainings").children.length > 0;
}

/** Does what a button asks for, with both buttons at rest meanwhile, and shows why it fails. */
async function attempt(action, place = $("train-problem")) {
  const buttons = [$("train-form").querySelector("button.main"), $("train-direct")];
  if (buttons.some((each) => each.disabled)) return;
  place.textContent = "";
  form.mark({});
  for (const each of buttons) each.disabled = true;
  try {
    if (photos.isEmpty && !uploaded) throw new Refusal("Choose some pictures first.");
    if (!$("train-destination").checkValidity()) {
      $("train-destination").focus();
      throw new Refusal("The name of the new model is owner/name, in small letters.");
    }
    await action();
  } catch (error) {
    place.textContent = error.message;
    form.mark(error.fields ?? {});
  } finally {
    for (const each of buttons) each.disabled = false;
  }
}

/** The set's URL. */
async function set() {
  if (!uploaded) {
    const file = await photos.file();
    say("Uploading the pictures");
    uploaded = await upload(file, file.name);
  }
  return uploaded;
}

// ------------------------------------------------------------------------------------------------ the preparation

async function prepare() {
  const values = form.values(), input = { ...values, input_images: await set() };
  const { id } = await post(v1("preparations"), { input });
  await showPreparation({ id, values, uploaded, destination: $("train-destination").value });
}

/** Goes on with the preparation of before the page was loaded again. */
function restore(preparation) {
  form.set(preparation.values);
  form.control("token_string").dispatchEvent(new Event("input"));
  $("train-destination").value = preparation.destination;
  $("photos-summary").textContent = "The pictures that were chosen before this page was loaded again.";
  uploaded = preparation.uploaded;
  attempt(() => showPreparation(preparation));
}

async function showPreparation(preparation) {
  const { id, values } = preparation;
  last.set(preparation);
  const view = new ProgressView();
  const cancel = button("Cancel", () => post(jobPath("preparation", id, "/cancel")).catch((error) => { view.line.textContent = error.message; }));
  const waiting = el("article", { class: "job" }, el("h2", {}, "Preparing the pictures"), view.element, el("div", { class: "actions" }, cancel));
  const former = report;
  $("report").replaceChildren(waiting);
  waiting.scrollIntoView({ block: "nearest" });
  say("Preparing the pictures");
  try {
    const over = await follow("preparation", id, { start: () => view.start(), progress: (progress) => view.progress(progress), lost: () => view.lost() });
    if (over.status === "failed") throw new Refusal(over.error || "The pictures could not be prepared.");
    if (over.status !== "succeeded") return showReport(former);
    const price = await pricePerSecond();
    showReport(new Report(over.output, { values, price, start, again: () => attempt(prepare), close: () => showReport(null), former }));
    report.element.querySelector("h2").focus();
  } catch (error) {
    showReport(former);
    throw error;
  }
}

function showReport(next) {
  report = next;
  if (!next) last.forget();
  $("report").replaceChildren(...(next ? [next.element] : []));
  $("photos").hidden = Boolean(next);
  showEmpty();
  compare();
}

/** Says in the report what it does not know of: settings and pictures that have changed since. */
function compare() {
  if (!report) return;
  const now = form.values(), then = report.values;
  const changed = [...new Set([...Object.keys(now), ...Object.keys(then)])].filter((name) => now[name] !== then[name]);
  report.changed({ set: uploaded === null || changed.some((name) => OF_THE_SET.includes(name)), others: changed.length > 0 });
}

const pricePerSecond = async () => (await json("/v1/hardware")).find((kind) => kind.price_per_second)?.price_per_second ?? null;

/** Trains with the set of a report, which shows why that fails. */
function start(setOf, problem) {
  return attempt(async () => {
    await train({ ...form.values(), input_images: await setOf() });
    showReport(null);
  }, problem);
}

async function train(input) {
  const base = await json(v1(`models/${BASE}`));
  const job = await post(v1(`models/${BASE}/versions/${base.latest_version.id}/trainings`), { destination: $("train-destination").value, input });
  const shown = showTraining($("trainings"), job, true);
  showEmpty();
  say(`The training of ${job.destination ?? "the model"} is in the queue`);
  shown.scrollIntoView({ block: "nearest" });
}
