// The page of the service. No library, no build step. Everything shown is made with textContent and attributes, never with HTML from data.

const $ = (id) => document.getElementById(id);

/** An element with attributes and children. `on…` attributes are listeners; strings become text. */
function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && typeof value !== "string") made[name] = value;
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// ---------------------------------------------------------------------------------------------------------------- the service

const BASE = "stability-ai/sdxl";
const token = { get: () => sessionStorage.getItem("token"), set: (value) => sessionStorage.setItem("token", value) };

/** The service's refusal: one line, and the fields that it names. */
class Refusal extends Error {
  constructor(message, fields = {}, status = 0) {
    super(message);
    this.fields = fields;
    this.status = status;
  }
}

/** Asks for a token until the dialog is closed with one. */
function askForToken() {
  return new Promise((resolve) => {
    const dialog = $("token-dialog");
    dialog.addEventListener("close", () => { token.set($("token-input").value.trim()); resolve(); }, { once: true });
    dialog.showModal();
  });
}

/** A request to the service. 401 asks for a token and tries again. */
async function request(path, options = {}) {
  const headers = new Headers(options.headers);
  if (token.get()) headers.set("Authorization", `Bearer ${token.get()}`);
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The service does not answer. Is it still running?");
  }
  if (answer.status === 401) {
    await askForToken();
    return request(path, options);
  }
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

/** Reads the forms that errors have: problem+json, or FastAPI's list of fields. */
async function refusal(answer) {
  const text = await answer.text();
  let body;
  try { body = JSON.parse(text); } catch { return new Refusal(text || `HTTP ${answer.status}`, {}, answer.status); }
  const fields = {};
  const listed = body.invalid_fields ?? (Array.isArray(body.detail) ? body.detail : []);
  for (const problem of listed) fields[problem.field?.replace(/^input\./, "") ?? problem.loc?.at(-1)] = problem.description ?? problem.msg;
  const detail = typeof body.detail === "string" ? body.detail : Object.entries(fields).map(([name, what]) => `${name}: ${what}`).join("\n");
  return new Refusal(detail || body.title || body.error || `HTTP ${answer.status}`, fields, answer.status);
}

const json = async (path, options) => (await request(path, options)).json();
const post = (path, body) => json(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body ?? {}) });
const v1 = (path) => `/v1/${path}${path.includes("?") ? "&" : "?"}file_urls=true`;

/** Uploads a file. The answer is the file's URL. */
async function upload(file, name) {
  const form = new FormData();
  form.append("content", file, name);
  return (await json("/v1/files", { method: "POST", body: form })).urls.get;
}

/** Follows a job's events until the job is over. `on` has a function for each name of an event. The answer is the job. */
async function follow(kind, id, on, signal) {
  for (;;) {
    try {
      const answer = await request(`/events/${kind}/${encodeURIComponent(id)}?file_urls=true`, { signal, headers: { Accept: "text/event-stream" } });
      const done = await readEvents(answer.body, on);
      if (done) return done;
    } catch (error) {
      if (error.name === "AbortError" || error.status === 404) throw error;
    }
    // The stream broke off: the job says whether it is over.
    const job = await json(v1(`${kind}s/${encodeURIComponent(id)}`), { signal });
    if (isOver(job)) return job;
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

async function readEvents(body, on) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return null;
    text += value.replaceAll("\r", "");
    for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
      const lines = text.slice(0, end).split("\n");
      const name = lines.find((line) => line.startsWith("event:"))?.slice(6).trim() ?? "message";
      const data = lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5).replace(/^ /, "")).join("\n");
      if (!data) continue;
      const parsed = JSON.parse(data);
      on[name]?.(parsed);
      if (name === "completed") { reader.cancel(); return parsed; }
    }
  }
}

const isOver = (job) => ["succeeded", "failed", "canceled"].includes(job.status);

// ---------------------------------------------------------------------------------------------------------------- forms from the schema

let schemas;

/** A property with what it refers to, and its choices. */
function resolved(property) {
  const parts = property.allOf ?? [property];
  const all = parts.map((part) => (part.$ref ? schemas[part.$ref.split("/").at(-1)] : part));
  return Object.assign({}, ...all, property);
}

