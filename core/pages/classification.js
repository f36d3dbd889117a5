/* How image classifiers ask for an image and show labels with bars: the view.js of such projects. */

import { bars, element, percent } from "./show.js";

export const title = "What is in the image?";
const NUM_SHOWN = 10;

export function about({ facts }) {
  const names = facts.classes.slice(0, 12).join(", ");
  const more = facts.classes.length > 12 ? ` and ${facts.classes.length - 12} more` : "";
  return `Tells apart ${facts.classes.length} classes: ${names}${more}. The middle square of the image is used.`;
}

export function controls() {
  return { input: { kind: "image" }, options: [] };
}

export function show(container, record) {
  container.append(
    element("p", { class: "verdict" }, record.label, element("small", {}, ` ${percent(record.probability)}`)),
    bars(record.top.slice(0, NUM_SHOWN)),
  );
}
