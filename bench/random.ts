/** Reproducible random numbers. */

/** Numbers from 0 to 1, the same for the same seed (mulberry32; a text is hashed with FNV-1a). */
export function randomFrom(seed: number | string): () => number {
  let state = typeof seed === "number" ? seed | 0 : hash(seed);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

function hash(text: string): number {
  let state = 0x811c9dc5;
  for (const character of text) {
    state = Math.imul(state ^ character.codePointAt(0)!, 0x01000193);
  }
  return state;
}
