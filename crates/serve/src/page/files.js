// What the files of a set are, by their names and their first bytes: as the trainer takes them.

const PICTURES = ["png", "jpg", "jpeg", "jfif", "webp", "bmp", "gif", "tif", "tiff"];
/** Formats of pictures that the trainer does not read. */
const UNREAD = ["heic", "heif", "hif", "avif", "jxl", "jp2", "j2k", "psd", "psb", "xcf", "pdf", "svg", "tga", "exr", "hdr", "ico", "dng", "cr2", "cr3", "nef", "arw", "raf", "orf", "rw2", "pef", "srw"];
const MASK = /(\.mask|-masklabel|_mask|-mask)\.\w+$/i;
/** Names of masks that a picture may have too. */
const MAYBE_MASK = /[_-]mask\.\w+$/i;
/** A file in a folder of masks, and the folders of pictures that may be beside that one. */
const IN_MASKS = /^(.*\/)?masks?\/([^/]+)$/i;
const BESIDE_MASKS = ["", "images/", "image/", "img/", "imgs/", "photos/", "pictures/"];
const ARCHIVE = /\.(zip|tar|tgz|tar\.gz)$/i;
/** What systems put beside the files, and what a preparation does: nobody misses these. */
const SYSTEM = /(^|\/)(\.[^/]*|__MACOSX|Thumbs\.db|ehthumbs\.db|desktop\.ini|@eaDir|\$RECYCLE\.BIN|preprocess\.json|dataset\.txt|contact_sheet\.png)(\/|$)/i;
/** How the files of pictures begin. */
const BEGINNINGS = { PNG: /^\x89PNG/, JPEG: /^\xff\xd8\xff/, GIF: /^GIF8/, BMP: /^BM/, WebP: /^RIFF....WEBP/s, TIFF: /^(II\*\0|MM\0\*)/ };

export const stem = (name) => name.replace(/\.[^./]+$/, "");
const stemOfMask = (name) => name.replace(MASK, "");
export const endingOf = (name) => /\.([^./]+)$/.exec(name)?.[1].toLowerCase() ?? "";

/** The use of a file: `picture`, `mask`, `text`, `table`, `archive`, `unread`, `other`; or null for what nobody misses. */
export function kindOf(name) {
  const ending = endingOf(name), base = name.split("/").at(-1).toLowerCase();
  if (SYSTEM.test(name)) return null;
  if (ARCHIVE.test(name)) return "archive";
  if (PICTURES.includes(ending)) return MASK.test(name) ? "mask" : "picture";
  if (["txt", "caption"].includes(ending)) return "text";
  if (["csv", "jsonl"].includes(ending) && (base.includes("caption") || base.startsWith("metadata."))) return "table";
  return UNREAD.includes(ending) ? "unread" : "other";
}

/** The format of a picture whose file begins with these bytes; undefined where they are no picture's. */
export function formatOf(bytes) {
  const text = String.fromCharCode(...bytes.subarray(0, 12));
  return Object.keys(BEGINNINGS).find((format) => BEGINNINGS[format].test(text));
}

/** Why a file is left out that is no part of a set. */
function whyNot(name, kind) {
  return kind === "unread" ? `${endingOf(name).toUpperCase()} is not read: save as PNG or JPEG` : "not a picture, caption or mask";
}

/** Which of these files are pictures, which are masks and captions of which picture, and which are left out, as `[name, why]`. */
export function partsOf(names) {
  const of = (kind) => names.filter((name) => kindOf(name) === kind);
  const isInMasks = (name) => IN_MASKS.test(name), plain = of("picture").filter((name) => !isInMasks(name));
  const stems = new Set(plain.map(stem)), parts = { pictures: plain, masks: new Map(), texts: new Map(), tables: of("table"), leftOut: [] };
  const mayBe = (name, kind) => (kind === "masks" && MAYBE_MASK.test(name)) || isInMasks(name);
  const add = (kind, name, places) => {
    const place = places.find((place) => stems.has(place));
    if (place !== undefined) parts[kind].set(place, name);
    else if (mayBe(name, kind)) parts.pictures.push(name);
    else parts.leftOut.push([name, `no picture ${places[0].split("/").at(-1)} beside it`]);
  };
  for (const name of of("mask")) add("masks", name, [stemOfMask(name)]);
  for (const name of of("picture").filter(isInMasks)) {
    const [, outside = "", base] = IN_MASKS.exec(name);
    add("masks", name, BESIDE_MASKS.map((folder) => outside + folder + stem(base)));
  }
  for (const name of of("text")) add("texts", name, [stem(name)]);
  for (const kind of ["unread", "other", "archive"]) parts.leftOut.push(...of(kind).map((name) => [name, whyNot(name, kind)]));
  return parts;
}

/** Files that are left out, with why, as lines: one for each reason. */
export function leftOutLines(leftOut) {
  const reasons = new Map();
  for (const [name, why] of leftOut) reasons.set(why, [...new Set([...(reasons.get(why) ?? []), name])]);
  const MOST = 8;
  return [...reasons].map(([why, names]) => `Left out: ${names.slice(0, MOST).join(", ")}${names.length > MOST ? ` and ${names.length - MOST} more` : ""} (${why})`);
}
