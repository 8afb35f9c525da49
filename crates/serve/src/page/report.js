// What a training would learn from, before it begins: pictures, captions, masks, warnings, time, memory, price.

import { button, count, duration, el, memory } from "./dom.js";
import { paintMask } from "./paint.js";
import { enlarge, pictureFrom } from "./pictures.js";
import { blobOf, upload } from "./service.js";
import { edited } from "./zip.js";

const textOf = (name) => name.replace(/\.[^.]+$/, ".txt");
const maskOf = (name) => name.replace(/\.[^.]+$/, ".mask.png");

/** Settings that say how pictures are cropped, and how their masks are: a mask that was painted is of its cropped picture. */
const OF_THE_CROPS = ["resolution", "mask_target_prompts", "crop_based_on_salience", "use_face_detection_instead", "clipseg_temperature"];

/** The report of a preparation. `values` are the form's values that it was made with; `start` gets a function that makes the set's URL;
 * `former` is the report before, whose corrections are kept where the picture is the same. */
export class Report {
  constructor(output, { values, price, start, again, close, former }) {
    this.output = output;
    this.values = values;
    this.price = price;
    const hasSameCrops = OF_THE_CROPS.every((name) => former?.values[name] === values[name]);
    const before = (picture) => former?.pictures.find((other) => other.picture.name === picture.name && String(other.picture.size) === String(picture.size));
    this.pictures = output.pictures.map((picture) => new Picture(picture, before(picture), hasSameCrops, () => this.sum()));
    this.leftOut = el("p", { class: "notice", role: "status", hidden: true });
    this.notice = el("p", { class: "notice", hidden: true });
    const problem = el("p", { class: "problem", role: "alert" });
    this.start = button("Start training with these", () => start(() => this.set(), problem), { class: "main" });
    this.again = button("Prepare again", again, { hidden: true });
    const masks = el("input", { type: "checkbox", checked: true, onchange: () => grid.classList.toggle("without-masks", !masks.checked) });
    const grid = el("ul", { class: "squares", "aria-label": "The pictures that the training learns from" }, ...this.pictures.map((picture) => picture.element));
    const sheet = output.contact_sheet && button("Contact sheet", () => enlarge(output.contact_sheet, "The contact sheet"), { class: "small" });
    this.element = el("article", { class: "report", "aria-labelledby": "report-title" },
      el("h2", { id: "report-title", tabindex: "-1" }, "What the training learns from"),
      this.forecast(),
      this.leftOut,
      warningsOf(output.warnings.filter((warning) => !output.pictures.some((picture) => picture.warnings.some((own) => warning.includes(own))))),
      el("div", { class: "row tools" },
        output.pictures.some((picture) => picture.mask) ? el("label", {}, masks, " Show masks: what is dark does not count") : el("span", { class: "about" }, "Without a mask, all of a picture counts."),
        sheet),
      grid,
      el("div", { class: "bottom" }, this.notice, problem, el("div", { class: "actions" }, this.start, this.again, button("Back", close, { class: "quiet" }))));
    this.sum();
  }

