/* Asks for a text; shows the label, and each word colored by how much it speaks for or against it. */

import { bars, element, percent } from "./show.js";

export const title = "What does the text say?";
const NOTABLE = 0.002; // of a probability: lighter words are hardly colored
const EXAMPLE = "The jokes are stale and the plot is dull, but the acting is superb.";

export function about({ facts }) {
  return `Tells apart ${facts.classes.join(", ")}. A word's color says how much the label hangs on it.`;
}

export function controls() {
  return { input: { kind: "text", label: "Text", example: EXAMPLE }, options: [] };
}

export function show(container, record) {
  const rows = Object.entries(record.probabilities).map(([label, probability]) => ({ label, probability }));
  const heaviest = Math.max(...record.words.map(({ weight }) => Math.abs(weight)));
  const text = element("p", { class: "text" });
  let shown = 0; // characters of the text
  for (const { word, weight, attention } of record.words) {
    const share = Math.abs(weight) / Math.max(heaviest, NOTABLE);
    const name = weight > 0 ? "for" : weight < 0 ? "against" : "neutral";
    const start = record.text.indexOf(word, shown);
    const numbers = `weight ${weight.toFixed(4)}, attention ${attention.toFixed(4)}`;
    const span = element("span", { class: name, title: numbers }, word);
    span.style.setProperty("--share", share.toFixed(3));
    text.append(start < 0 ? " " : record.text.slice(shown, start), span);
    if (start >= 0) shown = start + word.length;
  }
  text.append(record.text.slice(shown));
  const hint = "Green words speak for the label, red ones against it.";
  container.append(
    element("p", { class: "verdict" }, record.label, element("small", {}, ` ${percent(record.probability)}`)),
    bars(rows),
    text,
    element("p", {}, element("small", {}, heaviest < NOTABLE ? "No single word matters here." : hint)),
  );
}
