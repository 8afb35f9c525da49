// Trainings: one on its way, or its result, or how it goes on.

import { button, count, duration, el, say, when, words } from "./dom.js";
import { enlarge, pictureFrom } from "./pictures.js";
import { ProgressView } from "./progress.js";
import { follow, isOver, jobPath, post } from "./service.js";

const STATES = { starting: "waiting", processing: "training", canceled: "cancelled" };
const stateOf = (status) => STATES[status] ?? status;
/** Whoever knows how to use a version in Make. */
export const using = { version: () => {} };

/** Shows a training at the beginning of a list, or at its end, and follows it until `signal` is aborted. The answer is its element. */
export function showTraining(place, job, first, signal) {
  const shown = new Training(place, job, signal);
  if (first) place.prepend(shown.element);
  else place.append(shown.element);
  return shown.element;
}

class Training {
  constructor(place, job, signal) {
    Object.assign(this, { place, job, signal });
    const name = job.destination ?? job.output?.version?.split(":")[0] ?? "A training";
    this.status = el("span", { class: "status" });
    this.body = el("div");
    this.samples = el("div", { class: "thumbs" });
    this.actions = el("div", { class: "actions" });
    this.element = el("article", { class: "job" }, el("h2", {}, el("span", {}, name), this.status), el("p", { class: "about" }, aboutOf(job)), this.body, this.samples, this.actions);
    this.element.dataset.id = job.id;
    this.say(job.status);
    if (isOver(job)) this.end(job);
    else this.follow();
  }

  say(status, more) {
    this.status.textContent = [stateOf(status), more].filter(Boolean).join(" · ");
    this.status.className = `status ${status}`;
  }

  async follow() {
    const { job } = this, view = new ProgressView();
    this.body.append(view.element);
    const cancel = button("Cancel", () => post(jobPath("training", job.id, "/cancel")).catch((error) => this.problem(error.message)));
    this.actions.append(cancel);
    try {
      const over = await follow("training", job.id, {
        start: () => { this.say("processing"); view.start(); },
        progress: (progress) => view.progress(progress),
        preview: ({ index, url }) => this.sample(index, url),
        lost: () => view.lost(),
      }, this.signal);
      view.end();
      say(`The training of ${job.destination ?? "the model"} has ended: ${stateOf(over.status)}`);
      this.end(over);
    } catch (error) {
      this.problem(error.message);
    }
  }

  sample(index, url) {
    const at = `${index}`, known = [...this.samples.children].find((child) => child.dataset.at === at);
    const shown = el("button", { type: "button", "aria-label": `Show sample ${index + 1} large`, onclick: () => enlarge(url, `Sample ${index + 1}`) }, pictureFrom(url, { alt: `Sample ${index + 1}` }));
    shown.dataset.at = at;
    if (known) known.replaceWith(shown);
    else this.samples.append(shown);
  }

  problem(text) {
    this.body.append(el("p", { class: "problem", role: "alert" }, text));
  }

  /** A training that is over: its result, or how it goes on. */
  end(job) {
    const time = job.metrics?.predict_time, version = job.output?.version?.split(":").at(-1);
    const hasFocus = this.actions.contains(document.activeElement);
    this.say(job.status, time && duration(time));
    if (job.error) this.problem(job.error);
    if (job.logs) this.body.append(el("details", {}, el("summary", {}, "Log"), el("pre", { tabindex: "0" }, job.logs)));
    const actions = [];
    if (version) actions.push(button("Use in Make", () => using.version(version), { class: "main" }));
    if (job.output?.weights) actions.push(el("a", { class: "button", href: job.output.weights, download: "trained_model.tar" }, "Download the weights"));
    if (["failed", "canceled", "aborted"].includes(job.status)) actions.push(button("Resume", (event) => this.resume(event.target)));
    this.actions.replaceChildren(...actions);
    if (hasFocus) actions[0]?.focus();
  }

  /** Goes on from the last checkpoint, as a training of its own. */
  async resume(pressed) {
    pressed.disabled = true;
    for (const said of this.body.querySelectorAll(".refused")) said.remove();
    try {
      const job = await post(jobPath("training", this.job.id, "/resume"));
      const shown = showTraining(this.place, job, true, this.signal);
      shown.scrollIntoView({ block: "nearest" });
      pressed.remove();
      say("The training goes on");
    } catch (error) {
      this.body.append(el("p", { class: "problem refused", role: "alert" }, error.message));
      pressed.disabled = false;
    }
  }
}

/** What a training was asked for, in a line. */
function aboutOf(job) {
  const { input_images: _, input_images_filetype: __, ...input } = job.input ?? {};
  const { max_train_steps: steps, token_string: token, resolution, ...rest } = input;
  const more = Object.entries(rest).filter(([, value]) => value !== "" && value !== null).map(([name, value]) => `${words(name).toLowerCase()} ${value}`);
  return [when(job.created_at), steps && count(steps, "step", "steps"), token && `the word ${token}`, resolution && `${resolution} pixels`, ...more].filter(Boolean).join(" · ");
}
