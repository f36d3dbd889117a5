/* Asks for a seed and a class; shows a grid of images. A click on one opens sliders for its place in the latent space. */

import { range } from "./controls.js";
import { element, figure, imageOf } from "./show.js";

export const title = "Generate images";
const NUM_AT_FIRST = 16;
const FARTHEST = 3; // standard deviations: beyond, the network has seen hardly any noise

export function about({ facts }) {
  const classes = facts.conditional ? ` of ${facts.classes.length} classes` : "";
  return `Generates images of ${facts.image_size} × ${facts.image_size} pixels${classes} from ${facts.latent} random numbers.`;
}

export function controls({ facts }) {
  const labels = facts.conditional ? facts.classes : [];
  return { input: { kind: "seeds", labels, num: NUM_AT_FIRST }, options: [] };
}

export async function show(container, record, input, page) {
  const tiles = element("div", { class: "tiles" });
  const enlarged = element("div", { class: "enlarged" });
  for (const [number, sample] of record.images.entries()) {
    const name = sample.label ?? "";
    const alt = `generated image ${number + 1} ${name}`.trim();
    const tile = element("button", { type: "button", "aria-pressed": "false" }, await imageOf(sample.image, alt), name);
    tile.addEventListener("click", () => {
      for (const other of tiles.children) other.setAttribute("aria-pressed", String(other === tile));
      explore(enlarged, sample, input, page);
    });
    tiles.append(tile);
  }
  const hint = "Choose an image to change the numbers that it is made of.";
  container.append(tiles, element("p", {}, element("small", {}, hint)), enlarged);
}

/** Shows one image large, with a slider for each number of its latent vector. */
async function explore(container, sample, input, page) {
  const noise = sample.noise ? [...sample.noise] : new Array(page.model.facts.latent).fill(0);
  const holder = element("div", {}, await imageOf(sample.image, "the chosen image"));
  let newest = 0;
  const draw = async () => {
    const number = ++newest;
    const { record } = await page.answer({ ...input, num: 1, label: sample.label ?? null, noise: [...noise] });
    const image = await imageOf(record.images[0].image, "the chosen image, changed");
    if (number === newest) holder.replaceChildren(image);
  };
  const sliders = noise.map((value, k) => {
    const description = { label: `${k + 1}`, min: -FARTHEST, max: FARTHEST, step: 0.01, value: value.toFixed(2) };
    return range(description, (changed) => {
      noise[k] = changed;
      draw();
    });
  });
  container.replaceChildren(figure(holder, sample.label ?? ""), element("div", { class: "sliders" }, ...sliders));
}
