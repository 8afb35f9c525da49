// The page in a browser against a running service: REPLICATE_BASE_URL, REPLICATE_API_TOKEN, CHROMIUM. The argument is the folder with node_modules;
// a second one is a folder for pictures of the screen.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { deflateRawSync } from "node:zlib";

import { accessible, fits, readable } from "./page_checks.mjs";

const { chromium } = createRequire(process.argv[2] + "/")("playwright-core");
const [url, token, shots] = [process.env.REPLICATE_BASE_URL, process.env.REPLICATE_API_TOKEN, process.argv[3]];
const HOSTILE = `"'><img src=x onerror=alert(1)><script>alert(2)</script>`;
const SLOW = 60_000;

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
const page = await browser.newPage({ viewport: { width: 1280, height: 860 }, hasTouch: true });
page.setDefaultTimeout(15_000);

/** What must not happen, by the time of the end. */
const wrong = [];
/** Statuses that a step expects of the service. */
let expected = [401];
page.on("pageerror", (error) => wrong.push(error.message));
page.on("console", (message) => {
  const isExpected = expected.some((status) => message.text().includes(`status of ${status}`));
  if (["error", "warning"].includes(message.type()) && !isExpected) wrong.push(message.text());
});
page.on("dialog", (dialog) => { wrong.push(`a script from a text ran: ${dialog.message()}`); dialog.dismiss(); });
page.on("request", (request) => {
  const to = new URL(request.url());
  if (!["data:", "blob:"].includes(to.protocol) && to.origin !== url) wrong.push(`a request to ${to}`);
});

const button = (name, place = page) => place.getByRole("button", { name, exact: true });
const field = (name) => page.locator("section:not([hidden])").getByLabel(name, { exact: true });
const figures = page.locator("#make-gallery figure:not(.waiting)");
const shot = async (name) => { if (shots) await page.screenshot({ path: `${shots}/${name}.png` }); };
const posted = (path) => page.waitForRequest((request) => request.method() === "POST" && new URL(request.url()).pathname === path);
const api = async (path) => (await fetch(new URL(path, url), { headers: { Authorization: `Bearer ${token}` } }));

/** Presses Tab until an element has the focus, and sees on the way that the focus is shown. */
async function tabTo(locator) {
  for (let presses = 0; presses < 200; presses++) { // a gallery has many buttons
    if (await locator.evaluate((element) => element === document.activeElement)) return;
    await page.keyboard.press("Tab");
    const shown = await page.evaluate(() => {
      const style = getComputedStyle(document.activeElement.matches("input.hidden") ? document.activeElement.parentNode : document.activeElement);
      return document.activeElement === document.body || (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2) ? null : document.activeElement.outerHTML;
    });
    assert.equal(shown, null, "the focus is not shown");
  }
  assert.fail(`the keyboard does not reach ${locator}`);
}

/** Waits for as many pictures more as `made` makes. */
async function pictures(number, make) {
  const before = await figures.count();
  await make();
  await page.waitForFunction(([count]) => document.querySelectorAll("#make-gallery figure:not(.waiting)").length >= count, [before + number], { timeout: SLOW });
  assert.equal(await page.locator(".failure").count(), 0, await page.locator(".failure").allTextContents().then(String));
  assert(await figures.first().locator("img").evaluate((image) => image.decode().then(() => image.naturalWidth > 0)));
}

async function signIn() {
  await page.goto(url);
  await page.locator("#token-dialog[open]").waitFor();
  await page.keyboard.type("wrong");
  await page.keyboard.press("Enter");
  await page.getByText("The service does not know this token.").waitFor();
  await page.keyboard.type(token);
  await page.keyboard.press("Enter");
  await page.locator("#make-model option").first().waitFor({ state: "attached" });
  await shot("empty");
  assert.match(await page.locator("#make-pocket").innerText(), /This is pocket, a toy of 128 × 128 pixels.*calotype serve --model/s);
  assert.equal(await field("Prompt").inputValue(), "a red fox in the snow", "nothing that the small model does not know");
  await button("pixel art of a rocket in space").click();
  assert.equal(await field("Prompt").inputValue(), "pixel art of a rocket in space");
  await button("Reset").click();
  assert.equal(await field("Prompt").inputValue(), "a red fox in the snow");
}

