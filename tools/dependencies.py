#!/usr/bin/env python3
"""Checks Cargo.lock against deny.toml: licences, bans and sources. What cargo-deny does, for where it is not installed.

    python3 tools/dependencies.py       # in any folder; needs cargo and Python 3.11's standard library
"""

import json
import pathlib
import re
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"


def packages(targets):
    """Every package that a build on one of the targets compiles: for tests and for build scripts as well."""
    found = {}
    for target in targets:
        command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
        metadata = json.loads(subprocess.check_output(command, cwd=ROOT))
        nodes = {node["id"] for node in metadata["resolve"]["nodes"]}
        found |= {package["id"]: package for package in metadata["packages"] if package["id"] in nodes}
    return sorted(found.values(), key=lambda package: (package["name"], package["version"]))


def terms(licence):
    """`MIT/Apache-2.0 WITH LLVM-exception` → ["MIT", "or", "Apache-2.0 WITH LLVM-exception"]."""
    words = re.findall(r"[()]|[^\s()]+ WITH [^\s()]+|[^\s()]+", licence.replace("/", " OR "))
    return [word.lower() if word in ("AND", "OR") else word for word in words]


def is_allowed(licence, allowed):
    truth = (word if word in ("and", "or", "(", ")") else str(word in allowed) for word in terms(licence))
    return eval(" ".join(truth))  # of True, False, and, or and brackets alone


def licences(config, tree):
    """A complaint for each package whose licence is not allowed, and for each permission that nothing needs."""
    exceptions = {exception["crate"]: exception["allow"] for exception in config["exceptions"]}
    for package in tree:
        name, licence = package["name"], package["license"] or "(none)"
        if not is_allowed(licence, {*config["allow"], *exceptions.get(name, [])}):
            yield f"{name} {package['version']}: licence {licence} is not allowed"
    used = {word for package in tree for word in terms(package["license"] or "")}
    yield from (f"deny.toml: no crate has the licence {licence}" for licence in config["allow"] if licence not in used)
    names = {package["name"] for package in tree}
    yield from (f"deny.toml: there is no crate {name}" for name in exceptions if name not in names)


def bans(config, tree):
    """A complaint for each package that is banned."""
    banned = {ban["crate"]: ban["reason"] for ban in config["deny"]}
    for package in tree:
        if package["name"] in banned:
            yield f"{package['name']} {package['version']}: banned ({banned[package['name']]})"


def sources():
    """A complaint for each package of Cargo.lock that neither lies here nor comes from crates.io with a checksum."""
    for package in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]:
        source = package.get("source")
        if source and (source != CRATES_IO or "checksum" not in package):
            yield f"{package['name']} {package['version']}: from {source}, not from crates.io"


def main():
    config = tomllib.loads((ROOT / "deny.toml").read_text())
    tree = packages(config["graph"]["targets"])
    complaints = [*licences(config["licenses"], tree), *bans(config["bans"], tree), *sources()]
    sys.exit("\n".join(complaints) or None)


main()
