#!/usr/bin/env python3
"""Writes THIRD-PARTY.md: every crate that the binary may link, on any system, with its licence's text; then fonts and data.

    python3 tools/third_party.py        # in any folder; needs cargo and Python's standard library

Run again when Cargo.lock changes.
"""

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
| the pocket model (`models/pocket`) | made by this project (`tools/pocket`) | Apache-2.0 |
| the certificates of authorities that the hub's client trusts | Mozilla's list, through `webpki-roots` | CDLA-Permissive-2.0 |
"""


def linked():
    """The packages of other people that the binary depends on, without those that only tests and build scripts want."""
    metadata = json.loads(subprocess.check_output(["cargo", "metadata", "--locked", "--format-version", "1"], cwd=ROOT))
    packages = {p["id"]: p for p in metadata["packages"]}
    nodes = {n["id"]: n["deps"] for n in metadata["resolve"]["nodes"]}
    todo, seen = [next(i for i, p in packages.items() if p["name"] == "calotype")], set()
    while todo:
        package = todo.pop()
        if package not in seen:
            seen.add(package)
            todo += [d["pkg"] for d in nodes[package] if any(k["kind"] is None for k in d["dep_kinds"])]
    return sorted((packages[i] for i in seen if packages[i]["source"]), key=lambda p: (p["name"], p["version"]))


def texts(package):
    folder = pathlib.Path(package["manifest_path"]).parent
    for path in sorted(folder.iterdir()):
        if path.is_file() and LICENCE_FILE.match(path.name) and path.suffix not in (".rs", ".py"):
            yield "\n".join(line.rstrip() for line in path.read_text(errors="replace").strip().splitlines())


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
    out = "# What calotype is made with\n\nMade by `tools/third_party.py`; not edited by hand. calotype itself is Apache-2.0.\n\n"
    card = (ROOT / "models/pocket/README.md").read_text()
    clip = "\n".join(line for line in card[card.index("**Licence.**") :].splitlines() if line.startswith(">"))
    out += DATA + f"\nThe licence of CLIP's vocabulary:\n\n{clip}\n\n## Crates\n\n| crate | licence | source |\n|---|---|---|\n" + "\n".join(rows) + "\n\n## Texts\n"
    for text, names in users.items():
        out += f"\n### {', '.join(names)}\n\n" + "\n".join(f"    {line}".rstrip() for line in text.splitlines()) + "\n"
    (ROOT / "THIRD-PARTY.md").write_text(out)


main()
