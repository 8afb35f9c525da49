"""A service in a process of its own, and what its clients do. The standard library alone."""

import array
import base64
import functools
import http.client
import io
import json
import os
import random
import re
import shutil
import struct
import subprocess
import tempfile
import threading
import time
import zipfile
import zlib
from pathlib import Path

POCKET_UNET = Path(__file__).parents[2] / "models/pocket/unet/diffusion_pytorch_model.safetensors"
MODEL = "/v1/models/stability-ai/sdxl"


class Service:
    """`calotype serve` on a free port, in a folder of its own, which goes at the end."""

    def __init__(self, binary, *options):
        self.folder = tempfile.mkdtemp(prefix="calotype-load-")
        self.started = time.monotonic()
        command = [str(Path(binary).resolve()), "serve", "--listen=127.0.0.1:0", "--data", self.folder, *options]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.lines = []
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.search(r"listening on http://(\S+):(\d+)", line):
                break
        else:
            raise SystemExit("the service has not started:\n" + "".join(self.lines))
        self.listening = time.monotonic() - self.started
        self.host, self.port = found[1], int(found[2])
        # Nobody reads the log, but a full pipe would stop the service.
        threading.Thread(target=lambda: [None for _ in self.process.stderr], daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def request(self, method, path, body=None, headers=None, timeout=3600):
        """The status and the JSON of an answer."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        finally:
            connection.close()

    def ask(self, method, path, body=None, **more):
        """The JSON of an answer that is no error."""
        status, answer = self.request(method, path, body, **more)
        if status >= 400:
            raise SystemExit(f"{method} {path}: {status}: {answer}")
        return answer

    def submit(self, **fields):
        """Makes a prediction, and returns its id."""
        return self.ask("POST", f"{MODEL}/predictions", {"input": fields})["id"]

    def predict(self, **fields):
        """The seconds of a prediction from its request to its pictures, and the job."""
        start = time.monotonic()
        job = self.ask("POST", "/predictions", {"input": fields})
        if job["status"] != "succeeded":
            raise SystemExit(f"a prediction has not succeeded: {job.get('error')}\n{job.get('logs')}")
        return time.monotonic() - start, job

    def train(self, **fields):
        """Makes a training, and returns its id."""
        version = self.ask("GET", f"{MODEL}/versions")["results"][0]["id"]
        body = {"destination": "load/subject", "input": fields}
        return self.ask("POST", f"{MODEL}/versions/{version}/trainings", body)["id"]

    def upload(self, data, name):
        """Stores a file, and returns its URL."""
        head = f'--calotype\r\nContent-Disposition: form-data; name="content"; filename="{name}"\r\n\r\n'
        body = head.encode() + data + b"\r\n--calotype--\r\n"
        form = {"Content-Type": "multipart/form-data; boundary=calotype"}
        return self.ask("POST", "/v1/files", body, headers=form)["urls"]["get"]

    def job(self, kind, name):
        return self.ask("GET", f"/v1/{kind}s/{name}")

    def cancel(self, kind, name):
        return self.ask("POST", f"/v1/{kind}s/{name}/cancel", {})

    def wait(self, kind, name, is_right, pause=0.005):
        """The job, once `is_right` of it."""
        while True:
            job = self.job(kind, name)
            if is_right(job):
                return job
            if job["status"] in ("failed", "canceled"):
                raise SystemExit(f"{kind} {name}: {job['status']}: {job.get('error')}\n{job.get('logs')}")
            time.sleep(pause)

    def sizes(self):
        """The sizes in the system's account of the process, in bytes."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return {name: int(kib) * 1024 for name, kib in re.findall(r"(\w+):\s+(\d+) kB", text)}

    def memory(self):
        """The bytes that lie in memory: all, those that no file has, those of files, and those that were swapped out."""
        sizes = self.sizes()
        return [sizes.get(name, 0) for name in ("VmRSS", "RssAnon", "RssFile", "VmSwap")]

    def most_memory(self):
        """The most bytes that have lain in memory."""
        return self.sizes()["VmHWM"]

    def ticks(self):
        """The seconds of processors that the service has taken."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def data_uri(kind, data):
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def png(size, seed):
    """A PNG of coloured stripes."""
    draw = random.Random(seed)
    row = bytes(draw.randrange(256) for _ in range(3 * 16)) * (size // 16)
    rows = b"".join(b"\0" + row[3 * (y % 16):] + row[: 3 * (y % 16)] for y in range(size))

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def training_set(count=4, size=128):
    """A zip of pictures, as a data URI."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for i in range(count):
            archive.writestr(f"{i}.png", png(size, i))
    return data_uri("application/zip", file.getvalue())


@functools.cache
def shapes(unet=POCKET_UNET):
    """The shapes in a UNet's safetensors file."""
    with open(unet, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    return {key: entry["shape"] for key, entry in header.items() if key != "__metadata__"}


def lora(seed, unet=POCKET_UNET, rank=4):
    """A LoRA of the attention layers with random values, as PEFT names them in a safetensors file: its bytes."""
    draw = random.Random(seed)
    header, values = {}, array.array("f")
    layers = [key[: -len(".weight")] for key in shapes(unet) if re.search(r"attn\d\.to_(q|k|v|out\.0)\.weight$", key)]
    for layer in layers:
        out, inp = shapes(unet)[f"{layer}.weight"]
        for name, shape in (("lora_A", [rank, inp]), ("lora_B", [out, rank])):
            start = 4 * len(values)
            # As small as what a training leaves.
            values.extend(draw.uniform(-0.02, 0.02) for _ in range(shape[0] * shape[1]))
            entry = {"dtype": "F32", "shape": shape, "data_offsets": [start, 4 * len(values)]}
            header[f"unet.{layer}.{name}.weight"] = entry
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + values.tobytes()


def quantile(times, part):
    """The value that `part` of the times do not exceed."""
    times = sorted(times)
    return times[min(len(times) - 1, int(part * len(times)))]
