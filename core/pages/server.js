/* Answers from the program that serves this page: the answer.js of a server. See page.js for what it exports. */

export const where = "What you give is sent to the server that this page comes from, and answered there.";

/** The metadata of the model that the server runs. */
export async function load(progress) {
  progress("Asking the server…");
  return asJson(await fetch("model"));
}

/** The server's answer. Options travel in the address; an image as a form's file, all else as JSON. */
export async function answer(input) {
  const options = input.kind === "seeds" ? { num: input.num, label: input.label, ...input.options } : input.options;
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(options)) {
    for (const each of Array.isArray(value) ? value : [value]) if (each !== null) query.append(name, each);
  }
  const given = { text: input.text, table: input.text, seeds: input.noise ?? input.seed }[input.kind];
  const request = { method: "POST", body: JSON.stringify({ inputs: [given] }), headers: { "Content-Type": "application/json" } };
  if (input.kind === "image") {
    request.body = new FormData();
    request.body.append("file", input.blob, input.name);
    delete request.headers;
  }
  const { predictions } = await asJson(await fetch(`predict?${query}`, request));
  return { record: predictions[0], milliseconds: null };
}

/** The JSON of a response. Throws with the server's own words where it refuses. */
async function asJson(response) {
  if (response.ok) return response.json();
  const text = await response.text();
  let message = text;
  try {
    message = JSON.parse(text).error.message;
  } catch {
    // not the server's own refusal: shown as it is
  }
  throw new Error(message || `${response.status} ${response.statusText}`);
}
