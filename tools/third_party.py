#!/usr/bin/env python3
"""Writes THIRD-PARTY.md: fonts and data, every crate that the binary may link, on any system, Rust's standard library, and
the texts of their licences.

    python3 tools/third_party.py        # in any folder; needs cargo and Python's standard library

Run again when Cargo.lock changes, and before a release, with the release's compiler.
"""

import html
import json
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
LICENCE_FILE = re.compile(r"^(un)?licen[cs]e|^copying|^copyright|^notice", re.IGNORECASE)
DATA = """\
## Fonts and data

| what | from | licence |
|---|---|---|
| the letters on contact sheets and charts | X11's misc-fixed fonts, through `embedded-graphics` | public domain |
| the tokenizer of the pocket model (`vocab.json`, `merges.txt`) | OpenAI's CLIP, an excerpt of its vocabulary | MIT, © 2021 OpenAI |
| the merges of CLIP's tokenizer (`crates/models/src/tokenizer/clip_merges.txt.gz`) | OpenAI's CLIP, through `open_clip_torch` (`tools/clip_merges.py`) | MIT, © 2021 OpenAI |
| the networks for faces (`crates/models/src/faces/mediapipe.safetensors`) | MediaPipe, through its Python package 0.10.21 (`tools/faces.py`) | Apache-2.0, © The MediaPipe Authors |
| the pocket model (`models/pocket`) | made by this project (`tools/pocket`) | Apache-2.0 |
| the certificates of authorities that the hub's client trusts | Mozilla's list, through `webpki-roots` | CDLA-Permissive-2.0 |
"""

STANDARD_LIBRARY = """\
## Rust's standard library

Of Rust {version}, as linked on {host}. `core`, `alloc`, `std`, `std_detect`, `unwind`, `panic_unwind` and `backtrace` are MIT OR Apache-2.0, © The Rust
Project Developers and Contributors, 2014 Alex Crichton (`backtrace`), 2019 The Crossbeam Project Developers (`std::sync::mpmc`); the tables of `core::unicode` are
Unicode-3.0, © 1991-2024 Unicode, Inc. With them:

| crate | licence |
|---|---|
{rows}
"""
# Crates that the list of Rust's own notices lacks: builtins are a folder of Rust's own, the others belong to `backtrace`.
UNLISTED = {
    "addr2line": "Apache-2.0 OR MIT",
    "adler2": "0BSD OR MIT OR Apache-2.0",
    "compiler_builtins": "MIT AND Apache-2.0 WITH LLVM-exception AND (MIT OR Apache-2.0)",
    "memchr": "Unlicense OR MIT",
    "miniz_oxide": "MIT OR Zlib OR Apache-2.0",
    "object": "Apache-2.0 OR MIT",
}
# What only the tests' harness and proc macros link.
UNLINKED = {"getopts", "rustc_literal_escaper"}


def linked():
    """The packages of other people that the binary links, on any system: no macros, nor what only tests and build scripts want."""
    tree = ["cargo", "tree", "-p", "calotype", "--target", "all", "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}", "--locked"]
    names = {tuple(line.split()[:2]) for line in subprocess.check_output(tree, cwd=ROOT, text=True).splitlines()}
    metadata = json.loads(subprocess.check_output(["cargo", "metadata", "--locked", "--format-version", "1"], cwd=ROOT))
    packages = [p for p in metadata["packages"] if p["source"] and (p["name"], "v" + p["version"]) in names]
    return sorted(packages, key=lambda p: (p["name"], p["version"]))


def texts(package):
    folder = pathlib.Path(package["manifest_path"]).parent
    for path in sorted(folder.iterdir()):
        if path.is_file() and LICENCE_FILE.match(path.name) and path.suffix not in (".rs", ".py"):
            yield plain(path.read_text(errors="replace"))


def standard_library():
    """A row for each crate inside of Rust's standard library, and pairs of a name and a licence's text."""
    sysroot = pathlib.Path(subprocess.check_output(["rustc", "--print", "sysroot"], text=True).strip())
    said = subprocess.check_output(["rustc", "-vV"], text=True)
    version, host = (re.search(rf"^{field}: (.*)", said, re.MULTILINE)[1] for field in ("release", "host"))
    libraries = {re.sub(r"^lib|-[0-9a-f]+\.rlib$", "", p.name) for p in (sysroot / f"lib/rustlib/{host}/lib").glob("*.rlib")}
    notices = (sysroot / "share/doc/rust/COPYRIGHT-library.html").read_text()
    rows, pairs = [], []
    for crate in re.split(r"<h3>\W*", notices)[1:]:
        name, number = re.match(r"([\w-]+?)-(\d[^<]*)</h3>", crate).groups()
        if name.replace("-", "_") in libraries - UNLINKED:
            licence = re.search(r"<b>License:</b> (.*?)</p>", crate)[1]
            rows.append(f"| {name} {number} | {licence} |")
            pairs += [(f"{name} {number}", plain(html.unescape(text))) for text in re.findall(r"<pre>\n?(.*?)</pre>", crate, re.DOTALL)]
    rows += [f"| {name} | {licence} |" for name, licence in UNLISTED.items() if name in libraries]
    for name in ("Apache-2.0", "MIT", "LLVM-exception", "Unicode-3.0"):
        pairs.append(("Rust's standard library", plain((sysroot / f"share/doc/rust/licenses/{name}.txt").read_text())))
    return STANDARD_LIBRARY.format(version=version, host=host, rows="\n".join(sorted(rows))), pairs


def plain(text):
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def main():
    rows, users = [], {}
    for package in linked():
        name = f"{package['name']} {package['version']}"
        rows.append(f"| {name} | {package['license']} | {package['repository'] or ''} |")
        found = list(texts(package))
        if not found:
            authors = ", ".join(re.sub(r"\s*<.*?>", "", a) for a in package["authors"]) or f"the authors of {package['name']}"
            found = [f"(Without a file of its own: {package['license']}, © {authors}; the licence's text is among these.)"]
        for text in found:
            users.setdefault(text, []).append(name)
    section, pairs = standard_library()
    for name, text in pairs:
        if name not in users.setdefault(text, []):
            users[text].append(name)
    out = "# What calotype is made with\n\nMade by `tools/third_party.py`; not edited by hand. calotype itself is Apache-2.0.\n\n"
    card = (ROOT / "models/pocket/README.md").read_text()
    clip = "\n".join(line for line in card[card.index("**Licence.**") :].splitlines() if line.startswith(">"))
    out += DATA + f"\nThe licence of CLIP's vocabulary:\n\n{clip}\n\n## Crates\n\n| crate | licence | source |\n|---|---|---|\n" + "\n".join(rows) + f"\n\n{section}\n## Texts\n"
    for text, names in users.items():
        out += f"\n### {', '.join(names)}\n\n" + "\n".join(f"    {line}".rstrip() for line in text.splitlines()) + "\n"
    (ROOT / "THIRD-PARTY.md").write_text(out)


main()
