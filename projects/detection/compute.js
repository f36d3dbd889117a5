/* Detections of an image; the graph decodes the boxes and suppresses doubles. */

import { decode } from "./images.js";

const rounded = (value, digits) => Number(value.toFixed(digits));

export async function answer(input, run, { facts }) {
  const { width, height, data } = await decode(input.blob);
  const { boxes, scores, labels, num } = await run({ image: ["uint8", data, [1, height, width, 3]] });
  const detections = [];
  for (let k = 0; k < Number(num.data[0]); k++) {
    if (scores.data[k] < Math.fround(input.options.threshold)) continue;
    const box = Array.from(boxes.data.subarray(4 * k, 4 * k + 4), (edge) => rounded(edge, 2));
    detections.push({ label: facts.classes[Number(labels.data[k])], score: rounded(scores.data[k], 5), box });
  }
  return { width, height, detections };
}
