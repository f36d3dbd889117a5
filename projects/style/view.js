/* Asks for a photograph, a blend of styles and a size; shows the painting beside the photograph. */

import { element, figure, imageOf } from "./show.js";

export const title = "Paint a photograph";
const SIDES = [256, 512, 768, 1024];

export function about({ facts }) {
  return `Paints a photograph in the style of ${facts.styles.length > 1 ? "several images" : "another image"}: ${facts.styles.join(", ")}.`;
}

export function controls({ facts }) {
  const value = facts.styles.map((_, number) => (number ? 0 : 1));
  const blend = { kind: "ranges", name: "style", labels: facts.styles, min: 0, max: 1, step: 0.05, value };
  const sides = SIDES.map((side) => [side, `${side} pixels`]);
  return {
    input: { kind: "image", small: true },
    options: [
      ...(facts.styles.length > 1 ? [blend] : []),
      { kind: "range", name: "keep_colors", label: "Keep its colors", min: 0, max: 1, step: 0.05, value: 0 },
      { kind: "select", name: "size", label: "Longer side", value: 512, choices: [...sides, [0, "as it is"]] },
    ],
  };
}

export async function show(container, record, input) {
  const [photograph, painted] = await Promise.all([
    imageOf(input.blob, "the photograph"),
    imageOf(record.image, "the painting"),
  ]);
  const link = element("a", { href: record.image, download: "painted.png" }, "Save the painting");
  container.append(
    element(
      "div",
      { class: "pair" },
      figure(photograph, `${photograph.naturalWidth} × ${photograph.naturalHeight} pixels`),
      figure(painted, `${record.width} × ${record.height} pixels`),
    ),
    element("p", {}, link),
  );
}
