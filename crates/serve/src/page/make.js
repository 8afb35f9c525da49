// Make: the form, pictures on their way, and the gallery.

import { $, button, count, duration, el, said, say, words } from "./dom.js";
import { Form, schemas } from "./form.js";
import { paintMask } from "./paint.js";
import { enlarge, PictureField, pictureFrom } from "./pictures.js";
import { ProgressView } from "./progress.js";
import { follow, isOver, jobPath, list, named, post, Refusal, v1 } from "./service.js";

const IDEAS = ["a red fox in the snow", "an octopus under water", "an owl in the forest at night", "a castle in the mountains"];
/** Prompts for the small model, which knows what they name. */
const EXAMPLES = ["an octopus in a city at night", "a watercolour of a rabbit in a meadow of flowers", "pixel art of a rocket in space"];
const isPocket = () => said("model") === "pocket";
/** Pictures of earlier that the gallery begins with. */
const EARLIER = 12;

let form, image, mask;

export function setUpMake() {
  form = new Form(schemas.Input, ["image", "mask", "replicate_weights"]);
  form.place($("make-main"), ["prompt"]);
  form.place($("make-size"), ["width", "height", "num_outputs"]);
  for (const name of ["width", "height", "num_outputs"]) form.fields.get(name)?.element.classList.add("bare");
  setUpPictures();
  form.place($("make-picture-fields"), ["prompt_strength"]);
  form.place($("make-more-fields"));
  $("make-form").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
  $("make-form").addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit(); });
  $("make-reset").addEventListener("click", () => { begin(); image.take(null); showProblem(null); form.control("prompt").focus(); });
  begin();
  $("make-pocket").hidden = !isPocket();
  const use = (example) => { form.control("prompt").value = example; form.control("prompt").focus(); };
  $("make-examples").append(...EXAMPLES.flatMap((example, at) => [at ? ", " : "", button(example, () => use(example), { class: "more" })]));
  $("make-ideas").append(...IDEAS.map((idea) => button(idea, () => { form.control("prompt").value = idea; submit(); }, { class: "chip" })));
}

/** Fills the form for a new picture. The default of the prompt is nothing that the small model knows. */
function begin() {
  form.set(isPocket() ? { prompt: IDEAS[0] } : {});
}

function setUpPictures() {
  const paint = button("Paint the mask on the picture", async () => {
    const painted = await paintMask({ title: "Paint what is to be made anew", picture: image.file, mask: mask.file });
    if (painted) mask.take(painted);
  }, { id: "make-paint", class: "small" });
  // A mask is of its picture.
  image = new PictureField("picture", "Its content changes as far as Prompt strength says.", () => { mask.take(null); mask.element.hidden = paint.hidden = !image.file; });
  mask = new PictureField("mask", "What is black stays, what is white is made anew.");
  image.extra.append(paint);
  mask.element.hidden = paint.hidden = true;
  $("make-picture-fields").append(image.element, mask.element);
}

/** Shows what is made now, and the last pictures of earlier. */
export async function loadGallery() {
  const { results } = await list(v1("predictions"));
  const running = results.filter((job) => !isOver(job));
  const earlier = results.filter((job) => job.status === "succeeded" && Array.isArray(job.output)).slice(0, EARLIER);
  $("make-gallery").append(...earlier.flatMap(picturesOf));
  running.reverse().forEach(watch);
  showEmpty();
}

function showEmpty() {
  $("make-empty").hidden = $("make-gallery").children.length > 0;
}

function showProblem(error) {
  $("make-problem").textContent = error ? error.message : "";
  form.mark(error?.fields ?? {});
}

/** What the form asks for. */
async function asked() {
  const input = form.values();
  input.prompt ??= form.control("prompt").value;
  const [imageUrl, maskUrl] = await Promise.all([image.url(), mask.url()]);
  if (imageUrl) input.image = imageUrl;
  if (maskUrl) input.mask = maskUrl;
  return { version: $("make-model").value, input };
}

async function submit(asks = asked) {
  const send = $("make-form").querySelector("button.main");
  if (send.disabled) return;
  send.disabled = true;
  showProblem(null);
  try {
    watch(await post(v1("predictions"), await asks()));
  } catch (error) {
    showProblem(error);
  } finally {
    send.disabled = false;
  }
}

/** Shows a prediction on its way, and its pictures in the same places when they are there. */
async function watch(job) {
  const waiting = new Waiting(job);
  $("make-gallery").prepend(...waiting.figures);
  showEmpty();
  waiting.figures[0].scrollIntoView({ block: "nearest" });
  say(`Making: ${promptOf(job)}`);
  try {
    const { view } = waiting;
    const over = await follow("prediction", job.id, {
      start: () => view.start(),
      progress: (progress) => view.progress(progress),
      preview: ({ index, url }) => waiting.preview(index, url),
      lost: () => view.lost(),
    });
    if (over.status === "failed") throw new Refusal(over.error || "The prediction failed.");
    const made = over.status === "succeeded" ? picturesOf(over) : [];
    const keptBack = (over.logs ?? "").split("\n").filter((line) => line.includes(" is kept back: "));
    waiting.replace([...made, ...(keptBack.length ? [failureOf(over, new Refusal(keptBack.join("\n")))] : [])]);
    say(made.length ? `${count(made.length, "picture is", "pictures are")} there: ${promptOf(over)}` : "Cancelled");
  } catch (error) {
    waiting.replace([failureOf(job, error)]);
  }
  showEmpty();
}