const words = (name) => name.replaceAll("_", " ").replace(/^./, (first) => first.toUpperCase());

/** The fields of a request: `values()` has those that were changed, `set(values)` fills them, `mark(fields)` shows problems. */
class Form {
  constructor(schema, hidden = []) {
    this.fields = new Map();
    const properties = Object.entries(schema.properties).filter(([name]) => !hidden.includes(name));
    properties.sort(([, a], [, b]) => a["x-order"] - b["x-order"]);
    for (const [name, property] of properties) this.fields.set(name, this.field(name, resolved(property)));
  }

  field(name, schema) {
    const control = controlOf(name, schema);
    control.id = `${schema.title}-${name}-${Math.random().toString(36).slice(2, 8)}`;
    const about = el("span", { class: "about", id: `${control.id}-about` }, aboutOf(name, schema));
    control.setAttribute("aria-describedby", about.id);
    const title = el("span", { class: "name" }, words(name));
    const check = schema.type === "boolean";
    const label = el("label", { class: "field", for: control.id }, check ? el("span", { class: "check" }, control, title) : title, check ? null : control, about);
    if (control.tagName === "TEXTAREA") label.classList.add("wide");
    return { schema, control, label };
  }

  /** Moves fields into an element. */
  place(element, names) {
    for (const name of names ?? [...this.fields.keys()]) {
      const field = this.fields.get(name);
      if (field && !field.placed) { element.append(field.label); field.placed = true; }
    }
  }

  values() {
    const values = {};
    for (const [name, { schema, control }] of this.fields) {
      const value = valueOf(schema, control);
      if (value !== undefined && value !== schema.default) values[name] = value;
    }
    return values;
  }

  set(values) {
    for (const [name, { schema, control }] of this.fields) {
      const value = values[name] ?? schema.default;
      if (schema.type === "boolean") control.checked = Boolean(value);
      else control.value = value ?? "";
    }
  }

  mark(problems) {
    for (const [name, { control }] of this.fields) {
      if (name in problems) control.setAttribute("aria-invalid", "true");
      else control.removeAttribute("aria-invalid");
    }
    const first = this.fields.get(Object.keys(problems)[0]);
    first?.control.closest("details")?.setAttribute("open", "");
    first?.control.focus();
  }
}

/** A field's description without links' marks; none where it only repeats the name. */
function aboutOf(name, schema) {
  const said = (schema.description ?? "").replace(/\[([^\]]*)\]\([^)]*\)/g, "$1").replaceAll("`", "");
  const bare = said.toLowerCase().replace(/^input /, "");
  return bare === words(name).toLowerCase() ? "" : said;
}

function controlOf(name, schema) {
  if (schema.enum) {
    const select = el("select", {}, ...schema.enum.map((choice) => el("option", { value: choice }, choice)));
    select.value = schema.default ?? schema.enum[0];
    return select;
  }
  if (schema.type === "boolean") return el("input", { type: "checkbox", checked: Boolean(schema.default) });
  if (schema.type === "integer" || schema.type === "number") {
    const step = schema.multipleOf ?? (schema.type === "integer" ? 1 : "any");
    return el("input", { type: "number", inputmode: "decimal", step: String(step), min: text(schema.minimum), max: text(schema.maximum), value: text(schema.default ?? "") });
  }
  if (name.endsWith("prompt") || name.endsWith("prompts")) {
    const area = el("textarea", { rows: "3" });
    area.value = schema.default ?? "";
    return area;
  }
  return el("input", { type: "text", value: schema.default ?? "", spellcheck: "false" });
}

const text = (value) => (value === undefined || value === null ? null : String(value));

function valueOf(schema, control) {
  if (schema.type === "boolean") return control.checked;
  if (control.value === "") return schema.type === "string" && schema.default !== undefined ? "" : undefined;
  return schema.type === "integer" || schema.type === "number" ? Number(control.value) : control.value;
}

// ---------------------------------------------------------------------------------------------------------------- pictures given

