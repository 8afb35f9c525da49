// The page of the service: which part is shown, and what a part needs when it is. No library, no build step.
//
//   service.js    the API                    dom.js        elements, words
//   make.js       Make                       form.js       forms from schemas
//   train.js      Train                      photos.js     the pictures of a set; files.js: which files these are
//   report.js     a preparation's result     zip.js        archives; tar.js
//   trainings.js  a training                 progress.js   bars and curves
//   history.js    History, Models            paint.js      masks; pictures.js: one picture

import { $, words } from "./dom.js";
import { schemas } from "./form.js";
import { loadHistory, loadModels, setUpHistory } from "./history.js";
import { loadGallery, setUpMake } from "./make.js";
import { json } from "./service.js";
import { loadTrainings, setUpTrain } from "./train.js";

const PAGES = { make: loadModels, train: loadTrainings, history: loadHistory, models: loadModels };

async function showPage() {
  const name = location.hash.slice(1) in PAGES ? location.hash.slice(1) : "make";
  for (const page of Object.keys(PAGES)) {
    $(page).hidden = page !== name;
    const link = document.querySelector(`nav a[href="#${page}"]`);
    if (page === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${words(name)} – calotype`;
  window.scrollTo(0, 0);
  try {
    await PAGES[name]();
    $("service").hidden = true;
  } catch (error) {
    showProblem(error);
  }
}

function showProblem(error) {
  $("service").textContent = error.message;
  $("service").hidden = false;
}

async function begin() {
  Object.assign(schemas, (await json("/openapi.json")).components.schemas);
  setUpMake();
  setUpTrain();
  setUpHistory(showProblem);
  window.addEventListener("hashchange", () => { showPage(); $("main").focus({ preventScroll: true }); });
  await showPage();
  await loadGallery();
}

begin().catch(showProblem);
