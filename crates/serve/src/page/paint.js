// The dialog in which a mask is painted over a picture, with the mouse, a finger or the keyboard.

import { $ } from "./dom.js";

const PAINT = [224, 64, 28];
const MOST_UNDO = 12;
/** The pixels that the longer side is drawn with, at least. */
const SHARP = 900;

/** Paints a mask over `picture`, from `mask` on if there is one; both are blobs. The answer is a PNG file of the picture's size, white where
 * painted, or null. */
export async function paintMask({ title, picture, mask }) {
  const image = await createImageBitmap(picture), former = mask && (await createImageBitmap(mask));
  const painting = new Painting($("mask-canvas"), image);
  if (former) painting.load(former);
  $("mask-title").textContent = title;
  $("mask-erase").checked = false;
  $("mask-problem").textContent = "";
  return new Promise((resolve) => {
    const dialog = $("mask-dialog");
    let kept = null;
    $("mask-undo").onclick = () => painting.undo();
    $("mask-all").onclick = () => painting.fill(true);
    $("mask-none").onclick = () => painting.fill(false);
    $("mask-cancel").onclick = () => dialog.close();
    $("mask-done").onclick = async () => {
      kept = await painting.file();
      $("mask-problem").textContent = kept ? "" : "Nothing is painted yet.";
      if (kept) dialog.close();
    };
    dialog.addEventListener("close", () => resolve(kept), { once: true });
    dialog.showModal();
    $("mask-canvas").focus();
  });
}

class Painting {
  constructor(canvas, image) {
    this.canvas = canvas;
    this.image = image;
    this.layer = document.createElement("canvas");
    [this.layer.width, this.layer.height] = [image.width, image.height];
    // A small picture is drawn larger, so that the brush is seen well.
    this.scale = Math.max(1, Math.round(SHARP / Math.max(image.width, image.height)));
    [canvas.width, canvas.height] = [image.width * this.scale, image.height * this.scale];
    canvas.style.width = `min(100%, ${(62 * image.width) / image.height}vh)`;
    this.screen = canvas.getContext("2d");
    this.paint = this.layer.getContext("2d", { willReadFrequently: true });
    this.cursor = this.last = this.pointer = null;
    this.isDown = false;
    this.undos = [];
    canvas.onpointerdown = (event) => this.down(event);
    canvas.onpointermove = (event) => this.move(event);
    canvas.onpointerup = canvas.onpointercancel = (event) => { if (event.pointerId === this.pointer) this.pointer = this.last = null; };
    canvas.onpointerleave = () => { if (this.pointer === null) { this.cursor = null; this.draw(); } };
    canvas.onkeydown = (event) => this.key(event);
    this.draw();
  }

  get radius() {
    return (Number($("mask-size").value) / 200) * Math.max(this.layer.width, this.layer.height);
  }

  draw() {
    const { screen, canvas, layer: { width, height } } = this;
    screen.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    screen.drawImage(this.image, 0, 0);
    screen.globalAlpha = 0.6;
    screen.drawImage(this.layer, 0, 0, width, height);
    screen.globalAlpha = 1;
    if (!this.cursor) return;
    const pixel = width / (canvas.getBoundingClientRect().width || width);
    for (const [colour, width] of [["#000", 3], ["#fff", 1.5]]) {
      screen.strokeStyle = colour;
      screen.lineWidth = width * pixel;
      screen.setLineDash(this.isDown ? [] : [6 * pixel, 4 * pixel]);
      screen.beginPath();
      screen.arc(this.cursor.x, this.cursor.y, this.radius, 0, 7);
      screen.stroke();
    }
  }

  /** A former mask: what is white is painted, what is gray partly. */
  load(mask) {
    const { width, height } = this.layer;
    this.paint.drawImage(mask, 0, 0, width, height);
    const pixels = this.paint.getImageData(0, 0, width, height), { data } = pixels;
    for (let i = 0; i < data.length; i += 4) {
      data[i + 3] = data[i];
      data.set(PAINT, i);
    }
    this.paint.putImageData(pixels, 0, 0);
    this.draw();
  }