/** A place for one picture: chosen, dropped, or taken from a result. */
class PictureField {
  constructor(name, about, changed) {
    this.changed = changed;
    this.input = el("input", { type: "file", accept: "image/*", class: "hidden", onchange: () => this.take(this.input.files[0]) });
    this.image = el("img", { alt: `The ${name}`, hidden: true });
    this.clear = el("button", { type: "button", class: "small quiet", hidden: true, onclick: () => this.take(null) }, "Remove");
    this.element = el("div", { class: "drop" }, el("p", {}, el("label", { class: "link" }, `Choose the ${name}`, this.input), el("span", { class: "about" }, ` ${about} `), this.clear), this.image);
    dropped(this.element, (files) => this.take(files[0]));
    this.file = null;
  }

  take(file) {
    this.file = file ?? null;
    if (this.shown) URL.revokeObjectURL(this.shown);
    this.shown = file ? URL.createObjectURL(file) : null;
    this.image.hidden = this.clear.hidden = !file;
    if (file) this.image.src = this.shown;
    else this.input.value = "";
    this.changed?.();
  }

  async url() {
    return this.file ? upload(this.file, this.file.name || "picture.png") : undefined;
  }
}

function dropped(element, take) {
  element.addEventListener("dragover", (event) => { event.preventDefault(); element.classList.add("over"); });
  element.addEventListener("dragleave", () => element.classList.remove("over"));
  element.addEventListener("drop", (event) => {
    event.preventDefault();
    element.classList.remove("over");
    if (event.dataTransfer.files.length) take([...event.dataTransfer.files]);
  });
}

/** The dialog in which a mask is painted over a picture. The answer is a PNG file, white where painted, or null. */
function paintMask(file) {
  return new Promise((resolve) => {
    const dialog = $("mask-dialog"), canvas = $("mask-canvas"), context = canvas.getContext("2d");
    const picture = new Image();
    const mask = document.createElement("canvas"), paint = mask.getContext("2d");
    let last = null, cursor = null, kept = null;
    const draw = () => {
      context.drawImage(picture, 0, 0);
      context.globalAlpha = 0.55;
      context.drawImage(mask, 0, 0);
      context.globalAlpha = 1;
      if (cursor) { context.strokeStyle = "#fff"; context.lineWidth = 2; context.beginPath(); context.arc(cursor.x, cursor.y, radius(), 0, 7); context.stroke(); }
    };
    const radius = () => (Number($("mask-size").value) / 200) * Math.max(canvas.width, canvas.height);
    const dab = (to) => {
      paint.globalCompositeOperation = $("mask-erase").checked ? "destination-out" : "source-over";
      paint.strokeStyle = "#e0401c";
      paint.lineCap = "round";
      paint.lineWidth = 2 * radius();
      paint.beginPath();
      paint.moveTo((last ?? to).x, (last ?? to).y);
      paint.lineTo(to.x + 0.01, to.y);
      paint.stroke();
      last = to;
      draw();
    };
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      return { x: ((event.clientX - box.left) * canvas.width) / box.width, y: ((event.clientY - box.top) * canvas.height) / box.height };
    };
    const fill = (painted) => {
      paint.globalCompositeOperation = "source-over";
      paint.clearRect(0, 0, mask.width, mask.height);
      paint.fillStyle = "#e0401c";
      if (painted) paint.fillRect(0, 0, mask.width, mask.height);
      draw();
    };
    canvas.onpointerdown = (event) => { canvas.setPointerCapture(event.pointerId); cursor = last = null; dab(at(event)); };
    canvas.onpointermove = (event) => { if (last) dab(at(event)); };
    canvas.onpointerup = canvas.onpointercancel = () => { last = null; };
    canvas.onkeydown = (event) => {
      const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!move && event.key !== " ") return;
      event.preventDefault();
      cursor ??= { x: canvas.width / 2, y: canvas.height / 2 };
      if (move) cursor = { x: cursor.x + move[0] * radius() / 2, y: cursor.y + move[1] * radius() / 2 };
      last = null;
      if (event.key === " ") { dab(cursor); last = null; }
      draw();
    };
    $("mask-all").onclick = () => fill(true);
    $("mask-none").onclick = () => fill(false);
    $("mask-cancel").onclick = () => dialog.close();
    $("mask-done").onclick = () => {
      const out = document.createElement("canvas");
      [out.width, out.height] = [mask.width, mask.height];
      const flat = out.getContext("2d"), pixels = paint.getImageData(0, 0, mask.width, mask.height);
      for (let i = 0; i < pixels.data.length; i += 4) {
        pixels.data.fill(pixels.data[i + 3], i, i + 3);
        pixels.data[i + 3] = 255;
      }
      flat.putImageData(pixels, 0, 0);
      out.toBlob((blob) => { kept = new File([blob], "mask.png", { type: "image/png" }); dialog.close(); }, "image/png");
    };
    dialog.addEventListener("close", () => { URL.revokeObjectURL(picture.src); resolve(kept); }, { once: true });
    picture.onload = () => {
      for (const surface of [canvas, mask]) [surface.width, surface.height] = [picture.naturalWidth, picture.naturalHeight];
      draw();
      dialog.showModal();
    };
    picture.onerror = () => resolve(null);
    picture.src = URL.createObjectURL(file);
  });
}

