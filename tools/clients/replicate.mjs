// The npm package `replicate` against a running service: REPLICATE_BASE_URL, REPLICATE_API_TOKEN. The argument is the folder with node_modules.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import http from "node:http";

const require = createRequire(process.argv[2] + "/");
const Replicate = require("replicate");
const { validateWebhook } = Replicate;

const SDXL = "stability-ai/sdxl";
const PUBLISHED = "39ed52f2a78e934b3ba6e2a89f5b1c712de7dfea535525255b1aa35c5565e08b";
const SMALL = { prompt: "a red fox", width: 64, height: 64, num_inference_steps: 2, seed: 1 };
const replicate = new Replicate({ baseUrl: `${process.env.REPLICATE_BASE_URL}/v1`, auth: process.env.REPLICATE_API_TOKEN ?? "none" });
const bytes = async (file) => Buffer.from(await (await file.blob()).arrayBuffer());

const [made] = await replicate.run(SDXL, { input: SMALL });
const picture = await bytes(made);
assert.equal(picture.subarray(1, 4).toString(), "PNG");
const steps = [];
const [changed] = await replicate.run(`${SDXL}:${PUBLISHED}`, { input: { ...SMALL, image: new Blob([picture], { type: "image/png" }) }, wait: { mode: "poll", interval: 20 } }, (job) => steps.push(job.status));
assert.equal((await bytes(changed)).subarray(1, 4).toString(), "PNG");
assert.equal(steps[0], "starting");
assert.equal(steps.at(-1), "succeeded");
await assert.rejects(replicate.run(SDXL, { input: { ...SMALL, width: 63 } }), /422/);

const long = await replicate.predictions.create({ version: PUBLISHED, input: { ...SMALL, num_inference_steps: 500, width: 512, height: 512 } });
assert.equal((await replicate.predictions.cancel(long.id)).status, "canceled");
let found = false;
for await (const page of replicate.paginate(replicate.predictions.list)) found ||= page.some((job) => job.id === long.id);
assert(found);

const set = await replicate.files.create(new Blob(["none"]));
const training = await replicate.trainings.create("stability-ai", "sdxl", PUBLISHED, { destination: "clients/javascript", input: { input_images: set.urls.get } });
assert.equal((await replicate.trainings.cancel(training.id)).status, "canceled");
assert.equal((await replicate.models.get("stability-ai", "sdxl")).name, "sdxl");
assert.equal((await replicate.models.search("sdxl")).results[0].name, "sdxl");
assert.equal((await replicate.models.versions.get("stability-ai", "sdxl", PUBLISHED)).id, PUBLISHED);
assert((await replicate.collections.get("text-to-image")).models.length);
assert((await replicate.hardware.list())[0].sku);
assert((await replicate.accounts.current()).username);

const file = await replicate.files.create(new Blob([picture], { type: "image/png" }), { a: "b" });
assert.equal((await replicate.files.get(file.id)).size, picture.length);
assert((await replicate.files.list()).results.some((known) => known.id === file.id));
await replicate.files.delete(file.id);

// Needs a service with --allow-private-networks: the receiver is on this machine.
const secret = (await replicate.webhooks.default.secret.get()).key;
const received = new Promise((resolve) => {
  const server = http.createServer(async (request, response) => {
    const parts = [];
    for await (const part of request) parts.push(part);
    response.end();
    server.close();
    resolve({ headers: request.headers, body: Buffer.concat(parts).toString() });
  });
  server.listen(0, "127.0.0.1", () =>
    replicate.predictions.create({ version: PUBLISHED, input: SMALL, webhook: `http://127.0.0.1:${server.address().port}/`, webhook_events_filter: ["completed"] }));
});
const { headers, body } = await received;
assert(await validateWebhook({ id: headers["webhook-id"], timestamp: headers["webhook-timestamp"], signature: headers["webhook-signature"], body, secret }));
assert.equal(JSON.parse(body).status, "succeeded");
console.log("replicate for JavaScript works");
process.exit(0);
