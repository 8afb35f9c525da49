// Pictures: a field that takes one, and the dialog that shows one large.

import { $, dropped, el } from "./dom.js";
import { upload } from "./service.js";

/** A place for one picture: chosen, dropped, or taken from a result. */
export class PictureField {
  constructor(name, about, changed) {
    this.changed = changed;
    this.input = el("input", { type: "file", accept: "image/*", class: "hidden", onchange: () => this.take(this.input.files[0]) });
    this.image = el("img", { alt: `The ${name}`, hidden: true });
    this.clear = el("button", { type: "button", class: "small", "aria-label": `Remove the ${name}`, hidden: true, onclick: () => this.take(null) }, "Remove");
    this.extra = el("span");
    this.element = el("div", { class: "drop" },
      el("p", {}, el("label", { class: "link" }, `Choose the ${name}`, this.input), ", or drop it here."),
      el("p", { class: "about" }, about),
      this.image,
      el("p", { class: "row" }, this.extra, this.clear));
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

/** A picture that the service has. Where its file is gone, which goes with its job, the picture's place says so. */
export function pictureFrom(url, attributes = {}) {
  const shown = el("img", { src: url, ...attributes });
  shown.addEventListener("error", () => shown.replaceWith(el("span", { class: "gone" }, "This picture is not there any more.")), { once: true });
  return shown;
}

/** Shows a picture large, with facts (`[name, value]` each) and buttons, which close the dialog. */
export function enlarge(url, prompt, facts = [], actions = []) {
  $("large-picture").replaceChildren(pictureFrom(url, { alt: prompt }));
  $("large-prompt").textContent = prompt;
  $("large-facts").replaceChildren(...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))]));
  $("large-actions").replaceChildren(...actions);
  for (const action of actions) action.addEventListener("click", () => $("large").close());
  if (!$("large").open) $("large").showModal();
}