// ---------------------------------------------------------------------------------------------------------------- progress

const seconds = (value) => (value >= 90 ? `${Math.round(value / 60)} min` : `${Math.max(1, Math.round(value))} s`);

/** A bar with its line, previews and the curve of the losses. */
class ProgressView {
  constructor(element) {
    this.line = el("span", {}, "Waiting for a worker");
    this.left = el("span");
    this.bar = el("progress", { max: "1", "aria-label": "Progress" });
    this.curve = el("div");
    this.previews = el("div", { class: "previews" });
    element.replaceChildren(el("div", { class: "line", role: "status" }, this.line, this.left), this.bar, this.curve, this.previews);
    element.hidden = false;
  }

  progress({ stage, done, total, seconds_left: left, losses }) {
    this.line.textContent = `${words(stage)} ${total ? `${done} of ${total}` : ""}`;
    this.left.textContent = left ? `${seconds(left)} left` : "";
    if (total) this.bar.value = done / total;
    else this.bar.removeAttribute("value");
    if (losses?.length > 1) this.curve.replaceChildren(curveOf(losses, total));
  }

  preview({ index, url }) {
    const at = `preview-${index}`;
    let image = [...this.previews.children].find((child) => child.dataset.at === at);
    if (!image) {
      image = el("img", { alt: "What the picture is going to be" });
      image.dataset.at = at;
      this.previews.append(image);
    }
    image.src = url;
  }
}

/** The losses as a line, the last of them said in words. */
function curveOf(losses, steps) {
  const space = "http://www.w3.org/2000/svg";
  const make = (tag, attributes) => {
    const made = document.createElementNS(space, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };
  const values = losses.map(([, loss]) => loss);
  const low = Math.min(...values), high = Math.max(...values), span = high - low || 1;
  const last = Math.max(steps ?? 0, losses.at(-1)[0]) || 1;
  const points = losses.map(([step, loss]) => `${((100 * step) / last).toFixed(2)},${(38 - (36 * (loss - low)) / span).toFixed(2)}`);
  const svg = make("svg", { class: "curve", viewBox: "0 0 100 40", preserveAspectRatio: "none", role: "img", "aria-label": `The loss: ${values[0].toFixed(3)} at first, ${values.at(-1).toFixed(3)} now` });
  svg.append(make("path", { class: "frame", d: "M0 0V40H100" }), make("polyline", { points: points.join(" ") }));
  return el("figure", { class: "picture-less" }, svg, el("figcaption", { class: "about" }, `Loss ${values.at(-1).toFixed(4)} after step ${losses.at(-1)[0]}`));
}

// ---------------------------------------------------------------------------------------------------------------- make

const make = { form: null, image: null, mask: null, job: null };

function setUpMake() {
  make.form = new Form(schemas.Input, ["image", "mask", "replicate_weights"]);
  make.form.place($("make-main"), ["prompt", "negative_prompt"]);
  make.image = new PictureField("picture", "img2img: its content changes as far as Prompt strength says.", () => $("make-paint").hidden = !make.image.file);
  make.mask = new PictureField("mask", "black stays, white is made anew.");
  const paint = el("button", { type: "button", id: "make-paint", class: "small", hidden: true, onclick: async () => {
    const painted = await paintMask(make.image.file);
    if (painted) make.mask.take(painted);
  } }, "Paint the mask on the picture");
  $("make-picture-fields").append(make.image.element, paint, make.mask.element);
  make.form.place($("make-picture-fields"), ["prompt_strength"]);
  make.form.place($("make-more-fields"));
  $("make-form").addEventListener("submit", (event) => { event.preventDefault(); submitMake(); });
  $("make-form").addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submitMake(); });
  $("make-cancel").addEventListener("click", () => make.job && post(`/v1/predictions/${make.job}/cancel`).catch(showMakeProblem));
  $("make-reset").addEventListener("click", () => { make.form.set({}); make.image.take(null); make.mask.take(null); showMakeProblem(null); });
}

