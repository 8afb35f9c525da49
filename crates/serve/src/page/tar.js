// Tar archives: their files.

const BLOCK = 512;
const REGULAR = ["0", "\0"], LONG_NAME = "L", EXTENDED = "x";

/** The files of an archive: their names, and a function that gives the first bytes of their contents. */
export async function listed(archive) {
  const files = [];
  let given = null;
  for (let at = 0; at + BLOCK <= archive.size;) {
    const head = new Uint8Array(await archive.slice(at, at + BLOCK).arrayBuffer());
    if (head.every((byte) => byte === 0)) break;
    const size = sizeOf(head), content = archive.slice(at + BLOCK, at + BLOCK + size), type = String.fromCharCode(head[156]);
    at += BLOCK * (1 + Math.ceil(size / BLOCK));
    // A name of more than a hundred bytes is a file of its own before its file.
    if (type === LONG_NAME) given = (await content.text()).split("\0")[0];
    else if (type === EXTENDED) given = /^\d+ path=(.*)$/m.exec(await content.text())?.[1] ?? given;
    else {
      if (REGULAR.includes(type)) files.push({ name: (given ?? nameOf(head)).replace(/^(\.\/)+/, ""), first: async () => new Uint8Array(await content.slice(0, 64).arrayBuffer()) });
      given = null;
    }
  }
  return files;
}

const text = (head, from, length) => new TextDecoder().decode(head.subarray(from, from + length)).split("\0")[0];

function nameOf(head) {
  const prefix = text(head, 257, 6).startsWith("ustar") ? text(head, 345, 155) : "";
  return [prefix, text(head, 0, 100)].filter(Boolean).join("/");
}

/** The size of the file that a header is of. */
function sizeOf(head) {
  const sum = head.reduce((sum, byte, at) => sum + (at >= 148 && at < 156 ? 32 : byte), 0);
  if (sum !== parseInt(text(head, 148, 8), 8)) throw new Error("The archive is no tar archive, or damaged.");
  // Sizes of 8 GiB and more are binary numbers.
  if (head[124] & 0x80) return head.subarray(128, 136).reduce((size, byte) => size * 256 + byte, 0);
  return parseInt(text(head, 124, 12), 8) || 0;
}
