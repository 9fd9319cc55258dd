/** Random numbers that follow from a seed alone. */
export interface Random {
  /** Uniform in [0, 1). */
  next(): number;
  /** A whole number in [0, below). */
  below(below: number): number;
  /** Exponentially distributed with this mean. */
  exponential(mean: number): number;
  /** Shuffles in place and answers the same array. */
  shuffle<T>(items: T[]): T[];
  /** A stream of its own for one purpose: what one part draws does not shift what another draws. */
  fork(purpose: string): Random;
}

/** The stream of a seed and a purpose (sfc32, seeded by FNV-1a over both). */
export function createRandom(seed: number, purpose = ''): Random {
  const next = sfc32(`${seed}/${purpose}`);
  const below = (bound: number): number => Math.floor(next() * bound);
  return {
    next,
    below,
    exponential: (mean) => -mean * Math.log(1 - next()),
    shuffle(items) {
      for (let at = items.length - 1; at > 0; at -= 1) {
        const other = below(at + 1);
        const held = items[at] as (typeof items)[number];
        items[at] = items[other] as (typeof items)[number];
        items[other] = held;
      }
      return items;
    },
    fork: (name) => createRandom(seed, `${purpose}/${name}`),
  };
}

/** Rounds that mix the seed into the state before the first number is taken. */
const WARM_UP_ROUNDS = 12;

function sfc32(text: string): () => number {
  let a = fnv1a(text, 0x811c9dc5);
  let b = fnv1a(text, 0x9e3779b9);
  let c = fnv1a(text, 0x85ebca6b);
  let counter = 1;
  const next = (): number => {
    const sum = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return (sum >>> 0) / 0x1_0000_0000;
  };
  for (let round = 0; round < WARM_UP_ROUNDS; round += 1) next();
  return next;
}

function fnv1a(text: string, basis: number): number {
  let hash = basis;
  for (let at = 0; at < text.length; at += 1) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  return hash;
}