function showMakeProblem(error) {
  $("make-problem").textContent = error ? error.message : "";
  make.form.mark(error?.fields ?? {});
}

async function submitMake() {
  const button = $("make-form").querySelector("button.main");
  if (button.disabled) return;
  button.disabled = true;
  showMakeProblem(null);
  try {
    const input = make.form.values();
    input.prompt ??= make.form.fields.get("prompt").control.value;
    const [image, mask] = await Promise.all([make.image.url(), make.mask.url()]);
    if (image) input.image = image;
    if (mask) input.mask = mask;
    const job = await post(v1("predictions"), { version: $("make-model").value, input });
    make.job = job.id;
    $("make-cancel").hidden = false;
    const view = new ProgressView($("make-progress"));
    $("make-progress").scrollIntoView({ block: "nearest" });
    const over = await follow("prediction", job.id, { progress: (p) => view.progress(p), preview: (p) => view.preview(p) });
    if (over.status === "failed") throw new Refusal(over.error ?? "The prediction failed.");
    if (over.status === "succeeded") showPictures($("make-gallery"), over, true);
  } catch (error) {
    showMakeProblem(error);
  } finally {
    button.disabled = false;
    $("make-cancel").hidden = $("make-progress").hidden = true;
    make.job = null;
  }
}

/** The pictures of a prediction, each with what made it. */
function showPictures(gallery, job, first) {
  $("make-empty").hidden = true;
  const pictures = (job.output ?? []).map((url, number) => pictureOf(job, url, number));
  if (first) gallery.prepend(...pictures);
  else gallery.append(...pictures);
}

function pictureOf(job, url, number) {
  const input = job.input ?? {}, prompt = input.prompt ?? schemas.Input.properties.prompt.default;
  const image = el("img", { src: url, alt: prompt, loading: "lazy" });
  const facts = ["seed", "num_inference_steps", "guidance_scale", "scheduler", "refine"].filter((name) => input[name] !== undefined).map((name) => `${words(name)} ${input[name]}`);
  const time = job.metrics?.predict_time;
  if (time) facts.push(`${time.toFixed(1)} s`);
  const again = () => { fillMake(job); submitMake(); };
  const from = async () => {
    fillMake(job);
    make.image.take(await fileOf(url, `picture-${number}.png`));
    make.mask.take(null);
    $("make-picture").open = true;
    location.hash = "#make";
  };
  return el("figure", { class: "picture" },
    el("button", { type: "button", "aria-label": `Show large: ${prompt}`, onclick: () => enlarge(url, prompt) }, image),
    el("figcaption", {}, el("p", { class: "prompt" }, prompt), el("p", { class: "facts" }, facts.join(" · ")),
      el("div", { class: "actions" },
        el("button", { type: "button", class: "small", onclick: again }, "Again with this"),
        el("button", { type: "button", class: "small", onclick: from }, "Begin from this"),
        el("a", { href: url, download: `${job.id}-${number}.png` }, "Download"))));
}

async function fileOf(url, name) {
  const blob = await (await request(url)).blob();
  return new File([blob], name, { type: blob.type });
}

/** Fills the form as a prediction was made, without its seed. */
function fillMake(job) {
  const { seed, image, mask, ...input } = job.input ?? {};
  make.form.set(input);
  const select = $("make-model");
  if (job.version && [...select.options].some((option) => option.value === job.version)) select.value = job.version;
  location.hash = "#make";
}

function enlarge(url, prompt) {
  $("large-picture").src = url;
  $("large-picture").alt = prompt;
  $("large").showModal();
}

// ---------------------------------------------------------------------------------------------------------------- train

