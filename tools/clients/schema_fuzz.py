#!/usr/bin/env python3
"""Requests by the schema, and such that are not, against a running service: schema_fuzz.py URL TOKEN

Schemathesis makes them from Cog's document, `/openapi.json`, and from the document below, of the other APIs, whose inputs are Cog's. No answer
may be a 5xx. EXAMPLES is the number of random requests of each operation, beside those at the schema's edges. The service computes nothing
(`--workers 0`), and the token may not end it; requests whose answer would wait for a picture are made when the queue is full.
"""

import json
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

TEXT = {"type": "string"}
URI = {"type": "string", "format": "uri"}
NUMBER = {"type": "integer"}
EVENTS = {"type": "array", "items": {"$ref": "#/components/schemas/WebhookEvent"}}
VERSION = "39ed52f2a78e934b3ba6e2a89f5b1c712de7dfea535525255b1aa35c5565e08b"
ID = {"type": "string", "enum": ["fuzz", "none", "a.b"]}
OWNER = {"type": "string", "enum": ["stability-ai", "me", "none"]}
NAME = {"type": "string", "enum": ["sdxl", "fox", "none"]}
VERSION_ID = {"type": "string", "enum": [VERSION, "none"]}


def component(name):
    return {"$ref": f"#/components/schemas/{name}"}


def job(kind, **more):
    return {"input": component(kind), "webhook": URI, "webhook_events_filter": EVENTS, **more}


PAGE = {"cursor": TEXT, "sort_by": TEXT, "sort_direction": TEXT, "created_after": TEXT, "created_before": TEXT, "model": TEXT, "source": TEXT}
MODEL = {"owner": OWNER, "name": NAME, "visibility": TEXT, "hardware": TEXT, "description": TEXT, "github_url": URI, "readme": TEXT}
NAMED = {"type": "string", "enum": [VERSION, "stability-ai/sdxl", f"stability-ai/sdxl:{VERSION}", "none"]}

# Path, method, fields of the query, required fields of the body, fields of the body.
AT_ONCE = [
    ("/v1/predictions", "get", PAGE, [], None),
    ("/v1/predictions", "post", {"file_urls": TEXT}, ["version"], job("Input", version=NAMED)),
    ("/v1/predictions/{id}", "get", {"file_urls": TEXT}, [], None),
    ("/v1/predictions/{id}/cancel", "post", {}, [], None),
    ("/v1/trainings", "get", PAGE, [], None),
    ("/v1/trainings", "post", {}, ["version", "destination"], job("TrainingInput", destination=TEXT, version=NAMED)),
    ("/v1/trainings/{id}", "get", {}, [], None),
    ("/v1/trainings/{id}/cancel", "post", {}, [], None),
    ("/v1/models", "get", PAGE, [], None),
    ("/v1/models", "post", {}, ["owner", "name", "visibility", "hardware"], MODEL),
    ("/v1/models/{owner}/{name}", "get", {}, [], None),
    ("/v1/models/{owner}/{name}", "patch", {}, [], MODEL),
    ("/v1/models/{owner}/{name}", "delete", {}, [], None),
    ("/v1/models/{owner}/{name}/readme", "get", {}, [], None),
    ("/v1/models/{owner}/{name}/predictions", "post", {}, [], job("Input")),
    ("/v1/models/{owner}/{name}/versions", "get", PAGE, [], None),
    ("/v1/models/{owner}/{name}/versions/{version}", "get", {}, [], None),
    ("/v1/models/{owner}/{name}/versions/{version}", "delete", {}, [], None),
    ("/v1/models/{owner}/{name}/versions/{version}/trainings", "post", {}, ["destination"], job("TrainingInput", destination=TEXT)),
    ("/v1/search", "get", {"query": TEXT, "limit": NUMBER}, [], None),
    ("/v1/files", "get", {"cursor": TEXT}, [], None),
    ("/v1/files/{id}", "get", {}, [], None),
    ("/v1/files/{id}", "delete", {}, [], None),
    ("/v1/files/{id}/download", "get", {"owner": TEXT, "expiry": TEXT, "signature": TEXT}, [], None),
    ("/outputs/{key}", "get", {"signature": TEXT}, [], None),
    ("/v1/collections/{name}", "get", {}, [], None),
    ("/sdapi/v1/options", "post", {}, [], {"sd_model_checkpoint": TEXT}),
    ("/sdapi/v1/progress", "get", {"skip_current_image": {"type": "boolean"}}, [], None),
]
IMAGES = {
    "prompt": TEXT, "model": TEXT, "n": NUMBER, "size": TEXT, "response_format": TEXT, "output_format": TEXT, "output_compression": NUMBER,
    "negative_prompt": TEXT, "seed": NUMBER, "steps": NUMBER, "guidance_scale": {"type": "number"}, "scheduler": TEXT, "stream": {"type": "boolean"},
}
TXT2IMG = {
    "prompt": TEXT, "negative_prompt": TEXT, "seed": NUMBER, "steps": NUMBER, "cfg_scale": {"type": "number"}, "width": NUMBER, "height": NUMBER,
    "sampler_name": TEXT, "scheduler": TEXT, "batch_size": NUMBER, "n_iter": NUMBER, "denoising_strength": {"type": "number"},
    "override_settings": {"type": "object"}, "alwayson_scripts": {"type": "object"}, "styles": {"type": "array"}, "enable_hr": {"type": "boolean"},
}
WAITING = [
    ("/v1/images/generations", "post", {}, ["prompt"], IMAGES),
    ("/sdapi/v1/txt2img", "post", {}, [], TXT2IMG),
    ("/sdapi/v1/img2img", "post", {}, ["init_images"], {**TXT2IMG, "init_images": {"type": "array", "items": TEXT}, "mask": TEXT}),
]
IN_PATH = {"id": ID, "owner": OWNER, "name": NAME, "version": VERSION_ID, "key": TEXT}


