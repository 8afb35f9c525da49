// Zip archives: made anew, made from another one with some files replaced, added or left out, and listed.

const LOCAL = 0x04034b50, CENTRAL = 0x02014b50, END = 0x06054b50;
const END_SIZE = 22, LONGEST_COMMENT = 65535;

/** An archive of `files`, `{ name, bytes }` each, without compression. */
export function zipped(files) {
  return joined(files.map(added));
}

/** `archive` with `changes`: by name the new bytes, or null for a file that is left out. The bytes of the other files are copied as they are. */
export async function edited(archive, changes) {
  const kept = (await entriesOf(archive)).filter(({ name }) => !changes.has(name));
  const made = [...changes].filter(([, bytes]) => bytes).map(([name, bytes]) => added({ name, bytes }));
  return joined([...kept, ...made]);
}

/** The files of an archive: their names, and a function that gives the first bytes of their contents. */
export async function listed(archive) {
  const files = (await entriesOf(archive)).filter(({ name }) => !name.endsWith("/"));
  return files.map((entry) => ({ name: entry.name, first: () => firstOf(entry) }));
}

/** The first bytes of a file's content, which is stored (method 0) or compressed by deflate (8). */
async function firstOf({ central, data }) {
  const record = new DataView(central.buffer, central.byteOffset), head = new DataView(await data.slice(0, 30).arrayBuffer());
  const method = record.getUint16(10, true), from = 30 + head.getUint16(26, true) + head.getUint16(28, true);
  const content = data.slice(from, from + record.getUint32(20, true));
  if (method === 0) return new Uint8Array(await content.slice(0, 64).arrayBuffer());
  if (method !== 8) throw new Error("The archive is compressed in a way that is not read here.");
  const reader = content.stream().pipeThrough(new DecompressionStream("deflate-raw")).getReader();
  try {
    return (await reader.read()).value ?? new Uint8Array();
  } catch {
    return new Uint8Array();
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** The parts of an archive: `data` is what lies before the directory, `central` the directory's record. */
async function entriesOf(archive) {
  const view = async (from, to) => new DataView(await archive.slice(from, to).arrayBuffer());
  const start = Math.max(0, archive.size - END_SIZE - LONGEST_COMMENT), tail = await view(start, archive.size);
  let at = tail.byteLength - END_SIZE;
  while (at >= 0 && tail.getUint32(at, true) !== END) at -= 1;
  if (at < 0) throw new Error("The archive is no zip archive.");
  const [total, size, offset] = [tail.getUint16(at + 10, true), tail.getUint32(at + 12, true), tail.getUint32(at + 16, true)];
  if (total === 0xffff || offset === 0xffffffff) throw new Error("The archive is too large to be read here.");
  const directory = await view(offset, offset + size), entries = [];
  for (let from = 0; entries.length < total;) {
    const length = 46 + [28, 30, 32].reduce((sum, field) => sum + directory.getUint16(from + field, true), 0);
    const central = new Uint8Array(directory.buffer, from, length);
    const name = new TextDecoder().decode(central.subarray(46, 46 + directory.getUint16(from + 28, true)));
    entries.push({ name, central, offset: directory.getUint32(from + 42, true) });
    from += length;
  }
  // A file's data reach to the next file's, as their size may stand behind them only.
  const offsets = [...entries.map((entry) => entry.offset), offset].sort((a, b) => a - b);
  for (const entry of entries) {
    entry.data = archive.slice(entry.offset, offsets.find((next) => next > entry.offset));
    entry.size = entry.data.size;
  }
  return entries;
}

/** A file as a part of an archive. */
function added({ name, bytes }) {
  const title = new TextEncoder().encode(name), crc = crc32(bytes);
  const head = (signature, length, at) => {
    const view = new DataView(new ArrayBuffer(length));
    view.setUint32(0, signature, true);
    if (signature === CENTRAL) view.setUint16(4, 20, true);
    // Version 2.0, a name in UTF-8, stored, on 1 January 1980.
    [20, 0x0800, 0, 0, 0x21].forEach((value, index) => view.setUint16(at + 2 * index, value, true));
    [crc, bytes.length, bytes.length].forEach((value, index) => view.setUint32(at + 10 + 4 * index, value, true));
    view.setUint16(at + 22, title.length, true);
    return new Uint8Array(view.buffer);
  };
  const central = new Uint8Array(46 + title.length);
  central.set(head(CENTRAL, 46, 6));
  central.set(title, 46);
  return { name, central, data: new Blob([head(LOCAL, 30, 4), title, bytes]), size: 30 + title.length + bytes.length };
}

function joined(entries) {
  let offset = 0;
  const directory = entries.map(({ central, size }) => {
    const record = central.slice();
    new DataView(record.buffer).setUint32(42, offset, true);
    offset += size;
    return record;
  });
  const end = new DataView(new ArrayBuffer(END_SIZE));
  end.setUint32(0, END, true);
  [8, 10].forEach((at) => end.setUint16(at, entries.length, true));
  end.setUint32(12, directory.reduce((sum, record) => sum + record.length, 0), true);
  end.setUint32(16, offset, true);
  return new Blob([...entries.map(({ data }) => data), ...directory, new Uint8Array(end.buffer)], { type: "application/zip" });
}

const CRC = Uint32Array.from({ length: 256 }, (_, n) => { for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1; return n; });

function crc32(bytes) {
  let crc = -1;
  for (const byte of bytes) crc = CRC[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}