const train = { form: null, photos: [], archive: null, price: 0 };
const PICTURE = /\.(png|jpe?g|webp|bmp|gif|tiff?)$/i;

function setUpTrain() {
  train.form = new Form(schemas.TrainingInput, ["input_images", "input_images_filetype"]);
  train.form.place($("train-main"), ["token_string", "caption_prefix", "max_train_steps", "mask_target_prompts"]);
  train.form.place($("train-more-fields"));
  train.form.fields.get("token_string")?.control.addEventListener("input", (event) => { $("train-token").textContent = event.target.value || "TOK"; });
  $("photos-input").addEventListener("change", (event) => addPhotos([...event.target.files]));
  dropped($("photos-drop"), addPhotos);
  $("train-destination").value = "me/model-1";
  $("train-form").addEventListener("submit", (event) => { event.preventDefault(); submitTrain(); });
}

async function addPhotos(files) {
  for (const file of files) {
    if (/\.(zip|tar)$/i.test(file.name)) train.archive = file;
    else if (PICTURE.test(file.name) || file.type.startsWith("image/")) train.photos.push({ file, caption: "" });
  }
  const captions = new Map();
  for (const file of files.filter((file) => /\.txt$/i.test(file.name))) captions.set(file.name.replace(/\.txt$/i, ""), (await file.text()).trim());
  for (const photo of train.photos) photo.caption ||= captions.get(photo.file.name.replace(/\.[^.]+$/, "")) ?? "";
  await Promise.all(train.photos.filter((photo) => !photo.url).map(measure));
  showPhotos();
}

/** The size of a photo; a broken one has none. */
async function measure(photo) {
  photo.url = URL.createObjectURL(photo.file);
  const image = new Image();
  image.src = photo.url;
  try { await image.decode(); [photo.width, photo.height] = [image.naturalWidth, image.naturalHeight]; } catch { photo.width = 0; }
}

function showPhotos() {
  $("photos").replaceChildren(...train.photos.map((photo) => {
    const remove = el("button", { type: "button", class: "small quiet", "aria-label": `Remove ${photo.file.name}`, onclick: () => { train.photos = train.photos.filter((other) => other !== photo); showPhotos(); } }, "Remove");
    const caption = el("textarea", { "aria-label": `Caption of ${photo.file.name}`, placeholder: "Caption: found by itself, if empty", oninput: (event) => { photo.caption = event.target.value; } });
    caption.value = photo.caption;
    const size = photo.width ? `${photo.width} × ${photo.height}` : "cannot be shown here";
    return el("li", {}, el("img", { src: photo.url, alt: photo.file.name }), caption, el("div", { class: "row" }, el("span", { class: photo.width ? "" : "warn" }, size), remove));
  }));
  const count = train.photos.length;
  const small = train.photos.filter((photo) => photo.width && Math.min(photo.width, photo.height) < 512).length;
  const parts = [train.archive ? `The archive ${train.archive.name}` : null, count ? `${count} ${count === 1 ? "picture" : "pictures"}` : null, small ? `${small} under 512 pixels: enlarged before training` : null];
  $("photos-summary").textContent = train.archive && count ? "Either pictures or an archive: the archive is taken." : parts.filter(Boolean).join(", ");
}

/** A zip archive without compression. */
async function zipped(files) {
  const encoder = new TextEncoder(), parts = [], entries = [];
  let offset = 0;
  for (const { name, bytes } of files) {
    const title = encoder.encode(name), crc = crc32(bytes);
    const head = (signature, extra) => {
      const view = new DataView(new ArrayBuffer(signature === 0x04034b50 ? 30 : 46));
      view.setUint32(0, signature, true);
      const at = signature === 0x04034b50 ? 4 : 6;
      if (at === 6) view.setUint16(4, 20, true);
      [20, 0x0800, 0, 0, 0x21].forEach((value, index) => view.setUint16(at + 2 * index, value, true));
      [crc, bytes.length, bytes.length].forEach((value, index) => view.setUint32(at + 10 + 4 * index, value, true));
      view.setUint16(at + 22, title.length, true);
      if (at === 6) view.setUint32(42, extra, true);
      return new Uint8Array(view.buffer);
    };
    parts.push(head(0x04034b50), title, bytes);
    entries.push(head(0x02014b50, offset), title);
    offset += 30 + title.length + bytes.length;
  }
  const size = entries.reduce((sum, part) => sum + part.length, 0);
  const end = new DataView(new ArrayBuffer(22));
  end.setUint32(0, 0x06054b50, true);
  [8, 10].forEach((at) => end.setUint16(at, files.length, true));
  end.setUint32(12, size, true);
  end.setUint32(16, offset, true);
  return new Blob([...parts, ...entries, new Uint8Array(end.buffer)], { type: "application/zip" });
}

