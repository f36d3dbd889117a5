/* One page for every model: an input on one side, the answer on the other. No framework, nothing from elsewhere.

Five modules make a page; they stand in one folder under these names:

  page.html (index.html), page.css, page.js, controls.js, show.js, images.js   the same for all models
  view.js     of the project: what the page asks for, and how an answer is shown
  answer.js   where the answer comes from: server.js asks the program that serves this page,
              browser.js runs the model in the visitor's browser

view.js exports
  title                    heading of the page
  about(model)             one or two sentences below it
  controls(model)          {input, options}; see controls.js for the kinds of both
  show(container, record, input, page)   fills an empty element; `page` is {model, answer}, so that what is shown
                           can ask for further answers. May return a promise.

answer.js exports
  where                    a sentence that says where the answers are computed
  load(progress)           promise of the model: the file's metadata, {project, task, facts, metrics, ...}
                           progress(text) says how far it is
  answer(input)            promise of {record, milliseconds}. milliseconds: of the network alone, or null

An input is {kind, options, ...} with `options` an object of numbers and texts by name, and by kind
  image   name, blob       a file as it was given or taken by the camera
  text    text
  table   name, text       a CSV file's text
  seeds   seed, num, label (a class or null), noise (numbers of one latent vector, or null for the seed's)

A record is what the project's infer program prints with --json:
  image classification     {label, probability, top: [{label, probability}]}, the best first
  text classification      {text, label, probability, probabilities: {class: number},
                           words: [{word, weight, attention}]}, all words in the order of the text
  forecasts                {rows: [{TIME, COLUMN, COLUMN_lower, COLUMN_upper}], history: {COLUMN: [numbers]}}
  detections               {width, height, detections: [{label, score, box: [x1, y1, x2, y2]}]}
  painted photographs      {width, height, image}
  generated images         {images: [{image, label, noise}]}; noise may be missing
An `image` in a record is a data URL of a PNG file. */

import { answer, load, where } from "./answer.js";
import { buildControls } from "./controls.js";
import { element } from "./show.js";
import * as view from "./view.js";

const MILLISECONDS_BEFORE_ASKING = 150;
const NUM_FACT_CHARACTERS = 200;
const place = (id) => document.getElementById(id);
let asked = 0; // number of the newest question: answers to older ones are not shown

/** Shows a text for people; state: loading, ready, busy, done or failed, which tests and styles read. */
function say(state, text, error = "") {
  document.body.dataset.state = state;
  place("status").textContent = text;
  place("error").textContent = error;
  place("error").hidden = !error;
}

/** Asks for the answer to an input and shows it. */
async function ask(input, page) {
  const number = ++asked;
  say("busy", "Computing…");
  const began = performance.now();
  try {
    const { record, milliseconds } = await page.answer(input);
    if (number !== asked) return;
    const container = element("div", { class: "answer" });
    await view.show(container, record, input, page);
    if (number !== asked) return;
    place("answer").replaceChildren(container);
    place("json").href = `data:application/json,${encodeURIComponent(JSON.stringify(record))}`;
    place("json").hidden = false;
    const all = performance.now() - began;
    const network = milliseconds == null ? "" : `, ${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} of them the network's`;
    say("done", `${all.toFixed(0)} milliseconds${network}`);
  } catch (error) {
    if (number === asked) {
      place("answer").replaceChildren();
      place("json").hidden = true;
      say("failed", "", error.message || String(error));
    }
  }
}

/** Lists what the file says of itself. */
function showFacts(model) {
  const rows = { project: model.project, task: model.task, ...model.facts, step: model.step, commit: model.commit_training };
  for (const [name, value] of Object.entries(rows)) {
    const text = typeof value === "object" ? JSON.stringify(value) : String(value);
    const shown = text.length > NUM_FACT_CHARACTERS ? `${text.slice(0, NUM_FACT_CHARACTERS)}…` : text;
    place("facts").append(element("dt", {}, name), element("dd", {}, shown));
  }
}

/** Loads the model and builds the page. */
async function start() {
  place("title").textContent = document.title = view.title;
  place("where").textContent = where;
  try {
    const model = await load((text) => say("loading", text));
    place("about").textContent = view.about(model);
    showFacts(model);
    const page = { model, answer };
    let timer;
    const changed = (input) => {
      clearTimeout(timer);
      if (input !== null) timer = setTimeout(() => ask(input, page), MILLISECONDS_BEFORE_ASKING);
    };
    say("ready", "Waiting for an input.");
    buildControls(place("controls"), view.controls(model), changed, (text) => say("failed", "", text));
  } catch (error) {
    say("failed", "", error.message || String(error));
  }
}

start();
