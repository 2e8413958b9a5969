/** The map of a reader as a table and as a picture of characters. */
import type { MapRate, MapResult } from "../burst/map_result.ts";
import type { TableCell } from "./table.ts";
import { formatTable } from "../text/table.ts";
import { formatByteRate, formatBytes, formatSeconds } from "../text/units.ts";

/** A line on the reader, the table, the picture, and what else is known. */
export function formatMap(map: MapResult): string {
  const head = `${map.reader}: limit ${formatByteRate(map.limit)}`;
  const parts = [map.message === "" ? head : `${head}\n${map.message}`];
  if (map.rates.length > 0) {
    const rows = map.rates.map((rate) => mapCells(rate).map(({ text }) => text));
    parts.push(formatTable([MAP_HEAD, ...rows]), formatPicture(map.rates));
  }
  const notes = mapNotes(map);
  if (notes.length > 0) parts.push(notes.join("\n"));
  return parts.join("\n\n");
}

export const MAP_HEAD: readonly string[] = [
  "base rate",
  "of limit",
  "survives",
  "does not survive",
  "then drains",
  "reader",
  "tries",
];

/** The row of a base rate. */
export function mapCells(of: MapRate): TableCell[] {
  const { rate, share, tolerance: { lower, upper }, collapsedRate, state, cells } = of;
  return [
    { text: formatByteRate(rate), sort: rate },
    { text: `${Math.round(100 * share)} %`, sort: share },
    lower === 0 ? { text: "-" } : { text: formatBytes(lower), sort: lower },
    upper === null ? { text: "-" } : { text: formatBytes(upper), sort: upper },
    collapsedRate === null
      ? { text: "-" }
      : { text: formatByteRate(Math.max(0, collapsedRate)), sort: collapsedRate },
    { text: state },
    { text: String(cells.length), sort: cells.length },
  ];
}

/** What else is known, each as a sentence. */
export function mapNotes(map: MapResult): string[] {
  return [...formatHysteresis(map), ...formatAbsorbs(map)];
}

/** Rows of the picture: bursts, each twice the one below. */
const STEP = 2;
const MOST_ROWS = 14;

/** Bursts upwards, rates to the right. */
function formatPicture(rates: readonly MapRate[]): string {
  const bursts = rates.flatMap(({ chances }) => chances.map(({ burst }) => burst));
  const highest = Math.max(...bursts);
  const lowest = Math.max(Math.min(...bursts), highest / STEP ** (MOST_ROWS - 1));
  const rows: string[][] = [];
  for (let burst = highest; burst > lowest / STEP; burst /= STEP) {
    rows.push([formatBytes(burst), ...rates.map((rate) => symbolOf(rate, burst))]);
  }
  const axis = ["burst", ...rates.map(({ rate }) => formatByteRate(rate))];
  return `${formatTable([axis, ...rows])}\n` +
    "+ comes back   ? sometimes, or not tried   x does not come back";
}

function symbolOf({ tolerance: { lower, upper } }: MapRate, burst: number): string {
  if (burst <= lower) return "+";
  return upper !== null && burst >= upper ? "x" : "?";
}

function formatHysteresis({ hysteresis }: MapResult): string[] {
  if (hysteresis === null) return [];
  const { collapsedAt, returns, seconds, staysAt } = hysteresis;
  const collapsed = `Once it has collapsed at ${formatByteRate(collapsedAt)}, `;
  if (returns === null) return [`${collapsed}it does not even come back when nothing is sent.`];
  const after = `after ${formatSeconds(seconds!)}`;
  return [
    collapsed +
    (returns === 0
      ? `it only comes back when nothing is sent, ${after}; not at ${formatByteRate(staysAt)}.`
      : `it comes back at ${formatByteRate(returns)}, ${after}; not at ${
        formatByteRate(staysAt)
      }.`),
  ];
}

function formatAbsorbs({ absorbs }: MapResult): string[] {
  return absorbs === 0 ? [] : [
    `It took up to ${
      formatBytes(absorbs)
    } faster than its limit: it queues that in its own memory.`,
  ];
}
