/* The controls of a page: one input and its options, built from a description.

Kinds of input: {kind: "image", small}, small: whether its preview is, where the answer shows the image again; {kind: "text", label, example}; {kind: "table", label, example};
  {kind: "seeds", labels: [class, ...], num}, num: images at the beginning.
Kinds of options: {kind: "range", name, label, min, max, step, value}; {kind: "select", name, label, value,
  choices: [[value, text], ...]}; {kind: "ranges", name, labels, min, max, step, value}: a slider for each label, the
  value is a list. Values are numbers or texts as given.
Whenever there is an input and it or an option changes, changed(input) is called; changed(null) where there is none. */

import { element } from "./show.js";

const MAX_TABLE_BYTES = 20e6;
let numIds = 0;

/** Fills a form. failed(text): called where the input itself cannot be had, as when the camera is refused. */
export function buildControls(form, { input, options }, changed, failed) {
  const values = Object.fromEntries(options.map((option) => [option.name, option.value]));
  let current = null;
  const tell = () => changed(current && { ...current, options: { ...values } });
  const given = (part) => {
    current = part && { kind: input.kind, ...part };
    tell();
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  const builders = { image: imageInput, text: textInput, table: tableInput, seeds: seedsInput };
  form.append(...builders[input.kind](input, given, failed));
  for (const option of options) {
    const set = (value) => {
      values[option.name] = value;
      tell();
    };
    form.append(...optionBuilders[option.kind](option, set));
  }
}

const optionBuilders = {
  range: (option, set) => [range(option, set)],
  select: (option, set) => [select(option, set)],
  ranges: (option, set) => {
    const value = [...option.value];
    return option.labels.map((label, number) =>
      range({ ...option, label, value: value[number] }, (changed) => {
        value[number] = changed;
        set([...value]);
      }),
    );
  },
};

/** A slider with its label and value. set(value) is called with each change. */
export function range({ label, min, max, step, value }, set) {
  const id = `control-${numIds++}`;
  const shown = element("output", { for: id }, String(value));
  const slider = element("input", { type: "range", id, min, max, step });
  slider.value = value;
  slider.addEventListener("input", () => {
    shown.textContent = slider.value;
    set(Number(slider.value));
  });
  return element("div", { class: "option" }, element("label", { for: id }, label), slider, shown);
}

/** A choice of several. */
function select({ label, value, choices }, set) {
  const id = `control-${numIds++}`;
  const texts = choices.map(([, text], number) => element("option", { value: number }, text));
  const list = element("select", { id }, ...texts);
  list.selectedIndex = choices.findIndex(([each]) => each === value);
  list.addEventListener("change", () => set(choices[list.selectedIndex][0]));
  return element("div", { class: "option" }, element("label", { for: id }, label), list);
}

/** A place to drop a file on, a button to choose one; both also take what is pasted. */
function filePlace(text, accept, take) {
  const id = `control-${numIds++}`;
  const file = element("input", { type: "file", id, accept, class: "file" });
  const label = element("label", { for: id, class: "drop" }, element("span", {}, text));
  file.addEventListener("change", () => {
    if (file.files.length) take(file.files[0]);
    file.value = ""; // so that the same file can be chosen again
  });
  for (const name of ["dragover", "dragleave", "drop"]) {
    label.addEventListener(name, (event) => {
      event.preventDefault();
      label.classList.toggle("over", name === "dragover");
      if (name === "drop" && event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
    });
  }
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) take(event.clipboardData.files[0]);
  });
  return [file, label];
}

/** An image: dropped, chosen, pasted, or taken by the camera. */
function imageInput(input, given, failed) {
  const preview = element("div", { class: input.small ? "preview small" : "preview" });
  let address = null;
  const take = (blob) => {
    if (address) URL.revokeObjectURL(address);
    address = URL.createObjectURL(blob);
    preview.replaceChildren(element("img", { src: address, alt: "the image that was given" }));
    given({ name: blob.name || "camera.png", blob });
  };
  const button = element("button", { type: "button" }, "Use the camera");
  button.addEventListener("click", () => camera(button, preview, take, failed));
  const file = filePlace("Drop an image here, paste it, or choose a file", "image/*", take);
  return [...file, button, preview];
}

/** Shows what the camera sees; a second click takes an image of it. */
async function camera(button, preview, take, failed) {
  const running = preview.querySelector("video");
  if (running) {
    const canvas = element("canvas", { width: running.videoWidth, height: running.videoHeight });
    canvas.getContext("2d").drawImage(running, 0, 0);
    running.srcObject.getTracks().forEach((track) => track.stop());
    button.textContent = "Use the camera";
    canvas.toBlob(take, "image/png");
    return;
  }
  try {
    if (!navigator.mediaDevices) throw new Error("browsers give it to https pages and to this machine's own alone");
    const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    const video = element("video", { muted: "", playsinline: "", "aria-label": "what the camera sees" });
    video.srcObject = stream;
    await video.play();
    preview.replaceChildren(video);
    button.textContent = "Take an image";
  } catch (error) {
    failed(`The camera cannot be used: ${error.message}`);
  }
}

/** A text field with a button. */
function textInput({ label, example }, given) {
  const id = `control-${numIds++}`;
  const field = element("textarea", { id, rows: 6, placeholder: example });
  field.addEventListener("input", () => given(field.value.trim() ? { text: field.value } : null));
  const button = element("button", { type: "button" }, "Try an example");
  button.addEventListener("click", () => {
    field.value = example;
    given({ text: example });
  });
  return [element("label", { for: id }, label), field, button];
}

/** A CSV file, or its text. */
function tableInput({ label, example }, given, failed) {
  const id = `control-${numIds++}`;
  const field = element("textarea", { id, rows: 8, placeholder: example, wrap: "off", spellcheck: "false" });
  field.addEventListener("input", () => given(field.value.trim() ? { name: "table", text: field.value } : null));
  const file = filePlace("Drop a CSV file here, or choose one", ".csv,.tsv,.txt,text/csv", async (blob) => {
    if (blob.size > MAX_TABLE_BYTES) return failed(`A file of more than ${MAX_TABLE_BYTES / 1e6} MB is too large here`);
    const text = await blob.text();
    field.value = text.length > 100_000 ? "" : text;
    return given({ name: blob.name || "table", text });
  });
  return [...file, element("label", { for: id }, label), field];
}

/** A seed, a number of images, and a class where the model has classes. */
function seedsInput({ labels, num }, given) {
  const values = { seed: 0, num, label: null, noise: null };
  const tell = () => given({ ...values });
  const id = `control-${numIds++}`;
  const field = element("input", { type: "number", id, min: 0, max: Number.MAX_SAFE_INTEGER, step: 1, value: 0 });
  const set = (seed) => {
    if (!Number.isSafeInteger(seed) || seed < 0) return;
    field.value = values.seed = seed;
    tell();
  };
  field.addEventListener("input", () => set(field.valueAsNumber));
  const button = element("button", { type: "button" }, "New seed");
  button.addEventListener("click", () => set(Math.floor(Math.random() * 1e6)));
  const count = range({ label: "Images", min: 1, max: 64, step: 1, value: num }, (value) => {
    values.num = value;
    tell();
  });
  const parts = [element("div", { class: "option" }, element("label", { for: id }, "Seed"), field, button), count];
  if (labels.length) {
    const choices = [[null, "all in turn"], ...labels.map((label) => [label, label])];
    parts.push(
      select({ label: "Class", value: null, choices }, (label) => {
        values.label = label;
        tell();
      }),
    );
  }
  tell();
  return parts;
}
