/* The tokenizers that tokenizer.py trains, from the same JSON: whole words, or byte pairs. web.py refuses all others.

Equal tokens for all characters of Unicode 3.2; of younger ones they depend on the tables of both sides. */

export const UNKNOWN = 1;

// What the `tokenizers` package means by \w, \s and \b, in JavaScript.
const WORD = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\u00b2\u00b3\u00b9\u00bc-\u00be]";
const END = `(?!${WORD})`;
const WORDS = new RegExp(
  `${WORD}+(?=n['’]t${END})|n['’]t${END}|['’](?:s|re|ve|ll|d|m)${END}|${WORD}+|\\.{2,}|(?!${WORD})\\P{White_Space}`,
  "gu",
);
const REPLACED = [[/<br ?\/?>/g, " "], [/-lrb-/g, "("], [/-rrb-/g, ")"], [/’/g, "'"]];
// Characters whose normal form depends on their neighbors: marks after a letter, and the parts of Korean syllables.
const CLUSTERS = /[\u1100-\u11ff]+|\P{M}\p{M}*|\p{M}+/gsu;
const SPACE_MARK = "▁";

/** tokenize(text) → {tokens, words, numbers}: tokens as numbers, the words as they stand in the text, and for each token
the number of its word. json: the tokenizer; maxLength: of a longer text the beginning and the end are kept, half each. */
export function makeTokenizer(json, maxLength) {
  const { model, added_tokens: added } = JSON.parse(json);
  const vocabulary = new Map(Object.entries(model.vocab));
  const pieces = model.type === "BPE" ? bytePairs(model, vocabulary) : (word) => [vocabulary.get(word) ?? UNKNOWN];
  const specials = new RegExp(`(${added.map(({ content }) => content.replace(/[[\]]/g, "\\$&")).join("|")})`, "g");
  return (text) => {
    const tokens = [], words = [], numbers = [];
    const add = (word, itsTokens) => {
      numbers.push(...itsTokens.map(() => words.length));
      tokens.push(...itsTokens);
      words.push(word);
    };
    for (const part of text.split(specials)) {
      const special = added.find(({ content }) => content === part);
      if (special) {
        add(part, [special.id]);
        continue;
      }
      const { normal, starts, ends } = normalize(part);
      for (const match of normal.matchAll(WORDS)) {
        const last = match.index + match[0].length - 1;
        add(starts ? part.slice(starts[match.index], ends[last]) : match[0], pieces(match[0]));
      }
    }
    if (!tokens.length) return { tokens: [UNKNOWN], words: [text.trim()], numbers: [0] };
    return { tokens: cut(tokens, maxLength), words, numbers: cut(numbers, maxLength) };
  };
}

/** A text in one form for equal characters and small letters, and for each character where its origin begins and ends. */
function normalize(text) {
  let normal = "", starts = [], ends = [];
  for (const match of text.matchAll(CLUSTERS)) {
    const part = lower(match[0].normalize("NFKC"));
    const stays = part === lower(match[0]) && part.length === match[0].length; // then character by character
    for (let k = 0; k < part.length; k++) {
      starts.push(match.index + (stays ? k : 0));
      ends.push(match.index + (stays ? k + 1 : match[0].length));
    }
    normal += part;
  }
  const whole = lower(text.normalize("NFKC"));
  if (normal !== whole) [normal, starts, ends] = [whole, null, null]; // words are then shown in their normal form
  for (const [pattern, by] of REPLACED) {
    let result = "", from = 0;
    const newStarts = [], newEnds = [];
    for (const match of normal.matchAll(pattern)) {
      const to = match.index + match[0].length;
      result += normal.slice(from, match.index) + by;
      if (starts) {
        newStarts.push(...starts.slice(from, match.index), starts[match.index]);
        newEnds.push(...ends.slice(from, match.index), ends[to - 1]);
      }
      from = to;
    }
    normal = result + normal.slice(from);
    if (starts) [starts, ends] = [newStarts.concat(starts.slice(from)), newEnds.concat(ends.slice(from))];
  }
  return { normal, starts, ends };
}

/** Small letters, each character by itself: the final sigma is no special case. */
function lower(text) {
  return Array.from(text, (character) => character.toLowerCase()).join("");
}

/** From a word to the tokens of its pieces (Sennrich et al. 2016): the pair that was learned first is joined first. */
function bytePairs({ merges }, vocabulary) {
  const ranks = new Map(merges.map((pair, rank) => [pair.join(" "), rank]));
  const known = new Map();
  return (word) => {
    if (known.has(word)) return known.get(word);
    const marked = word.startsWith(SPACE_MARK) ? word : SPACE_MARK + word;
    // A character without an entry stays by itself, whatever stands beside it.
    const parts = Array.from(marked, (character) => (vocabulary.has(character) ? character : null));
    for (;;) {
      let best = Infinity, at = -1;
      for (let k = 0; k + 1 < parts.length; k++) {
        const rank = parts[k] === null || parts[k + 1] === null ? undefined : ranks.get(`${parts[k]} ${parts[k + 1]}`);
        if (rank < best) [best, at] = [rank, k];
      }
      if (at < 0) break;
      parts.splice(at, 2, parts[at] + parts[at + 1]);
    }
    const tokens = parts.map((part) => (part === null ? UNKNOWN : vocabulary.get(part)));
    known.set(word, tokens);
    return tokens;
  };
}

/** The beginning and the end of what is too long. */
function cut(values, maxLength) {
  if (values.length <= maxLength) return values;
  const tail = Math.floor(maxLength / 2);
  return [...values.slice(0, maxLength - tail), ...values.slice(values.length - tail)];
}
