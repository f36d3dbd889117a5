/* The painting of a photograph, in one pass. */

import { decode, toPng } from "./images.js";

const MAX_PIXELS = 1024 * 1024; // of one pass, as infer paints without tiles

export async function answer(input, run, { facts }) {
  const { size, keep_colors: keepColors } = input.options;
  const photograph = await decode(input.blob, size);
  const { width, height } = photograph;
  if (width * height > MAX_PIXELS) {
    throw new Error(`A painting of ${width} × ${height} pixels is too large for one pass here; choose a smaller side.`);
  }
  const weights = input.options.style ?? [1];
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  if (!(total > 0)) throw new Error("Give at least one style a weight above 0.");
  const padded = atLeast(photograph, facts.min_side);
  const { painted } = await run({
    image: ["uint8", padded.data, [1, padded.height, padded.width, 3]],
    blend: ["float32", Float32Array.from(weights, (weight) => weight / total), [1, weights.length]],
    keep_colors: ["float32", Float32Array.of(keepColors), [1]],
    statistics: ["float32", new Float32Array(0), [0, 2, facts.channels]],
  });
  const own = cut(painted.data, padded.width, width, height);
  return { width, height, image: await toPng(own, width, height) };
}

/** A photograph, its last row and column repeated where a side has fewer pixels than `side`. */
function atLeast(photograph, side) {
  const width = Math.max(side, photograph.width), height = Math.max(side, photograph.height);
  if (width === photograph.width && height === photograph.height) return photograph;
  const data = new Uint8Array(3 * width * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const from = Math.min(y, photograph.height - 1) * photograph.width + Math.min(x, photograph.width - 1);
      data.set(photograph.data.subarray(3 * from, 3 * from + 3), 3 * (y * width + x));
    }
  }
  return { width, height, data };
}

/** The upper left part of an image. */
function cut(data, rowPixels, width, height) {
  if (rowPixels === width) return data.subarray(0, 3 * width * height);
  const part = new Uint8Array(3 * width * height);
  for (let y = 0; y < height; y++) {
    part.set(data.subarray(3 * y * rowPixels, 3 * (y * rowPixels + width)), 3 * y * width);
  }
  return part;
}
