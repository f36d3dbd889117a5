/* Runs a model with onnxruntime-web, in a worker of the page. Beside it stand model.json, model.onnx, runtime/ and

  compute.js  of the project; exports answer(input, run, model), the promise of a record, see page.js for both.
              run(feeds) is the promise of the outputs; feeds: {NAME: [dtype, data, dims]}, outputs: {NAME: {data, dims}};
              model: the file's metadata. It may export prepare(model), called once after loading.

One thread: browsers give threads only to pages whose host sends headers for cross-origin isolation. */

import * as project from "./compute.js";
import * as ort from "./runtime/ort.wasm.min.mjs";

let model, session, milliseconds;
let last = Promise.resolve();

/** The bytes of a file, with a note on how far it is. */
async function download(name) {
  const response = await fetch(new URL(name, import.meta.url));
  if (!response.ok) throw new Error(`${name} cannot be loaded: ${response.status} ${response.statusText}`);
  const total = Number(response.headers.get("Content-Length"));
  const parts = [];
  let done = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done: atEnd, value } = await reader.read();
    if (atEnd) break;
    parts.push(value);
    done += value.length;
    const share = total >= done ? ` of ${(total / 1e6).toFixed(1)}` : "";
    postMessage({ progress: `Loading the model: ${(done / 1e6).toFixed(1)}${share} MB` });
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

async function load() {
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = new URL("./runtime/", import.meta.url).href;
  model = JSON.parse(new TextDecoder().decode(await download("model.json")));
  const content = await download("model.onnx");
  postMessage({ progress: "Preparing the model…" });
  session = await ort.InferenceSession.create(content, { executionProviders: ["wasm"] });
  await project.prepare?.(model);
  return model;
}

async function run(feeds) {
  const tensors = Object.entries(feeds).map(([name, [type, data, dims]]) => [name, new ort.Tensor(type, data, dims)]);
  const began = performance.now();
  const outputs = await session.run(Object.fromEntries(tensors));
  milliseconds += performance.now() - began;
  return outputs;
}

async function respond({ number, load: toLoad, input }) {
  try {
    if (toLoad) return postMessage({ number, result: await load() });
    milliseconds = 0;
    const record = await project.answer(input, run, model);
    return postMessage({ number, result: { record, milliseconds } });
  } catch (error) {
    return postMessage({ number, error: error.message || String(error) });
  }
}

// One question after the other: a session runs one input at a time.
addEventListener("message", ({ data }) => {
  last = last.then(() => respond(data));
});
