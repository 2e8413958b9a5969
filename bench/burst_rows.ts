/** What bench/bursts.ts writes, and the formula of its model reader. */
import type { MapResult } from "../src/burst/map_result.ts";
import type { Chance } from "../src/burst/survival.ts";
import type { Machine } from "../src/report/machine.ts";
import { formatByteRate, formatBytes } from "../src/text/units.ts";

/** The arguments of bench/readers/gather.c: bytes a second, bytes, bytes a second. */
export const GATHER = { limit: 20e6, chunk: 4096, copying: 5e9 };

/** The burst up to which that reader meets EAGAIN at a base rate; bytes. See gather.c. */
export function toleranceOf(rate: number): number {
  const { limit, chunk, copying } = GATHER;
  return chunk * copying * (1 - rate / limit) ** 2 / (2 * rate);
}

/** One base rate of one reader. */
export interface BurstRow {
  name: string;
  rate: number;
  lower: number;
  upper: number | null;
  /** By the formula; null: it survives everything; absent: no formula is known. */
  expected?: number | null | undefined;
}

/** A chance that was told, and what came of trying again. */
export interface SurvivalCheck {
  rate: number;
  burst: number;
  lower: number;
  upper: number;
  tried: number;
  survived: number;
  /** The share that survived is inside the interval that was told. */
  holds: boolean;
}

export interface BurstsResult {
  schema: "speedlimit/bursts@1";
  environment: Machine;
  options: Record<string, unknown>;
  rows: BurstRow[];
  checks: SurvivalCheck[];
  maps: { name: string; map: MapResult }[];
}

export function checkOf(
  rate: number,
  { burst, lower, upper }: Chance,
  again: MapResult,
): SurvivalCheck {
  const cells = again.rates.flatMap((each) => each.cells);
  const survived = cells.filter(({ outcome }) => outcome === "survives").length;
  const share = survived / cells.length;
  return {
    ...{ rate, burst, lower, upper, tried: cells.length, survived },
    holds: share >= lower && share <= upper,
  };
}

export const BURST_HEAD: readonly string[] = [
  "reader",
  "base rate",
  "survives",
  "does not",
  "by the formula",
  "off by",
];

export function formatBurstRow({ name, rate, lower, upper, expected }: BurstRow): string[] {
  const off = expected === undefined || expected === null || upper === null
    ? undefined
    : Math.sqrt(Math.max(1, lower) * upper) / expected - 1;
  return [
    name,
    formatByteRate(rate),
    lower === 0 ? "none" : formatBytes(lower),
    upper === null ? "-" : formatBytes(upper),
    expected === undefined ? "-" : expected === null ? "all" : formatBytes(expected),
    off === undefined ? "-" : `${(100 * off).toFixed(1)} %`,
  ];
}

export function formatCheck(check: SurvivalCheck): string {
  const { rate, burst, lower, upper, survived, tried, holds } = check;
  return `${formatByteRate(rate)}, burst ${formatBytes(burst)}: told ${lower.toFixed(2)} to ` +
    `${upper.toFixed(2)}, again ${survived} of ${tried}: ${holds ? "inside" : "outside"}`;
}
