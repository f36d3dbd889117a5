/* Asks for an image and a threshold; shows the boxes on the image, and counts them. */

import { drawn, element, imageOf, percent } from "./show.js";

export const title = "Find objects in an image";

export function about({ facts }) {
  return `Finds ${facts.classes.join(", ")}.`;
}

export function controls({ facts }) {
  const threshold = { name: "threshold", label: "Lowest score", min: 0, max: 1, step: 0.01, value: facts.threshold };
  return { input: { kind: "image", small: true }, options: [{ kind: "range", ...threshold }] };
}

/** A color for each class, far from its neighbors on the circle of hues. */
function color(classes, label) {
  return `hsl(${(classes.indexOf(label) * 137.5 + 10) % 360} 85% 52%)`;
}

export async function show(container, record, input, page) {
  const { width, height, detections } = record;
  const { classes } = page.model.facts;
  const unit = Math.max(width, height) / 100;
  const layer = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${detections.length} boxes` });
  for (const { label, score, box } of [...detections].reverse()) {
    const [left, top, right, bottom] = box;
    const stroke = color(classes, label);
    const frame = { x: left, y: top, width: right - left, height: bottom - top, stroke, "stroke-width": unit / 2.5 };
    const text = { x: left, y: Math.max(top - unit / 2, 3 * unit), "font-size": 3 * unit, fill: stroke };
    const edge = { stroke: "black", "stroke-width": unit / 4, "paint-order": "stroke" };
    layer.append(drawn("rect", frame), drawn("text", { ...text, ...edge }, `${label} ${(100 * score).toFixed(0)}`));
  }
  const image = await imageOf(input.blob, "the image that was given");
  container.append(element("div", { class: "outlined" }, image, layer));
  const key = element("ul", { class: "key" });
  for (const [label, its] of byLabel(detections)) {
    const mark = drawn("svg", { width: 12, height: 12, "aria-hidden": "true" });
    mark.append(drawn("rect", { width: 12, height: 12, rx: 3, fill: color(classes, label) }));
    key.append(element("li", {}, mark, ` ${its.length} ${label}, best ${percent(its[0].score)}`));
  }
  container.append(detections.length ? key : element("p", {}, "Nothing with at least that score."));
}

/** Detections by label. */
function byLabel(detections) {
  const groups = new Map();
  for (const each of detections) groups.set(each.label, [...(groups.get(each.label) ?? []), each]);
  return groups;
}