def document(cog, operations):
    """The document of operations, with the schemas of Cog's."""
    paths = {}
    for path, method, query, required, fields in operations:
        parameters = [{"in": "query", "name": name, "schema": schema} for name, schema in query.items()]
        names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        parameters += [{"in": "path", "name": name, "required": True, "schema": IN_PATH[name]} for name in names]
        operation = {"parameters": parameters, "responses": {"default": {"description": "any"}}}
        if fields is not None:
            schema = {"type": "object", "properties": fields, **({"required": required} if required else {})}
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
        paths.setdefault(path, {})[method] = operation
    return {"openapi": "3.0.2", "info": {"title": "The other APIs", "version": "1"}, "paths": paths, "components": cog["components"]}


def fuzz(url, token, folder, name, described, examples):
    """Runs Schemathesis with a document."""
    file = Path(folder) / f"{name}.json"
    file.write_text(json.dumps(described))
    # The package's own folder has the program, wherever pip has put it.
    command = [sys.executable, "-c", "import sys; from schemathesis.cli import schemathesis; sys.exit(schemathesis())", "run", file, "--url", url]
    options = ["--checks", "not_a_server_error", "--phases", "examples,coverage,fuzzing", "--max-examples", str(examples), "--seed", "1"]
    options += ["--generation-database", "none", "--request-timeout", "20", "--continue-on-failure", "--no-color", "--suppress-health-check", "all"]
    headers = ["-H", f"Authorization: Bearer {token}", "-H", "Prefer: respond-async"]
    ended = subprocess.run([*command, *options, *headers], capture_output=True, text=True, cwd=folder)
    if ended.returncode != 0:
        print(ended.stdout[-20000:], ended.stderr[-4000:], sep="\n")
        sys.exit(f"{name}: an answer was a 5xx, or Schemathesis did not run")
    cases = [line.strip() for line in ended.stdout.splitlines() if "generated" in line]
    print("schemathesis:", name, *cases[-1:])


def fill(url, token):
    """Makes jobs until no more may wait."""
    while True:
        headers = {"Authorization": f"Bearer {token}", "Prefer": "respond-async"}
        request = urllib.request.Request(f"{url}/predictions", data=b"{}", headers=headers)
        try:
            urllib.request.urlopen(request).close()
        except urllib.error.HTTPError as e:
            assert e.code == 409, e
            return


def main():
    url, token = sys.argv[1:3]
    examples = int(os.environ.get("EXAMPLES", "5"))
    with urllib.request.urlopen(urllib.request.Request(f"{url}/openapi.json", headers={"Authorization": f"Bearer {token}"})) as answer:
        cog = json.load(answer)
    with tempfile.TemporaryDirectory() as folder:
        fuzz(url, token, folder, "cog", cog, examples)
        fuzz(url, token, folder, "the-rest", document(cog, AT_ONCE), examples)
        fill(url, token)
        fuzz(url, token, folder, "pictures", document(cog, WAITING), examples)


main()