/** The main path with the keyboard alone. */
async function makeByKeyboard() {
  await tabTo(page.locator(".skip"));
  await page.keyboard.press("Enter");
  await tabTo(field("Prompt"));
  await page.keyboard.press("Control+a");
  await page.keyboard.type("a red fox in the snow");
  await tabTo(page.locator("#make-more > summary"));
  await page.keyboard.press("Enter");
  // Enough steps for a fast machine to be seen at one of them.
  for (const [name, value] of [["Num inference steps", "200"], ["Seed", "3"]]) {
    await tabTo(field(name));
    await page.keyboard.press("Control+a");
    await page.keyboard.type(value);
  }
  await pictures(1, async () => {
    await page.keyboard.press("Control+Enter");
    await page.getByText(/^Sampling \d+ of \d+$/).waitFor({ timeout: SLOW });
    await page.locator(".waiting img").waitFor({ timeout: SLOW });
    await shot("progress");
  });
  assert.match(await figures.first().textContent(), /a red fox in the snow.*200 steps.*seed 3/);
  await tabTo(button("Show large: a red fox in the snow"));
  await page.keyboard.press("Enter");
  await page.locator("#large[open]").waitFor();
  assert.match(await page.locator("#large-facts").textContent(), /Num inference steps200.*Seed3/);
  await shot("large");
  await page.keyboard.press("Escape");
  await accessible(page);
}

async function makeMore() {
  await field("Num inference steps").fill("3");
  await pictures(1, () => button("Again with this").first().click());
  await field("Width").fill("63");
  expected.push(422);
  await button("Make").click();
  await page.locator("#input-width[aria-invalid=true]:focus").waitFor();
  assert.match(await page.locator("#make-problem").textContent(), /Width: .*63/);
  await field("Width").fill("");
  await field("Prompt").fill(HOSTILE);
  await field("Num inference steps").fill("2");
  await pictures(1, () => button("Make").click());
  assert.equal(await figures.first().locator(".prompt").textContent(), HOSTILE);
  await button("Reset").click();
}

