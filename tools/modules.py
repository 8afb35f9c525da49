#!/usr/bin/env python3
"""Looks for circles among the modules of each crate: a module that needs one that needs it. Tests do not count.

    tools/modules.py            prints what each module needs, and fails where there is a circle

Read as text: `use` lines and paths that begin with `crate` or `super`, through what a module re-exports. Looked at are the modules of
each folder; a folder's `mod.rs` and its files count as one for the folders above it.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "crates"


def module(root: Path, file: Path) -> tuple[str, ...]:
    """`a/b.rs` and `a/b/mod.rs` → ("a", "b")."""
    parts = file.relative_to(root).with_suffix("").parts
    return parts[:-1] if parts[-1] in ("mod", "lib", "main") else parts


def code(file: Path) -> str:
    """Without tests and comments."""
    return re.sub(r"//[^\n]*", "", file.read_text().split("#[cfg(test)]\nmod tests {")[0])


def expand(path: str) -> list[str]:
    """`a::{b, c::{d}}` → [`a::b`, `a::c::d`]."""
    path = path.strip()
    match = re.match(r"^(.*?)\{(.*)\}$", path, re.S)
    if not match:
        return [re.sub(r"\s+as\s.*", "", path)]
    items, depth, item = [], 0, ""
    for c in match[2]:
        depth += {"{": 1, "}": -1}.get(c, 0)
        if c == "," and depth == 0:
            items, item = [*items, item], ""
        else:
            item += c
    return [full for one in [*items, item] if one.strip() for full in expand(match[1] + one.strip())]


def references(text: str) -> list[list[str]]:
    """Every path that begins with `crate`, `super` or `self`."""
    uses = re.findall(r"\buse\s+((?:crate|super|self)\b[^;]*);", text)
    rest = re.sub(r"\buse\s+[^;]*;", "", text)
    paths = [path for use in uses for path in expand(use)] + re.findall(r"\b(?:crate|super)(?:::\w+)+", rest)
    return [[part.strip() for part in path.split("::")] for path in paths]


def reexports(modules: dict) -> dict:
    """A name as its module shows it → the module that has it."""
    found = {}
    for own, text in modules.items():
        for base, target, names in re.findall(r"\bpub(?:\(\w+\))? use ((?:self|crate)::)?(\w+)::(\{[^}]*\}|\w+);", text):
            target = (() if base == "crate::" else own) + (target,)
            if target in modules:
                found |= {own + (name,): target for name in re.findall(r"\w+", names)}
    # A function may have the name of a module.
    return {name: target for name, target in found.items() if name not in modules}


def needs(modules: dict) -> set[tuple]:
    """Pairs of modules: the first needs the second."""
    shown, pairs = reexports(modules), set()
    for own, text in modules.items():
        for path in references(text):
            at = list(own)
            if path[0] == "crate":
                at, path = [], path[1:]
            while path and path[0] in ("super", "self"):
                at, path = (at[:-1] if path[0] == "super" else at), path[1:]
            full = tuple(at + path)
            moved = next((shown[full[:k]] for k in range(1, len(full) + 1) if full[:k] in shown), full)
            target = next(moved[:k] for k in range(len(moved), -1, -1) if moved[:k] in modules)
            pairs.add((own, target))
    return pairs


def circle(edges: dict) -> list[str] | None:
    """Modules of which each needs the next, and the last the first."""
    done = set()

    def walk(at: str, path: list[str]) -> list[str] | None:
        if at in path:
            return path[path.index(at) :]
        if at in done:
            return None
        for to in sorted(edges[at]):
            if found := walk(to, [*path, at]):
                return found
        done.add(at)
        return None

    return next((found for at in sorted(edges) if (found := walk(at, []))), None)


def main() -> None:
    failed = False
    for root in sorted(ROOT.glob("*/src")):
        modules = {module(root, file): code(file) for file in sorted(root.rglob("*.rs"))}
        modules = {own: text for own, text in modules.items() if own[-1:] != ("tests",)}
        pairs = needs(modules)
        for folder in sorted({own[:-1] for own in modules if own}):
            depth, edges = len(folder), defaultdict(set)
            for a, b in pairs:
                if a[:depth] == b[:depth] == folder and len(a) > depth < len(b) and a[depth] != b[depth]:
                    edges[a[depth]].add(b[depth])
            name = "/".join([root.parent.name, *folder])
            for at in sorted(edges):
                print(f"{name}: {at} → {', '.join(sorted(edges[at]))}")
            if found := circle(defaultdict(set, edges)):
                print(f"{name}: circle: {' → '.join([*found, found[0]])}", file=sys.stderr)
                failed = True
    sys.exit(failed)


if __name__ == "__main__":
    main()