const CRC = Uint32Array.from({ length: 256 }, (_, n) => { for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1; return n; });
const crc32 = (bytes) => ~bytes.reduce((crc, byte) => CRC[(crc ^ byte) & 255] ^ (crc >>> 8), -1) >>> 0;

async function archiveOfPhotos() {
  const files = [], seen = new Set();
  for (const { file, caption } of train.photos) {
    let name = file.name;
    for (let n = 2; seen.has(name.replace(/\.[^.]+$/, "")); n++) name = file.name.replace(/(\.[^.]+)?$/, `-${n}$1`);
    seen.add(name.replace(/\.[^.]+$/, ""));
    files.push({ name, bytes: new Uint8Array(await file.arrayBuffer()) });
    if (caption.trim()) files.push({ name: name.replace(/\.[^.]+$/, ".txt"), bytes: new TextEncoder().encode(caption.trim()) });
  }
  return zipped(files);
}

async function submitTrain() {
  const button = $("train-form").querySelector("button.main");
  $("train-problem").textContent = "";
  train.form.mark({});
  button.disabled = true;
  try {
    if (!train.archive && !train.photos.length) throw new Refusal("Choose some pictures first.");
    if (!$("train-destination").checkValidity()) throw new Refusal("The name of the new model is owner/name, in small letters.");
    const set = train.archive ?? await archiveOfPhotos();
    const name = train.archive?.name ?? "pictures.zip";
    const input = { ...train.form.values(), input_images: await upload(set, name), input_images_filetype: "infer" };
    const base = await json(v1(`models/${BASE}`));
    const path = `models/${BASE}/versions/${base.latest_version.id}/trainings`;
    const job = await post(v1(path), { destination: $("train-destination").value, input });
    showTraining($("trainings"), job, true);
  } catch (error) {
    $("train-problem").textContent = error.message;
    train.form.mark(error.fields ?? {});
  } finally {
    button.disabled = false;
  }
}

/** A training: its progress where it goes on, else its result. */
function showTraining(list, job, first) {
  const status = el("span", { class: `status ${job.status}` }, job.status);
  const body = el("div"), actions = el("div", { class: "actions" });
  const element = el("article", { class: "job" }, el("h2", {}, el("span", {}, job.destination ?? job.model ?? "A training"), status), body, actions);
  if (first) list.prepend(element);
  else list.append(element);
  const finished = (over) => {
    status.textContent = [over.status, over.metrics?.predict_time && seconds(over.metrics.predict_time)].filter(Boolean).join(", ");
    status.className = `status ${over.status}`;
    const version = over.output?.version?.split(":").at(-1);
    const use = () => { loadModels().then(() => { $("make-model").value = version; location.hash = "#make"; }); };
    actions.replaceChildren(
      version ? el("button", { type: "button", class: "main", onclick: use }, "Use in Make") : "",
      over.output?.weights ? el("a", { href: over.output.weights, download: "trained_model.tar" }, "Download the weights") : "");
    if (over.error) body.append(el("p", { class: "problem" }, over.error));
    if (over.logs) body.append(el("details", {}, el("summary", {}, "Log"), el("pre", {}, over.logs)));
  };
  if (isOver(job)) return finished(job);
  const view = new ProgressView(body);
  actions.append(el("button", { type: "button", onclick: () => post(`/v1/trainings/${job.id}/cancel`).catch((error) => { status.textContent = error.message; }) }, "Cancel"));
  follow("training", job.id, { start: () => { status.textContent = "processing"; }, progress: (p) => view.progress(p), preview: (p) => view.preview(p) })
    .then((over) => { view.bar.hidden = true; view.line.textContent = view.left.textContent = ""; finished(over); })
    .catch((error) => { status.textContent = error.message; });
}