async function inpaint() {
  await figures.nth(2).getByRole("button", { name: "Begin from this" }).click();
  await field("Num inference steps").fill("4");
  await button("Paint the mask on the picture").click();
  await page.locator("#mask-dialog[open]").waitFor();
  await button("Use this mask").click();
  await page.getByText("Nothing is painted yet.").waitFor();
  const box = await page.locator("#mask-canvas").boundingBox();
  const at = (x, y) => [box.x + box.width * x, box.y + box.height * y];
  await page.mouse.move(...at(0.1, 0.1));
  await page.mouse.down();
  await page.mouse.move(...at(0.3, 0.1), { steps: 4 });
  await page.mouse.up();
  await page.touchscreen.tap(...at(0.9, 0.9));
  await shot("mask");
  await accessible(page, "#mask-dialog");
  await button("Use this mask").click();
  await page.locator('img[alt="The mask"]').waitFor();
  const mask = await grays('img[alt="The mask"]', [[0.2, 0.1], [0.9, 0.9], [0.5, 0.5]]);
  assert.deepEqual(mask, [255, 255, 0], "white where painted, black elsewhere");
  const request = posted("/v1/predictions");
  await pictures(1, () => button("Make").click());
  const { input } = JSON.parse((await request).postData());
  assert.match(input.image, /\/v1\/files\//);
  assert.match(input.mask, /\/v1\/files\//);
  const again = posted("/v1/predictions");
  await pictures(1, () => button("Again with this").first().click());
  assert.deepEqual(JSON.parse((await again).postData()).input, input, "again from the same picture");
  await button("Reset").click();
  await figures.first().locator(".frame").click();
  await button("Use these settings").click();
  await page.locator('img[alt="The mask"]').waitFor();
  await button("Reset").click();
}

/** The gray values of a picture at places between 0 and 1. */
const grays = (selector, places) => page.locator(selector).evaluate(async (image, places) => {
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return places.map(([x, y]) => context.getImageData(x * canvas.width, y * canvas.height, 1, 1).data[0]);
}, places);

/** Pictures to train on: those that were made, one under a hostile name, and a file that is none. */
async function choosePhotos() {
  const sources = await figures.locator("img").evaluateAll((images) => images.map((image) => image.src));
  const bytes = await Promise.all(sources.slice(0, 3).map(async (source) => Buffer.from(await (await api(source)).arrayBuffer())));
  const photo = (name, at) => ({ name, mimeType: "image/png", buffer: bytes[at] });
  await page.locator("nav").getByText("Train").click();
  await shot("train-empty");
  const drop = await page.evaluateHandle((bytes) => {
    const data = new DataTransfer();
    data.items.add(new File([Uint8Array.from(bytes)], "<img src=x onerror=alert(3)>.png", { type: "image/png" }));
    return data;
  }, [...bytes[2]]);
  await page.locator("#photos-drop").dispatchEvent("drop", { dataTransfer: drop });
  await page.locator("#photos li").waitFor();
  const other = (name, text) => ({ name, mimeType: "", buffer: Buffer.from(text, "latin1") });
  const others = [other("notes.pdf", "x"), other("film.mp4", "x"), other("words.png", "words"), other("damaged.png", "\x89PNG\r\n\x1a\n and nothing more"), other("lone.txt", "a fox")];
  await page.locator("#photos-input").setInputFiles([photo("one.png", 0), photo("two.png", 1), other("two.txt", "a photo of TOK, by hand"), ...others]);
  await page.getByText(/^3 pictures\.$/).waitFor();
  assert.deepEqual((await page.locator("#photos-left-out li").allInnerTexts()).sort(), [
    "Left out: damaged.png (damaged: the picture cannot be read)",
    "Left out: film.mp4 (not a picture, caption or mask)",
    "Left out: lone.txt (no picture lone beside it)",
    "Left out: notes.pdf (PDF is not read: save as PNG or JPEG)",
    "Left out: words.png (its content is not a picture)",
  ]);
  await shot("photos");
  assert.equal(await page.locator("#photos li").count(), 3);
  assert.equal(await field("Caption of two.png").inputValue(), "a photo of TOK, by hand");
  await chooseArchive(bytes[0], others);
  await page.locator("#train-form details summary").click();
  assert.equal(await field("Resolution").getAttribute("placeholder"), "128", "what the model works at");
  await field("Resolution").fill("256");
  await page.getByText("3 pictures, 3 of them under 256 pixels.").waitFor();
  for (const [name, value] of [["Max train steps", "4"], ["Resolution", "64"], ["Train batch size", "1"]]) await field(name).fill(value);
}

/** An archive in place of the pictures: what is in it is said, and what is left out of it. */
async function chooseArchive(png, others) {
  const files = [{ name: "set/one.png", buffer: png }, { name: "set/one.txt", buffer: Buffer.from("a fox") }, { name: "__MACOSX/._one.png", buffer: png }, ...others];
  for (const [name, buffer] of [["set.zip", zip(files)], ["set.tar", tar(files)]]) {
    await page.locator("#photos-input").setInputFiles([{ name, mimeType: "", buffer }]);
    // Whether the picture of a file is damaged is seen when it is unpacked.
    await page.getByText(`The archive ${name}`).and(page.getByText("It has 2 pictures, 1 caption.")).waitFor();
    const lines = await page.locator("#photos-left-out li").allInnerTexts();
    for (const name of ["notes.pdf", "film.mp4", "words.png", "lone.txt"]) assert(lines.some((line) => line.startsWith(`Left out: ${name} (`)), `${name}: ${lines}`);
    await button("Remove the archive").click();
  }
  await page.getByText(/^3 pictures\.$/).waitFor();
}

/** A tar archive. */
function tar(files) {
  const parts = files.flatMap(({ name, buffer }) => {
    const head = Buffer.alloc(512);
    head.write(`./${name}`, 0);
    head.write(buffer.length.toString(8).padStart(11, "0"), 124);
    head.write("        0", 148);
    head.write("ustar", 257);
    head.write(`${head.reduce((sum, byte) => sum + byte, 0).toString(8).padStart(6, "0")}\0 `, 148);
    return [head, buffer, Buffer.alloc(-buffer.length & 511)];
  });
  return Buffer.concat([...parts, Buffer.alloc(1024)]);
}

/** A zip archive, compressed. */
function zip(files) {
  const parts = [], directory = [];
  let offset = 0;
  for (const { name, buffer } of files) {
    const data = deflateRawSync(buffer), title = Buffer.from(name), record = Buffer.alloc(46);
    record.writeUInt32LE(0x02014b50, 0);
    [[8, 10], [title.length, 28]].forEach(([value, at]) => record.writeUInt16LE(value, at));
    [[data.length, 20], [buffer.length, 24], [offset, 42]].forEach(([value, at]) => record.writeUInt32LE(value, at));
    const head = Buffer.concat([Buffer.from("PK\x03\x04"), record.subarray(6, 32)]);
    parts.push(head, title, data);
    directory.push(record, title);
    offset += head.length + title.length + data.length;
  }
  const records = Buffer.concat(directory), end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  [[files.length, 8], [files.length, 10]].forEach(([value, at]) => end.writeUInt16LE(value, at));
  [[records.length, 12], [offset, 16]].forEach(([value, at]) => end.writeUInt32LE(value, at));
  return Buffer.concat([...parts, records, end]);
}

/** The report, corrections of a caption and a mask by the keyboard, and the training with them. */
async function prepareAndTrain() {
  await button("Prepare the pictures").click();
  await page.locator(".report").waitFor({ timeout: SLOW });
  await page.reload();
  await page.locator(".report").waitFor();
  const tiles = () => page.locator(".tiles").textContent();
  assert.match(await tiles(), /Pictures3Steps4Time.*Memory.*Price/);
  const caption = page.locator(".report").getByLabel("Caption of two.png");
  assert.equal(await caption.inputValue(), "a photo of TOK, by hand");
  await caption.fill("a photo of TOK, corrected");
  await leaveOut(tiles);
  await button("Paint mask: two.png").click();
  await page.locator("#mask-canvas:focus").waitFor();
  for (const key of ["ArrowLeft", "Enter", "ArrowRight", "Enter"]) await page.keyboard.press(key);
  await button("Use this mask").click();
  await page.locator("#mask-dialog").waitFor({ state: "hidden" });
  await accessible(page);
  await shot("report");
  await field("Token string").fill("XYZ");
  assert(await button("Start training with these").isDisabled(), "a report of other settings");
  await field("Token string").fill("TOK");
  const request = posted(await trainingsPath());
  await button("Start training with these").click();
  const { input } = JSON.parse((await request).postData());
  const { urls } = await (await api(new URL(input.input_images, url).pathname)).json();
  const set = Buffer.from(await (await api(urls.download)).arrayBuffer());
  for (const text of ["a photo of TOK, corrected", "two.mask.png", "preprocess.json"]) assert(set.includes(text), text);
  for (const text of ["one.png", "by hand"]) assert(!set.subarray(set.indexOf("PK\x01\x02")).includes(text), `${text} is still in the set`);
}

/** What is left out looks so, and counts no more. */
async function leaveOut(tiles) {
  const start = button("Start training with these"), all = page.locator(".report").getByRole("button", { name: /^Leave out: / });
  while (await all.count()) await all.first().click();
  await page.getByText("All pictures are left out: there is nothing to learn from.").waitFor();
  assert(await start.isDisabled(), "nothing to learn from");
  const left = page.locator(".report").getByRole("button", { name: /^Take it again: (?!one)/ });
  while (await left.count()) await left.first().click();
  await page.getByText("1 picture is left out. The training takes as many steps with the others, and as much time.").waitFor();
  assert.match(await tiles(), /Pictures2 of 3Steps4/);
  assert.equal(await page.locator(".report .flag:visible").count(), 1);
  assert.equal(await page.locator(".report li.out .flag").innerText(), "Left out");
  assert(await page.locator(".report").getByLabel("Caption of one.png").isDisabled());
  assert(await start.isEnabled());
}

async function trainingsPath() {
  const { latest_version: version } = await (await api("/v1/models/stability-ai/sdxl")).json();
  return `/v1/models/stability-ai/sdxl/versions/${version.id}/trainings`;
}

async function useTheResult() {
  const training = page.locator("#trainings .job").first();
  await training.getByRole("button", { name: "Use in Make" }).waitFor({ timeout: SLOW });
  await shot("trained");
  assert.match(await training.getByRole("link", { name: "Download the weights" }).getAttribute("href"), /^\/outputs\//);
  await training.getByRole("button", { name: "Use in Make" }).click();
  await page.locator("#make:not([hidden])").waitFor();
  assert.match(await page.locator("#make-model option:checked").textContent(), /^me\/model-1/);
  await page.locator("#make-more > summary").click();
  await field("Prompt").fill("a photo of TOK");
  await field("Num inference steps").fill("2");
  await pictures(1, () => button("Make").click());
}

/** A training that is longer, a page that is loaded again meanwhile, cancel and resume. */
async function resume() {
  await page.locator("nav").getByText("Train").click();
  await field("Max train steps").fill("5000");
  await button("Train at once").click();
  await page.getByText(/^Training \d+ of 5000$/).waitFor({ timeout: SLOW });
  await page.reload();
  const training = page.locator("#trainings .job").first();
  const steps = async (shown) => Number(/\d+/.exec(await shown.getByText(/^Training [1-9]\d* of 5000$/).innerText({ timeout: SLOW }))[0]);
  const done = await steps(training);
  await training.getByRole("button", { name: "Cancel" }).click();
  await training.getByRole("button", { name: "Resume" }).click({ timeout: SLOW });
  const resumed = page.locator("#trainings .job").first();
  assert(await steps(resumed) >= done, "it goes on from the last step");
  await shot("resumed");
  await resumed.getByRole("button", { name: "Cancel" }).click();
  await resumed.getByRole("button", { name: "Resume" }).waitFor({ timeout: SLOW });
}

async function historyAndModels() {
  await page.locator("nav").getByText("History").click();
  await page.locator("#history-list h2", { hasText: HOSTILE }).waitFor();
  await shot("history");
  await accessible(page);
  await button("Trainings").click();
  await page.locator("#history-list h2", { hasText: "me/model-1" }).first().waitFor();
  await page.locator("nav").getByText("Models").click();
  await page.locator("#models-list h2", { hasText: "me/model-1" }).waitFor();
  await page.locator("#models-list h2", { hasText: "stability-ai/sdxl (pocket)" }).waitFor();
  await shot("models");
  await accessible(page);
}

/** Pictures whose files are gone: their places say so. */
async function gone() {
  expected.push(404);
  await page.route("**/outputs/**", (route) => route.fulfill({ status: 404 }));
  await page.goto(`${url}/#history`);
  await page.reload();
  await page.locator("#history-list").getByText("This picture is not there any more.").first().waitFor();
  await page.locator("#history-list .thumbs button").first().click();
  await page.locator("#large").getByText("This picture is not there any more.").waitFor();
  await shot("gone");
  await page.keyboard.press("Escape");
  await page.unroute("**/outputs/**");
  await page.reload();
  await page.locator("#history-list img").first().waitFor();
  expected.pop();
}

/** Each part on a phone and by night. */
async function sizesAndSchemes() {
  for (const scheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme: scheme });
    for (const [width, height] of [[360, 740], [820, 1100], [1280, 860]]) {
      await page.setViewportSize({ width, height });
      for (const part of ["Make", "Train", "History", "Models"]) {
        await page.locator("nav").getByText(part).click();
        await page.locator(`main > section:not([hidden]) :is(.picture, .job, .panel)`).first().waitFor();
        await fits(page, `${part}, ${width} pixels`);
        await readable(page, `${part}, ${scheme}`);
        await shot(`${part.toLowerCase()}-${width}-${scheme}`);
      }
    }
  }
}

for (const step of [signIn, makeByKeyboard, makeMore, inpaint, choosePhotos, prepareAndTrain, useTheResult, resume, historyAndModels, gone, sizesAndSchemes]) {
  try {
    await step();
  } catch (error) {
    await shot("failed");
    console.error(`the page: ${step.name} failed. ${wrong.join("; ")}`);
    throw error;
  }
  assert.deepEqual(wrong, [], step.name);
}
await browser.close();
console.log("The page in Chromium: ok");
