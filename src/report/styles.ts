/**
 * The style in which each reader is drawn, the same in text, pictures and pages: a letter, a
 * colour, a dash pattern and a marker. Readers can be distinguished without any single one of
 * these.
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
export interface ReaderStyle {
  /** Stands for the reader in text. */
  letter: string;
  /** Index into HUES. */
  hue: number;
  /** Lengths of strokes and gaps; empty: a solid line. */
  dash: number[];
  marker: Marker;
}

/**
 * Colours for a light and for a dark background, each with a contrast of at least 3:1, and a
 * terminal's colour code (ECMA-48 SGR). They follow Okabe and Ito's palette, which suits all kinds
 * of colour vision.
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

/** These have the same style in every report. */
const FIXED: readonly string[] = ["deno", "bun", "node", "c", "python"];

/** For a reader of the benchmark: colour and marker show its program, the dash pattern its mode. */
export function benchReaderStyle(
  who: string,
  mode: "naive" | "drain",
  others: readonly string[],
): ReaderStyle {
  const fixed = FIXED.indexOf(who);
  const index = fixed >= 0 ? fixed : FIXED.length + Math.max(0, others.indexOf(who));
  const letter = who.slice(0, 1).toUpperCase() || "?";
  return {
    letter: mode === "drain" ? letter : letter.toLowerCase(),
    hue: index % HUES.length,
    dash: mode === "drain" ? [] : [6, 4],
    marker: MARKERS[index % MARKERS.length]!,
  };
}

const DASHES = [[], [6, 4], [2, 3], [10, 3, 2, 3]];
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/** For any other reader: by its index in the report. */
export function styleByIndex(index: number): ReaderStyle {
  return {
    letter: LETTERS[index % LETTERS.length]!,
    hue: index % HUES.length,
    dash: DASHES[index % DASHES.length]!,
    marker: MARKERS[index % MARKERS.length]!,
  };
}
