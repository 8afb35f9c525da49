// The pictures of a training set, with what stands beside them, until they are an archive.

import { $, button, count, el } from "./dom.js";
import { zipped } from "./zip.js";

const PICTURE = /\.(png|jpe?g|webp|bmp|gif|tiff?)$/i;
const MASK = /(\.mask|-masklabel|_mask)\.png$/i;
const TABLE = /^(captions\.csv|metadata\.csv|metadata\.jsonl)$/i;
const stem = (name) => name.replace(/\.[^.]+$/, "");
const stemOfMask = (name) => name.replace(MASK, "");

export class Photos {
  /** `changed` is called after each change. */
  constructor(changed) {
    this.changed = changed;
    this.photos = [];
    this.archive = null;
    /** Tables of captions, by name. */
    this.tables = new Map();
    /** Texts and masks whose picture is not there yet, by its name without extension. */
    this.texts = new Map();
    this.masks = new Map();
    this.passedOver = [];
  }

  async add(files) {
    this.passedOver = [];
    for (const file of files) {
      const { name } = file;
      if (/\.(zip|tar)$/i.test(name)) this.archive = file;
      else if (TABLE.test(name)) this.tables.set(name, file);
      else if (/\.(txt|caption)$/i.test(name)) this.texts.set(stem(name), (await file.text()).trim());
      else if (MASK.test(name)) this.masks.set(stemOfMask(name), file);
      else if (PICTURE.test(name)) this.photos.push({ file, caption: null, mask: null });
      else if (!name.startsWith(".")) this.passedOver.push(name);
    }
    for (const photo of this.photos) {
      const name = stem(photo.file.name);
      if (this.texts.has(name)) photo.caption = this.texts.get(name);
      photo.mask ??= this.masks.get(name) ?? null;
      if (!photo.url) await look(photo);
    }
    this.show();
    this.changed();
  }

  get isEmpty() {
    return !this.archive && !this.photos.length;
  }

  remove(photo) {
    URL.revokeObjectURL(photo.url);
    this.photos = this.photos.filter((other) => other !== photo);
    this.show();
    this.changed();
    ($("photos").querySelector("button") ?? $("photos-input")).focus();
  }

  show() {
    $("photos").replaceChildren(...this.photos.map((photo) => this.item(photo)));
    const { archive, passedOver } = this, number = this.photos.length;
    const small = this.photos.filter((photo) => photo.width && Math.min(photo.width, photo.height) < 512).length;
    const summary = [
      archive && number ? "Either pictures or an archive: the archive is taken." : null,
      archive ? `The archive ${archive.name}, ${(archive.size / 1e6).toFixed(1)} MB.` : null,
      number ? `${count(number, "picture", "pictures")}${small ? `, ${small} of them under 512 pixels` : ""}.` : null,
      this.tables.size ? `Captions from ${[...this.tables.keys()].join(", ")}.` : null,
      passedOver.length ? `Not taken, as the trainer does not read such files: ${passedOver.slice(0, 5).join(", ")}${passedOver.length > 5 ? ` and ${passedOver.length - 5} more` : ""}.` : null,
    ];
    $("photos-summary").textContent = summary.filter(Boolean).join(" ");
    if (archive) $("photos-summary").append(" ", button("Remove the archive", () => { this.archive = null; this.show(); this.changed(); }, { class: "more" }));
  }

  item(photo) {
    const { name } = photo.file;
    const caption = el("textarea", { rows: "2", "aria-label": `Caption of ${name}`, placeholder: "Caption: written for you where this is empty", oninput: () => { photo.caption = caption.value; this.changed(); } });
    caption.value = photo.caption ?? "";
    const size = photo.width ? `${photo.width} × ${photo.height}` : "cannot be shown here";
    return el("li", {},
      el("div", { class: "square" }, el("img", { src: photo.url, alt: name })),
      caption,
      el("div", { class: "row" }, el("span", { class: photo.width ? "" : "warn" }, size, photo.mask ? ", with a mask" : ""), button("Remove", () => this.remove(photo), { class: "small quiet", "aria-label": `Remove ${name}` })));
  }

  /** The archive to upload. */
  async file() {
    if (this.archive) return this.archive;
    const files = [], seen = new Set(), bytes = async (file) => new Uint8Array(await file.arrayBuffer());
    for (const { file, caption, mask } of this.photos) {
      let name = file.name;
      for (let n = 2; seen.has(stem(name).toLowerCase()); n++) name = file.name.replace(/(\.[^.]+)?$/, `-${n}$1`);
      seen.add(stem(name).toLowerCase());
      files.push({ name, bytes: await bytes(file) });
      // An empty text would mean the prefix alone.
      if (caption?.trim()) files.push({ name: `${stem(name)}.txt`, bytes: new TextEncoder().encode(caption.trim()) });
      if (mask) files.push({ name: `${stem(name)}.mask.png`, bytes: await bytes(mask) });
    }
    for (const [name, file] of this.tables) files.push({ name, bytes: await bytes(file) });
    return new File([zipped(files)], "pictures.zip", { type: "application/zip" });
  }
}

async function look(photo) {
  photo.url = URL.createObjectURL(photo.file);
  const image = new Image();
  image.src = photo.url;
  try { await image.decode(); [photo.width, photo.height] = [image.naturalWidth, image.naturalHeight]; } catch { photo.width = 0; }
}
