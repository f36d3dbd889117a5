/* The label of a text, and for each word its weight: how much the label's probability falls without it. As infer does. */

import { UNKNOWN, makeTokenizer } from "./tokenizer.js";

const MAX_TRIED = 32;
let tokenize;

export function prepare({ facts }) {
  tokenize = makeTokenizer(facts.tokenizer, facts.max_length);
}

export async function answer(input, run, { facts }) {
  const { tokens, words, numbers } = tokenize(input.text);
  const num = facts.classes.length;
  const classify = async (rows) => {
    const data = BigInt64Array.from(rows.flat(), BigInt);
    const outputs = await run({ tokens: ["int64", data, [rows.length, tokens.length]] });
    const probabilities = rows.map((_, row) => outputs.probabilities.data.subarray(row * num, (row + 1) * num));
    return { probabilities, attention: outputs.attention.data };
  };
  const { probabilities: [own], attention } = await classify([tokens]);
  const label = own.indexOf(Math.max(...own));
  const byWord = new Array(words.length).fill(0);
  numbers.forEach((word, k) => (byWord[word] += attention[k]));
  const tried = [...byWord.keys()].sort((a, b) => byWord[b] - byWord[a]).slice(0, MAX_TRIED);
  const without = await classify(tried.map((word) => tokens.map((token, k) => (numbers[k] === word ? UNKNOWN : token))));
  const weights = new Array(words.length).fill(0);
  tried.forEach((word, row) => (weights[word] = own[label] - without.probabilities[row][label]));
  const order = [...facts.classes.keys()].sort((a, b) => own[b] - own[a]);
  return {
    text: input.text,
    label: facts.classes[label],
    probability: own[label],
    probabilities: Object.fromEntries(order.map((k) => [facts.classes[k], own[k]])),
    words: words.map((word, k) => ({ word, weight: weights[k], attention: byWord[k] })),
  };
}