  /** A stroke of the brush from the last place to this one. */
  dab(to) {
    const from = this.last ?? to;
    this.paint.globalCompositeOperation = $("mask-erase").checked ? "destination-out" : "source-over";
    this.paint.strokeStyle = `rgb(${PAINT})`;
    this.paint.lineCap = "round";
    this.paint.lineWidth = 2 * this.radius;
    this.paint.beginPath();
    this.paint.moveTo(from.x, from.y);
    this.paint.lineTo(to.x + 0.01, to.y);
    this.paint.stroke();
    this.last = to;
    this.draw();
  }

  fill(painted) {
    const { width, height } = this.layer;
    this.remember();
    this.paint.globalCompositeOperation = "source-over";
    this.paint.clearRect(0, 0, width, height);
    this.paint.fillStyle = `rgb(${PAINT})`;
    if (painted) this.paint.fillRect(0, 0, width, height);
    this.draw();
  }

  remember() {
    this.undos.push(this.paint.getImageData(0, 0, this.layer.width, this.layer.height));
    if (this.undos.length > MOST_UNDO) this.undos.shift();
  }

  undo() {
    const former = this.undos.pop();
    if (former) this.paint.putImageData(former, 0, 0);
    this.draw();
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect(), { width, height } = this.layer;
    return { x: ((event.clientX - box.left) * width) / box.width, y: ((event.clientY - box.top) * height) / box.height };
  }

  down(event) {
    if (event.button || this.pointer !== null) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pointer = event.pointerId;
    this.isDown = false;
    this.last = null;
    this.remember();
    this.cursor = this.at(event);
    this.dab(this.cursor);
  }

  move(event) {
    if (this.pointer !== null && event.pointerId !== this.pointer) return;
    this.cursor = this.at(event);
    if (this.pointer === null) this.draw();
    else this.dab(this.cursor);
  }

  key(event) {
    const { key } = event, { width, height } = this.layer;
    const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
    if (key === "z" && (event.ctrlKey || event.metaKey)) return this.undo();
    if (!direction && key !== " " && key !== "Enter") return;
    event.preventDefault();
    this.cursor ??= { x: width / 2, y: height / 2 };
    if (direction) {
      const step = this.radius * (event.shiftKey ? 2 : 0.5), within = (value, most) => Math.min(Math.max(value, 0), most);
      this.cursor = { x: within(this.cursor.x + direction[0] * step, width), y: within(this.cursor.y + direction[1] * step, height) };
      if (this.isDown) return this.dab(this.cursor);
    } else if (key === " ") {
      this.remember();
      this.last = null;
      this.dab(this.cursor);
    } else {
      this.isDown = !this.isDown;
      this.last = null;
      if (this.isDown) { this.remember(); this.dab(this.cursor); }
    }
    const percent = (value, most) => `${Math.round((100 * value) / most)} %`;
    $("mask-said").textContent = `${this.isDown ? "Painting" : "Brush"} at ${percent(this.cursor.x, width)} from the left, ${percent(this.cursor.y, height)} from the top`;
    this.draw();
  }

  /** The mask as a file: white where painted, black elsewhere. Null: nothing is painted. */
  async file() {
    const { width, height } = this.layer, pixels = this.paint.getImageData(0, 0, width, height), { data } = pixels;
    let most = 0;
    for (let i = 0; i < data.length; i += 4) {
      most = Math.max(most, data[i + 3]);
      data.fill(data[i + 3], i, i + 3);
      data[i + 3] = 255;
    }
    if (!most) return null;
    const out = document.createElement("canvas");
    [out.width, out.height] = [width, height];
    out.getContext("2d").putImageData(pixels, 0, 0);
    const blob = await new Promise((resolve) => out.toBlob(resolve, "image/png"));
    return new File([blob], "mask.png", { type: "image/png" });
  }
}
