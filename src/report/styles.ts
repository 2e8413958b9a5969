/**
 * How readers are told apart, in text, pictures and pages alike: by a letter, a colour, a dash and a
 * marker, so that no one of these has to do it alone.
 */

export const MARKERS = [
  "circle",
  "square",
  "triangle",
  "diamond",
  "down",
  "cross",
  "plus",
  "ring",
] as const;
export type Marker = typeof MARKERS[number];

/** How one reader is drawn. */
export interface Look {
  /** In text. */
  letter: string;
  /** Place in HUES. */
  hue: number;
  /** Lengths of strokes and gaps; empty: a solid line. */
  dash: number[];
  marker: Marker;
}

/**
 * Colours on a light and on a dark ground, at least 3:1 to it; after Okabe and Ito's palette for all
 * kinds of colour vision. And the code of a terminal's own colour (ECMA-48 SGR).
 */
export const HUES: readonly { light: string; dark: string; terminal: number }[] = [
  { light: "#0b62a4", dark: "#6cb6f5", terminal: 34 },
  { light: "#c2480c", dark: "#ff9a62", terminal: 33 },
  { light: "#0a7a55", dark: "#45cf9d", terminal: 32 },
  { light: "#3c4650", dark: "#d5dce3", terminal: 37 },
  { light: "#8d3c8f", dark: "#e09ae0", terminal: 35 },
  { light: "#7a6300", dark: "#e6cc4d", terminal: 93 },
  { light: "#0f7c8c", dark: "#58cfe0", terminal: 36 },
  { light: "#b3213f", dark: "#ff8598", terminal: 31 },
];

/** Who is known has the same look in every report. */
const KNOWN: readonly string[] = ["deno", "bun", "node", "c", "python"];

/** Of a reader of the benchmark: the program has a colour and a marker, the mode has a dash. */
export function lookOfKnown(who: string, mode: "naive" | "drain", others: readonly string[]): Look {
  const known = KNOWN.indexOf(who);
  const place = known >= 0 ? known : KNOWN.length + Math.max(0, others.indexOf(who));
  const letter = who.slice(0, 1).toUpperCase() || "?";
  return {
    letter: mode === "drain" ? letter : letter.toLowerCase(),
    hue: place % HUES.length,
    dash: mode === "drain" ? [] : [6, 4],
    marker: MARKERS[place % MARKERS.length]!,
  };
}

const DASHES = [[], [6, 4], [2, 3], [10, 3, 2, 3]];
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/** Of any other reader: by its place among them. */
export function lookOfIndex(place: number): Look {
  return {
    letter: LETTERS[place % LETTERS.length]!,
    hue: place % HUES.length,
    dash: DASHES[place % DASHES.length]!,
    marker: MARKERS[place % MARKERS.length]!,
  };
}