  /** What is known of the training beforehand. What is not known is said. */
  forecast() {
    const { steps, seconds, bytes } = this.output.forecast ?? {}, unknown = "unknown";
    const dollars = seconds && this.price ? seconds * this.price : null;
    const price = dollars === null ? unknown : dollars < 0.01 ? "< $0.01" : `$${dollars.toFixed(2)}`;
    const tiles = [
      ["Pictures", ""],
      ["Steps", steps ?? unknown],
      ["Time, about", seconds ? duration(seconds) : unknown],
      ["Memory", bytes ? memory(bytes) : unknown],
      ...(this.price ? [["Price, about", price]] : []),
    ];
    this.tiles = el("dl", { class: "tiles" }, ...tiles.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", { class: value === unknown ? "unknown" : "" }, String(value)))));
    this.number = this.tiles.querySelector("dd");
    return this.tiles;
  }

  /** Says of how many pictures the training learns. */
  sum() {
    const all = this.pictures.length, out = this.pictures.filter((picture) => picture.isLeftOut).length;
    this.number.textContent = out ? `${all - out} of ${all}` : String(all);
    this.leftOut.hidden = !out;
    const { num_train_epochs: epochs, max_train_steps: steps } = this.values;
    const takes = epochs && !steps ? "fewer steps than above, and less time" : "as many steps with the others, and as much time";
    this.leftOut.textContent = out === all ? "All pictures are left out: there is nothing to learn from." : `${count(out, "picture is", "pictures are")} left out. The training takes ${takes}.`;
    this.start.disabled = out === all || Boolean(this.isStale);
  }

  changed({ set, others }) {
    this.notice.hidden = !others && !set;
    this.notice.textContent = set
      ? "The pictures, or settings that say what is made of them, have changed since. Prepare them again: captions that you have corrected are kept, and masks where pictures are cropped as before."
      : "Settings have changed since. The training takes the new ones; time, memory and price above are those of the former.";
    this.isStale = set;
    this.sum();
    this.again.hidden = !others && !set;
    this.tiles.classList.toggle("stale", others || set);
  }

  get isCorrected() {
    return this.pictures.some((picture) => picture.changes().size);
  }

  /** The URL of the set as it is corrected. */
  async set() {
    const changes = new Map(this.pictures.flatMap((picture) => [...picture.changes()]));
    if (!changes.size) return this.output.set;
    const bytes = new Map();
    for (const [name, change] of changes) bytes.set(name, change && new Uint8Array(await change.arrayBuffer()));
    return upload(await edited(await blobOf(this.output.set), bytes), "corrected.zip");
  }
}

function warningsOf(warnings) {
  if (!warnings?.length) return null;
  return el("ul", { class: "warnings" }, ...warnings.map((warning) => el("li", {}, warning)));
}

/** A picture as it was cropped, with its caption and mask, as they are corrected. */
class Picture {
  /** `changed` is called when the picture is left out, or taken again. */
  constructor(picture, former, hasSameCrop, changed) {
    this.picture = picture;
    this.isLeftOut = former?.isLeftOut ?? false;
    this.mask = (hasSameCrop && former?.mask) || null;
    const { name, size, upscaled, caption } = picture;
    this.caption = el("textarea", { rows: "3", "aria-label": `Caption of ${name}`, oninput: () => this.show() });
    this.caption.value = former && former.caption.value !== former.picture.caption ? former.caption.value : caption;
    this.overlay = el("img", { class: "mask", alt: "", onerror: () => { this.overlay.hidden = true; } });
    this.state = el("span");
    this.flag = el("span", { class: "flag" }, "Left out");
    this.problem = el("p", { class: "problem", role: "alert" });
    this.out = button("", () => { this.isLeftOut = !this.isLeftOut; this.show(); changed(); }, { class: "small quiet" });
    this.brush = button("Paint mask", () => this.paint().catch((error) => { this.problem.textContent = error.message; }), { class: "small", "aria-label": `Paint mask: ${name}` });
    const facts = [size?.length ? `${size[0]} × ${size[1]}` : null, upscaled ? "enlarged" : null];
    const large = el("button", { type: "button", class: "square", "aria-label": `Show large: ${name}`, onclick: () => enlarge(picture.picture, this.caption.value, [["File", name]]) }, pictureFrom(picture.picture, { alt: "", loading: "lazy" }), this.overlay, this.flag);
    this.element = el("li", {}, large,
      el("div", { class: "row" }, el("span", {}, facts.filter(Boolean).join(", ")), this.state),
      warningsOf(picture.warnings),
      this.caption,
      el("div", { class: "row" }, this.brush, this.out), this.problem);
    this.show();
  }

  get hasNewCaption() {
    return this.caption.value.trim() !== this.picture.caption.trim();
  }

  show() {
    const source = this.mask ? (this.url ??= URL.createObjectURL(this.mask)) : this.picture.mask;
    this.overlay.hidden = !source;
    if (source) this.overlay.src = source;
    this.element.classList.toggle("out", this.isLeftOut);
    this.flag.hidden = !this.isLeftOut;
    this.caption.disabled = this.brush.disabled = this.isLeftOut;
    this.out.textContent = this.isLeftOut ? "Take it again" : "Leave out";
    this.out.setAttribute("aria-label", `${this.out.textContent}: ${this.picture.name}`);
    this.state.textContent = this.isLeftOut ? "" : this.mask || this.hasNewCaption ? "corrected" : "";
  }

  async paint() {
    const [picture, mask] = await Promise.all([blobOf(this.picture.picture), this.mask ?? (this.picture.mask ? blobOf(this.picture.mask) : null)]);
    const painted = await paintMask({ title: "Paint what the training learns from", picture, mask });
    if (!painted) return;
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = null;
    this.mask = painted;
    this.show();
  }

  /** The files of the set that are not as they were made: their new contents, or null for those that are left out. */
  changes() {
    const { name } = this.picture;
    if (this.isLeftOut) return new Map([name, textOf(name), maskOf(name)].map((file) => [file, null]));
    const changes = new Map();
    if (this.hasNewCaption) changes.set(textOf(name), new Blob([this.caption.value.trim()]));
    if (this.mask) changes.set(maskOf(name), this.mask);
    return changes;
  }
}
