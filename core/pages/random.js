/* The random numbers of numpy.random.default_rng(seed).standard_normal(n, float32), so that a seed means the same here.

SeedSequence and PCG64 (O'Neill 2014, "PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms for
Random Number Generation"); ziggurat with 256 layers (Marsaglia and Tsang 2000). */

const MASK_32 = 0xffffffffn, MASK_64 = (1n << 64n) - 1n, MASK_128 = (1n << 128n) - 1n;
const MULTIPLIER = (2549297995355413924n << 64n) + 4865540595714422341n;
const TAIL = 3.6541528853610088, AREA = 0.00492867323399;
const NUM_LAYERS = 256, POOL_SIZE = 4;

/** numpy's SeedSequence: four words of 64 bits from a seed. */
function seedWords(seed) {
  const entropy = [];
  for (let rest = BigInt(seed); entropy.length === 0 || rest > 0n; rest >>= 32n) entropy.push(Number(rest & MASK_32));
  let constant = 0x43b0d7e5;
  const hash = (value) => {
    let mixed = value ^ constant;
    constant = Math.imul(constant, 0x931e8875);
    mixed = Math.imul(mixed, constant);
    return (mixed ^ (mixed >>> 16)) >>> 0;
  };
  const mix = (a, b) => {
    const mixed = (Math.imul(a, 0xca01f9dd) - Math.imul(b, 0x4973f715)) | 0;
    return (mixed ^ (mixed >>> 16)) >>> 0;
  };
  const pool = [];
  for (let k = 0; k < POOL_SIZE; k++) pool.push(hash(entropy[k] ?? 0));
  for (let from = 0; from < POOL_SIZE; from++) {
    for (let to = 0; to < POOL_SIZE; to++) if (from !== to) pool[to] = mix(pool[to], hash(pool[from]));
  }
  constant = 0x8b51f9dd;
  const words = [];
  for (let k = 0; k < 8; k++) {
    let value = pool[k % POOL_SIZE] ^ constant;
    constant = Math.imul(constant, 0x58f38ded);
    value = Math.imul(value, constant);
    words.push(BigInt((value ^ (value >>> 16)) >>> 0));
  }
  return [0, 2, 4, 6].map((k) => words[k] | (words[k + 1] << 32n));
}

/** Layers of the ziggurat: widths, heights, and the share of 2^23 below which a number lies inside. */
function layers() {
  const density = (x) => Math.exp(-0.5 * x * x);
  const edges = new Float64Array(NUM_LAYERS + 1);
  edges[NUM_LAYERS] = AREA / density(TAIL);
  edges[NUM_LAYERS - 1] = TAIL;
  for (let k = NUM_LAYERS - 2; k > 0; k--) edges[k] = Math.sqrt(-2 * Math.log(AREA / edges[k + 1] + density(edges[k + 1])));
  // numpy's layer 0 is the one with the tail; layer k then reaches to edge k.
  const width = (k) => edges[k === 0 ? NUM_LAYERS : k];
  const inner = (k) => (k === 0 ? TAIL : edges[k - 1]);
  const numbers = Array.from({ length: NUM_LAYERS }, (_, k) => k);
  return {
    widths: Float32Array.from(numbers, (k) => width(k) / 2 ** 23),
    inside: numbers.map((k) => Math.floor((inner(k) / width(k)) * 2 ** 23)),
    heights: Float32Array.from(numbers, (k) => (k === 0 ? 1 : density(edges[k]))),
  };
}

/** num normally distributed numbers, float32. seed: a whole number of at least 0. */
export function standardNormal(seed, num) {
  const [high, low, streamHigh, streamLow] = seedWords(seed);
  const increment = ((((streamHigh << 64n) | streamLow) << 1n) | 1n) & MASK_128;
  let state = (increment + ((high << 64n) | low)) & MASK_128;
  const step = () => {
    state = (state * MULTIPLIER + increment) & MASK_128;
  };
  step();
  let kept = null;
  const next32 = () => {
    if (kept !== null) {
      const half = kept;
      kept = null;
      return half;
    }
    step();
    const folded = (state >> 64n) ^ (state & MASK_64);
    const turn = state >> 122n;
    const word = ((folded >> turn) | (folded << ((64n - turn) & 63n))) & MASK_64;
    kept = Number(word >> 32n);
    return Number(word & MASK_32);
  };
  const uniform = () => (next32() >>> 8) / 2 ** 24;
  const { widths, inside, heights } = layers();
  const one = () => {
    for (;;) {
      const bits = next32();
      const layer = bits & 0xff, negative = (bits >>> 8) & 1, size = (bits >>> 9) & 0x7fffff;
      const x = Math.fround(size * widths[layer]) * (negative ? -1 : 1);
      if (size < inside[layer]) return x;
      if (layer === 0) {
        for (;;) {
          const beyond = -Math.log1p(-uniform()) / TAIL;
          if (-2 * Math.log1p(-uniform()) > beyond * beyond) return (size >>> 8) & 1 ? -(TAIL + beyond) : TAIL + beyond;
        }
      }
      if ((heights[layer - 1] - heights[layer]) * uniform() + heights[layer] < Math.exp(-0.5 * x * x)) return x;
    }
  };
  return Float32Array.from({ length: num }, one);
}
