/* Generated images of a seed, the same as infer's with --seed, or of one latent vector. */

import { toPng } from "./images.js";
import { standardNormal } from "./random.js";

export async function answer(input, run, { facts }) {
  const { latent, image_size: side, channels } = facts;
  const num = input.noise ? 1 : input.num;
  const noise = input.noise ? Float32Array.from(input.noise) : standardNormal(input.seed, num * latent);
  const classes = facts.conditional ? facts.classes : [];
  const chosen = input.label == null ? classes : [input.label];
  const labels = Array.from({ length: classes.length ? num : 0 }, (_, k) => chosen[k % chosen.length]);
  const feeds = { noise: ["float32", noise, [num, latent]] };
  if (labels.length) feeds.label = ["int64", BigInt64Array.from(labels, (label) => BigInt(classes.indexOf(label))), [num]];
  const { image } = await run(feeds);
  const size = side * side * channels;
  const images = [];
  for (let k = 0; k < num; k++) {
    const pixels = image.data.subarray(k * size, (k + 1) * size);
    images.push({
      image: await toPng(pixels, side, side, channels),
      label: labels[k] ?? null,
      noise: Array.from(noise.subarray(k * latent, (k + 1) * latent)),
    });
  }
  return { images };
}