/** Figures in the places of pictures that are on their way. The first has the progress. */
class Waiting {
  constructor(job) {
    const { num_outputs: number = 1, width, height } = job.input ?? {};
    this.view = new ProgressView();
    this.frames = Array.from({ length: number }, () => el("div", { class: "frame" }));
    if (width && height) for (const frame of this.frames) frame.style.aspectRatio = `${width} / ${height}`;
    const cancel = button("Cancel", () => post(jobPath("prediction", job.id, "/cancel")).catch((error) => { this.view.line.textContent = error.message; }), { class: "small" });
    this.figures = this.frames.map((frame, at) => el("figure", { class: "picture waiting" }, frame,
      el("figcaption", {}, el("p", { class: "prompt" }, promptOf(job)), ...(at ? [] : [this.view.element, el("div", { class: "actions" }, cancel)]))));
  }

  preview(index, url) {
    const frame = this.frames[index];
    if (!frame) return;
    if (!frame.firstChild) frame.append(el("img", { alt: "What the picture is going to be" }));
    frame.firstChild.src = url;
  }

  replace(figures) {
    const hasFocus = this.figures.some((figure) => figure.contains(document.activeElement));
    this.figures[0].before(...figures);
    for (const figure of this.figures) figure.remove();
    if (hasFocus) (figures[0]?.querySelector("button") ?? form.control("prompt")).focus();
  }
}

function failureOf(job, error) {
  const figure = el("figure", { class: "picture failure" }, el("figcaption", {},
    el("p", { class: "prompt" }, promptOf(job)), el("p", { class: "problem", role: "alert" }, error.message),
    el("div", { class: "actions" }, button("Change and try again", () => { fillMake(job); figure.remove(); showEmpty(); }, { class: "small" }), button("Dismiss", () => { figure.remove(); showEmpty(); }, { class: "small quiet" }))));
  return figure;
}

export const promptOf = (job) => job.input?.prompt ?? schemas.Input.properties.prompt.default;
const seedOf = (job) => job.input?.seed ?? /seed: (\d+)/.exec(job.logs ?? "")?.[1];

/** What made a prediction's pictures, as names and values. */
function factsOf(job) {
  const { prompt, image: from, mask: painted, ...input } = job.input ?? {};
  const facts = [["Model", modelOf(job)], ...Object.entries(input).filter(([name, value]) => name !== "seed" && value !== "").map(([name, value]) => [words(name), value])];
  if (seedOf(job) !== undefined) facts.push(["Seed", seedOf(job)]);
  if (from) facts.push(["From", painted ? "a picture, with a mask" : "a picture"]);
  if (job.metrics?.predict_time) facts.push(["Time", duration(job.metrics.predict_time)]);
  return facts;
}

const modelOf = (job) => [...$("make-model").options].find((option) => option.value === job.version)?.text ?? job.model ?? "";

export function picturesOf(job) {
  return (job.output ?? []).map((url, number) => pictureOf(job, url, number));
}

function pictureOf(job, url, number) {
  const prompt = promptOf(job), input = job.input ?? {};
  const size = el("span");
  const shown = pictureFrom(url, { alt: prompt, loading: "lazy", onload: () => { size.textContent = `${shown.naturalWidth} × ${shown.naturalHeight}`; } });
  const brief = [
    input.num_inference_steps && `${input.num_inference_steps} steps`,
    input.guidance_scale && `guidance ${input.guidance_scale}`,
    seedOf(job) !== undefined && `seed ${seedOf(job)}`,
    job.metrics?.predict_time && duration(job.metrics.predict_time),
  ];
  const large = el("button", { type: "button", class: "frame", "aria-label": `Show large: ${prompt}`, onclick: () => showLarge(job, url, number) }, shown);
  return el("figure", { class: "picture" }, large, el("figcaption", {},
    el("p", { class: "prompt" }, prompt),
    el("p", { class: "brief" }, size, ...brief.filter(Boolean).map((fact) => el("span", {}, fact))),
    el("div", { class: "actions" }, ...actionsOf(job, url, number))));
}

function actionsOf(job, url, number) {
  const { seed, ...unseeded } = job.input ?? {};
  const again = () => { location.hash = "#make"; submit(() => ({ version: job.version, input: unseeded })); };
  const from = () => fillMake({ ...job, input: { ...unseeded, image: url, mask: undefined } });
  return [
    button("Again with this", again, { class: "small" }),
    button("Begin from this", from, { class: "small" }),
    el("a", { class: "button small", "aria-label": "Save the picture", href: url, download: `${job.id}-${number}.png` }, "Save"),
  ];
}

function showLarge(job, url, number) {
  enlarge(url, promptOf(job), factsOf(job), [button("Use these settings", () => fillMake(job), { class: "small" }), ...actionsOf(job, url, number)]);
}

/** Fills the form as a prediction was made. */
export async function fillMake(job) {
  const select = $("make-model");
  if (job.version && [...select.options].some((option) => option.value === job.version)) select.value = job.version;
  location.hash = "#make";
  showProblem(null);
  form.set(job.input ?? {});
  image.take(null);
  try {
    for (const [name, place] of [["image", image], ["mask", mask]]) {
      const address = job.input?.[name];
      if (!address) continue;
      const blob = await named(address);
      place.take(new File([blob], `${name}.png`, { type: blob.type }));
      $("make-picture").open = true;
      image.element.scrollIntoView({ block: "nearest" });
    }
  } catch (error) {
    showProblem(new Refusal(`The picture that this was made from is not here: ${error.message}`));
  }
}
