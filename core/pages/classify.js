/* How image classifiers answer in the browser: the compute.js of such projects. */

import { decode } from "./images.js";

export async function answer(input, run, { facts }) {
  const { width, height, data } = await decode(input.blob);
  const { probabilities } = await run({ image: ["uint8", data, [1, height, width, 3]] });
  const top = facts.classes
    .map((label, number) => ({ label, probability: probabilities.data[number] }))
    .sort((a, b) => b.probability - a.probability);
  return { ...top[0], top };
}
