// Progress: a bar with its line, and the curve of the losses.

import { duration, el, words } from "./dom.js";

export class ProgressView {
  constructor() {
    this.line = el("span", {}, "Waiting for a worker");
    this.left = el("span");
    this.bar = el("progress", { max: "1", "aria-label": "Progress" });
    this.curve = el("div");
    this.element = el("div", { class: "progress" }, el("div", { class: "line" }, this.line, this.left), this.bar, this.curve);
  }

  progress({ stage, done, total, seconds_left: left, losses }) {
    this.line.textContent = `${words(stage ?? "working")}${total ? ` ${done} of ${total}` : ""}`;
    this.left.textContent = left ? `${duration(left)} left` : "";
    if (total) this.bar.value = done / total;
    else this.bar.removeAttribute("value");
    if (losses?.length > 1) this.curve.replaceChildren(curveOf(losses, total));
  }

  start() {
    this.line.textContent = "Begins";
  }

  lost() {
    this.line.textContent = "The service does not answer. Trying again";
    this.left.textContent = "";
  }

  /** The end: what stays is the curve. */
  end() {
    this.bar.remove();
    this.line.parentNode.remove();
  }
}

/** The losses as a line, with the first and the last in words. */
function curveOf(losses, steps) {
  const values = losses.map(([, loss]) => loss);
  const low = Math.min(...values), high = Math.max(...values), span = high - low || 1;
  const first = losses[0][0], last = losses.at(-1)[0];
  const points = losses.map(([step, loss]) => `${((100 * (step - first)) / (last - first || 1)).toFixed(2)},${(38 - (36 * (loss - low)) / span).toFixed(2)}`);
  const label = `The loss: ${values[0].toFixed(3)} at first, ${values.at(-1).toFixed(3)} now`;
  const curve = svg("svg", { class: "curve", viewBox: "0 0 100 40", preserveAspectRatio: "none", role: "img", "aria-label": label });
  const area = `${points[0].split(",")[0]},40 ${points.join(" ")} ${points.at(-1).split(",")[0]},40`;
  curve.append(svg("polygon", { points: area }), svg("polyline", { points: points.join(" ") }), svg("path", { class: "frame", d: "M0 40H100" }));
  const ends = el("figcaption", { class: "line" }, el("span", {}, `Loss ${values.at(-1).toFixed(4)} after step ${last}`), steps ? el("span", {}, `of ${steps}`) : null);
  return el("figure", { class: "loss" }, curve, ends);
}

function svg(tag, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}
