"""The record of a benchmark run: a folder with README.md (machine, versions, commit, date), summary.txt (the printed
tables) and raw.json (each command line with every process's output and peak memory). Needs no torch."""

import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
PACKAGES = ("torch", "diffusers", "openvino", "peft")


def cpu(path="/proc/cpuinfo"):
    """-> (name, [family, model] where the system says them, instruction sets of interest)."""
    text = Path(path).read_text() if Path(path).exists() else ""
    values = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", text, re.M))
    name = values.get("model name") or platform.processor() or platform.machine()
    numbers = [values[k] for k in ("cpu family", "model") if k in values]
    return name, numbers, [f for f in FLAGS if re.search(rf"\b{f}\b", text)]


def versions():
    """-> {package: version} of the peers' packages that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def commit():
    """-> the repository's commit, with "-dirty" where tracked files differ from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def default_folder():
    """docs/benchmarks/runs/<date>-<cpu>; the CPU's family and model tell apart generations of one name."""
    name, numbers, _ = cpu()
    slug = re.sub(r"[^a-z0-9]+", "-", " ".join([name.lower(), *numbers])).strip("-")
    return ROOT / "docs/benchmarks/runs" / f"{date.today()}-{slug}"


def machine():
    name, _, flags = cpu()
    packages = ", ".join(f"{k} {v}" for k, v in versions().items())
    return f"{name}, {os.cpu_count()} CPUs, {' '.join(flags)}; {packages}"


class Record:
    """Prints lines, keeps them and the processes' results, and adds both to a folder at the end.

    Several commands may add to one folder: its README.md is that of the first."""

    def __init__(self, folder, arguments):
        self.folder = Path(folder) if folder else None
        self.arguments, self.lines, self.processes = arguments, [], []

    def print(self, line=""):
        print(line, flush=True)
        self.lines.append(line)

    def process(self, peer, arguments, result, peak_bytes):
        self.processes.append({"peer": peer, "arguments": self.shown(arguments), "result": result, "peak_bytes": peak_bytes})

    @staticmethod
    def shown(arguments):
        """Paths by their last part: a record does not tell where the files lay."""
        return [Path(x).name if os.sep in x and "\n" not in x else x for x in arguments]

    def save(self):
        if not self.folder:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        readme, raw = self.folder / "README.md", self.folder / "raw.json"
        if not readme.exists():
            readme.write_text(self.readme())
        entries = json.loads(raw.read_text()) if raw.exists() else []
        entries.append({"date": str(date.today()), "commit": commit(), "machine": machine(), "versions": versions(),
                        "command": self.shown(self.arguments), "processes": self.processes})
        raw.write_text(json.dumps(entries, indent=1) + "\n")
        with open(self.folder / "summary.txt", "a") as f:
            f.write(f"$ bench.py {' '.join(self.shown(self.arguments))}\n" + "\n".join(self.lines) + "\n\n")
        print(f"added to {self.folder}", file=sys.stderr)

    def readme(self):
        name, numbers, flags = cpu()
        family = f", family {numbers[0]} model {numbers[1]}" if len(numbers) == 2 else ""
        packages = ", ".join(f"{k} {v}" for k, v in versions().items()) or "none"
        return (f"# {name}, {date.today()}\n\nOutput of `tools/reference/bench/bench.py`.\n\n"
                f"- CPU: {name}{family}; {os.cpu_count()} CPUs; {' '.join(flags)}\n- commit: {commit()}\n"
                f"- date: {date.today()}\n- versions: {packages}\n\n"
                "`summary.txt` has the printed tables. `raw.json` has every command line with each process's output "
                "(seconds of each run) and its peak resident bytes.\n")
