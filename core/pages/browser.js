/* Answers from the visitor's own browser: the answer.js of a folder that any static host can serve. See page.js for what
it exports. The network runs in a worker, so that the page stays responsive; nothing that is given leaves the browser. */

export const where = "Everything is computed in this browser: what you give does not leave it.";

const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
const waiting = new Map();
let numAsked = 0;
let onProgress = () => {};

worker.addEventListener("message", ({ data }) => {
  if (data.progress) return onProgress(data.progress);
  const { resolve, reject } = waiting.get(data.number);
  waiting.delete(data.number);
  return data.error === undefined ? resolve(data.result) : reject(new Error(data.error));
});
worker.addEventListener("error", (event) => {
  for (const { reject } of waiting.values()) reject(new Error(event.message || "the worker could not be started"));
  waiting.clear();
});

function ask(question) {
  return new Promise((resolve, reject) => {
    const number = numAsked++;
    waiting.set(number, { resolve, reject });
    worker.postMessage({ number, ...question });
  });
}

export function load(progress) {
  onProgress = progress;
  return ask({ load: true });
}

export function answer(input) {
  return ask({ input });
}
