// The pictures of a training set, with what stands beside them, until they are an archive.

import { $, button, count, el } from "./dom.js";
import { endingOf, formatOf, kindOf, leftOutLines, partsOf, stem } from "./files.js";
import * as tar from "./tar.js";
import * as zip from "./zip.js";

const NO_PICTURE = "its content is not a picture", DAMAGED = "damaged: the picture cannot be read";

export class Photos {
  /** `changed` is called after each change; `side` gives the resolution of the training. */
  constructor(changed, side) {
    this.changed = changed;
    this.side = side;
    this.photos = [];
    this.archive = null;
    /** What the archive has in it: the line that says so, and what is left out of it. */
    this.listing = null;
    /** Captions, masks and tables of captions, by name. */
    this.beside = new Map();
    /** The files of the last choice that are left out, as `[name, why]`. */
    this.leftOut = [];
  }

  async add(files) {
    this.leftOut = [];
    for (const file of files) {
      const kind = kindOf(file.name);
      if (kind === "archive") await this.take(file);
      else if (kind === "picture") await this.addPicture(file);
      else if (kind) this.beside.set(file.name, file);
    }
    await this.match();
    this.show();
    this.changed();
  }

  async addPicture(file) {
    const photo = { file, caption: null, mask: null }, format = formatOf(new Uint8Array(await file.slice(0, 64).arrayBuffer()));
    await measure(photo);
    // Browsers show no TIFF, which the trainer reads.
    const isReadable = photo.width > 0 || format === "TIFF";
    if (isReadable) return this.photos.push(photo);
    URL.revokeObjectURL(photo.url);
    this.leftOut.push([file.name, format ? DAMAGED : NO_PICTURE]);
  }

  async take(archive) {
    if (this.archive) this.leftOut.push([this.archive.name, "one archive at a time"]);
    this.archive = archive;
    try {
      this.listing = await listingOf(archive);
    } catch (error) {
      this.listing = { line: error.message, leftOut: [] };
    }
  }

  /** Gives pictures their captions and masks, and knows which of these have no picture. */
  async match() {
    const parts = partsOf([...this.photos.map(({ file }) => file.name), ...this.beside.keys()]);
    const added = parts.pictures.filter((name) => this.beside.has(name));
    for (const name of added) {
      await this.addPicture(this.beside.get(name));
      this.beside.delete(name);
    }
    for (const photo of this.photos) {
      const name = stem(photo.file.name), text = parts.texts.get(name), mask = parts.masks.get(name);
      if (text && photo.text !== this.beside.get(text)) {
        photo.text = this.beside.get(text);
        photo.caption = (await photo.text.text()).trim();
      }
      photo.mask = mask ? this.beside.get(mask) : null;
    }
    this.tables = parts.tables;
    this.lone = parts.leftOut;
    // Of files that are nothing, the last choice is told.
    for (const [name] of parts.leftOut) if (!["text", "mask"].includes(kindOf(name))) this.beside.delete(name);
  }

  get isEmpty() {
    return !this.archive && !this.photos.length;
  }

  async remove(photo) {
    URL.revokeObjectURL(photo.url);
    this.photos = this.photos.filter((other) => other !== photo);
    this.leftOut = [];
    await this.match();
    this.show();
    this.changed();
    ($("photos").querySelector("button") ?? $("photos-input")).focus();
  }

  show() {
    $("photos").replaceChildren(...this.photos.map((photo) => this.item(photo)));
    this.sum();
  }

  /** Says what there is, and what is left out. */
  sum() {
    const { archive, listing, tables = [], lone = [] } = this, number = this.photos.length, side = this.side();
    const small = this.photos.filter((photo) => photo.width && Math.min(photo.width, photo.height) < side).length;
    const summary = [
      archive && number ? "Either pictures or an archive: the archive is taken." : null,
      archive ? `The archive ${archive.name}, ${(archive.size / 1e6).toFixed(1)} MB.` : null,
      archive && listing ? listing.line : null,
      number ? `${count(number, "picture", "pictures")}${small ? `, ${small} of them under ${side} pixels` : ""}.` : null,
      tables.length ? `Captions from ${tables.join(", ")}.` : null,
    ];
    $("photos-summary").textContent = summary.filter(Boolean).join(" ");
    if (archive) $("photos-summary").append(" ", button("Remove the archive", () => { this.archive = this.listing = null; this.sum(); this.changed(); }, { class: "more" }));
    const lines = leftOutLines([...this.leftOut, ...lone, ...((archive && listing?.leftOut) || [])]);
    $("photos-left-out").replaceChildren(...lines.map((line) => el("li", {}, line)));
  }

  item(photo) {
    const { name } = photo.file;
    const caption = el("textarea", { rows: "2", "aria-label": `Caption of ${name}`, placeholder: "Caption: written for you where this is empty", oninput: () => { photo.caption = caption.value; this.changed(); } });
    caption.value = photo.caption ?? "";
    const size = photo.width ? `${photo.width} × ${photo.height}` : "TIFF: not shown here";
    return el("li", {},
      el("div", { class: "square" }, photo.width ? el("img", { src: photo.url, alt: name }) : el("span", { class: "gone" }, name)),
      caption,
      el("div", { class: "row" }, el("span", {}, size, photo.mask ? ", with a mask" : ""), button("Remove", () => this.remove(photo), { class: "small quiet", "aria-label": `Remove ${name}` })));
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
      if (mask) files.push({ name: `${stem(name)}.mask.${endingOf(mask.name)}`, bytes: await bytes(mask) });
    }
    for (const name of this.tables) files.push({ name, bytes: await bytes(this.beside.get(name)) });
    return new File([zip.zipped(files)], "pictures.zip", { type: "application/zip" });
  }
}

/** What an archive has in it. */
async function listingOf(archive) {
  if (/gz$/i.test(archive.name)) return { line: "Preparing shows what is in it.", leftOut: [] };
  const { listed } = /\.tar$/i.test(archive.name) ? tar : zip;
  const files = await listed(archive), parts = partsOf(files.map(({ name }) => name)), leftOut = [...parts.leftOut];
  let number = 0;
  for (const { name, first } of files.filter(({ name }) => parts.pictures.includes(name))) {
    if (formatOf(await first())) number += 1;
    else leftOut.push([name, NO_PICTURE]);
  }
  const beside = [[parts.masks.size, "mask", "masks"], [parts.texts.size, "caption", "captions"]].filter(([number]) => number).map((each) => `, ${count(...each)}`);
  return { line: `It has ${count(number, "picture", "pictures")}${beside.join("")}.`, leftOut };
}

/** The picture's address here, and its size: 0 where the browser cannot show it. */
async function measure(photo) {
  photo.url = URL.createObjectURL(photo.file);
  const image = new Image();
  image.src = photo.url;
  try { await image.decode(); [photo.width, photo.height] = [image.naturalWidth, image.naturalHeight]; } catch { photo.width = 0; }
}