// ---------------------------------------------------------------------------------------------------------------- history and models

let older = null;

async function loadHistory(more) {
  const list = $("history-list");
  if (!more) list.replaceChildren();
  const page = await json(more ? older : v1("predictions"));
  if (!more) {
    const trainings = await json(v1("trainings"));
    trainings.results.slice(0, 10).forEach((job) => showTraining(list, job));
  }
  for (const job of page.results) list.append(historyOf(job));
  older = page.next ? withFileUrls(page.next) : null;
  $("history-more").hidden = !older;
  if (!list.children.length) list.append(el("p", { class: "empty" }, "Nothing yet."));
}

/** The path of a page's URL, whose origin may be another behind a proxy. */
function withFileUrls(address) {
  const url = new URL(address, location.href);
  url.searchParams.set("file_urls", "true");
  return url.pathname.replace(/^\/v1\/v1/, "/v1") + url.search;
}

function historyOf(job) {
  const prompt = job.input?.prompt ?? schemas.Input.properties.prompt.default;
  const when = new Date(job.created_at).toLocaleString();
  const thumbs = (Array.isArray(job.output) ? job.output : []).map((url) => el("button", { type: "button", class: "quiet", "aria-label": `Show large: ${prompt}`, onclick: () => enlarge(url, prompt) }, el("img", { src: url, alt: prompt, loading: "lazy" })));
  return el("article", { class: "job" },
    el("h2", {}, el("span", {}, prompt), el("span", { class: `status ${job.status}` }, `${job.status}, ${when}`)),
    job.error ? el("p", { class: "problem" }, job.error) : null,
    el("div", { class: "thumbs" }, ...thumbs),
    el("div", { class: "actions" }, el("button", { type: "button", class: "small", onclick: () => fillMake(job) }, "Use these settings")));
}

/** The results of all pages of a list. */
async function all(path) {
  const results = [];
  for (let next = path; next;) {
    const page = await json(next);
    results.push(...page.results);
    next = page.next ? withFileUrls(page.next) : null;
  }
  return results;
}

/** Models with their versions: for the list, and for the choice in Make. */
async function loadModels() {
  const results = await all(v1("models"));
  const select = $("make-model"), chosen = select.value;
  const options = [], articles = [];
  for (const model of results.filter((model) => model.latest_version)) {
    const name = `${model.owner}/${model.name}`;
    const versions = await all(v1(`models/${name}/versions`));
    versions.forEach((version, index) => options.push(el("option", { value: version.id }, index === 0 ? name : `${name}, ${new Date(version.created_at).toLocaleString()}`)));
    articles.push(el("article", { class: "job" }, el("h2", {}, el("span", {}, name), el("span", { class: "status" }, `${versions.length} ${versions.length === 1 ? "version" : "versions"}`)),
      model.description ? el("p", { class: "about" }, model.description) : null,
      el("div", { class: "actions" }, el("button", { type: "button", class: "small", onclick: () => { select.value = model.latest_version.id; location.hash = "#make"; } }, "Use in Make"))));
  }
  select.replaceChildren(...options);
  if (options.some((option) => option.value === chosen)) select.value = chosen;
  $("models-list").replaceChildren(...articles);
}

// ---------------------------------------------------------------------------------------------------------------- pages

const PAGES = { make: loadModels, train: () => {}, history: () => loadHistory(false), models: loadModels };

function showPage() {
  const name = location.hash.slice(1) in PAGES ? location.hash.slice(1) : "make";
  for (const page of Object.keys(PAGES)) {
    $(page).hidden = page !== name;
    const link = document.querySelector(`nav a[href="#${page}"]`);
    if (page === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${words(name)} – calotype`;
  window.scrollTo(0, 0);
  Promise.resolve(PAGES[name]()).catch(showServiceProblem);
}

function showServiceProblem(error) {
  $("service").textContent = error.message;
}

async function begin() {
  schemas = (await json("/openapi.json")).components.schemas;
  setUpMake();
  setUpTrain();
  $("history-more").addEventListener("click", () => loadHistory(true).catch(showServiceProblem));
  window.addEventListener("hashchange", () => { showPage(); $("main").focus(); });
  showPage();
}

begin().catch(showServiceProblem);
