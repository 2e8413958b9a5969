/**
 * The rows of bench/accuracy.ts for readers of many kinds (readers/kinds.c, and those in other languages),
 * whose true rate is known by arithmetic: whether the interval holds it, or the result says of the reader
 * what it should.
 */
import { formatDeviation } from "../src/text/deviation.ts";
import { formatByteRate, formatBytes, formatSeconds } from "../src/text/units.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import { CONFIRMED, type LimitResult } from "../src/measure/limit_result.ts";
import { formatInterval } from "../src/report/limit_table.ts";
import { LANGUAGE_CASES } from "./accuracy_languages.ts";
import { type SearchSummary, summarize } from "./accuracy_rows.ts";
import type { Language } from "./readers/languages.ts";
import { meets, missedBy, type Target } from "./rows.ts";

/** The parts that `--only` can choose. */
export const KIND_PARTS = [
  "noise",
  "pauses",
  "batches",
  "work",
  "queues",
  "others",
  "languages",
] as const;
export type KindPart = typeof KIND_PARTS[number];

/**
 * What the result should say of such a reader.
 * - `limit`: an interval that holds the true rate, and not that it hoards;
 * - `hoards`: the same interval, and that the reader takes more than it processes;
 * - `drift`: that the reader becomes slower, and no confirmed limit;
 * - `fails`: that the reader failed.
 */
export type Expected = "limit" | "hoards" | "drift" | "fails";

/** One reader of readers/kinds.c, or of readers/languages/. */
export interface KindCase {
  part: KindPart;
  /** That of readers/languages/ in this language, which reads lines of `size` bytes. */
  language?: Language;
  /** The program's first argument. */
  kind: string;
  /** Its mean rate, bytes a second. */
  rate: number;
  args: readonly string[];
  expected: Expected;
  /** The rate at which it drains its socket, where that is another one. */
  intake?: number;
  /** Size of the messages; default: those of `limit`. */
  size?: number;
}

const noise = (sd: number, tau: number): KindCase => ({
  part: "noise",
  kind: "noise",
  rate: 10e6,
  args: ["--sd", String(sd), "--tau", String(tau)],
  expected: "limit",
});
const batches = (ms: string): KindCase => ({
  part: "batches",
  kind: "batches",
  rate: 1e6,
  args: ["--batch", ms],
  expected: "limit",
});
const lognormal = (cv: number): KindCase => ({
  part: "work",
  kind: "lognormal",
  rate: 1e6,
  args: ["--message", "1000", "--cv", String(cv)],
  expected: "limit",
  size: 1000,
});
const HOARDER = { part: "queues", kind: "queue", rate: 2e6, expected: "hoards" } as const;

export const KIND_CASES: readonly KindCase[] = [
  noise(5, 0.05),
  noise(5, 1),
  noise(10, 0.3),
  noise(20, 0.05),
  noise(20, 1),
  { part: "pauses", kind: "pauses", rate: 10e6, args: [], expected: "limit" },
  {
    part: "pauses",
    kind: "pauses",
    rate: 10e6,
    args: ["--pause", "200", "--every", "1800"],
    expected: "limit",
  },
  batches("100"),
  batches("400"),
  batches("800"),
  batches("100:800"),
  lognormal(1),
  lognormal(3),
  { ...HOARDER, args: ["--bound", "4000000"], intake: 16e6 },
  { ...HOARDER, args: [], intake: 16e6 },
  { part: "others", kind: "lowat", rate: 10e6, args: [], expected: "limit" },
  { part: "others", kind: "drift", rate: 2e6, args: ["--drift", "20"], expected: "drift" },
  { part: "others", kind: "exit", rate: 10e6, args: ["--exit", "30000000"], expected: "fails" },
  ...LANGUAGE_CASES.map((each) => ({ ...each, part: "languages", args: [] }) as const),
];

/** The cases of a part; all of them without one. */
export function kindCases(part: KindPart | undefined): readonly KindCase[] {
  return part === undefined ? KIND_CASES : KIND_CASES.filter((each) => each.part === part);
}

export const nameKind = ({ language, kind, rate, args }: KindCase): string =>
  [...(language === undefined ? [] : [language]), kind, formatByteRate(rate), ...args].join(" ");

/** What the program of a case is started with; `seed`: what it draws from, if it draws. */
export function argumentsOf(
  { language, kind, rate, args, size }: KindCase,
  seed: number,
): string[] {
  const start = [kind, "{host}", "{port}"];
  if (language === undefined) return [...start, String(rate), ...args, "--seed", String(seed)];
  // It is told what a line costs, in microseconds, and draws nothing.
  return [...start, String(1e6 * size! / rate), ...args];
}

/** The options of `limit` for the messages of a case. */
export function messageOptions({ language, size }: KindCase): string[] {
  if (size === undefined) return [];
  if (language === undefined) return ["--size", String(size)];
  return ["--message", `${"x".repeat(size - 1)}\\n`];
}

/** Deviation of the interval's middle from the true rate, as a share of that rate. */
const NEAR: Target = { least: -0.05, most: 0.05 };
/** Duration of a search, seconds: noise and pauses need longer, also those of a language's runtime. */
const SOON: Target = { most: 30 };
const PATIENT: Target = { most: 60 };
const IS_NOISY: readonly KindPart[] = ["noise", "pauses", "work", "languages"];

/** Fields of a result that tell of its kind. */
export type KindFigures = Pick<LimitResult, "until" | "intake" | "hoards" | "hidden" | "drift">;

/** One row of the result. Rates in bytes a second. */
export interface KindRow {
  kind: "kind";
  part: KindPart;
  what: string;
  runtime: Runtime;
  expected: Expected;
  /** The arguments that repeat it, with the seed. */
  args: string[];
  /** The true rate. */
  asked: number;
  /** Whether the interval holds it; null without an interval. */
  holds: boolean | null;
  /** upper / lower - 1 */
  width: number | null;
  /** middle / asked - 1 */
  deviation: number | null;
  /** The rate at which it drains its socket, where that is another one, and whether it was found. */
  intake: { asked: number; holds: boolean | null } | null;
  target: { deviation: Target; seconds: Target };
  met: boolean;
  found: SearchSummary & KindFigures;
}

/** An interval without an upper end goes on without a bound. */
const holds = (interval: { lower: number; upper: number | null } | null, rate: number) =>
  interval === null ? null : interval.lower <= rate && rate <= (interval.upper ?? Infinity);

/** The row of one search of such a reader; `args`: what it was started with. */
export function judgeKind(
  each: KindCase,
  runtime: Runtime,
  args: readonly string[],
  result: LimitResult,
): KindRow {
  const { part, rate, expected } = each;
  const { intake, hoards, hidden, until, drift } = result;
  const later: KindFigures = {
    ...{ intake, hoards, hidden, until },
    drift,
  };
  const found = { ...summarize(result), ...later };
  const { limit, middle } = found;
  const row: KindRow = {
    ...{ kind: "kind", part, what: nameKind(each), runtime, expected, args: [...args] },
    asked: rate,
    holds: holds(limit, rate),
    width: limit === null ? null : limit.upper / limit.lower - 1,
    deviation: middle === null ? null : middle / rate - 1,
    intake: each.intake === undefined
      ? null
      : { asked: each.intake, holds: holds(intake, each.intake) },
    target: { deviation: NEAR, seconds: IS_NOISY.includes(part) ? PATIENT : SOON },
    met: false,
    found,
  };
  row.met = reasonsAgainst(row).length === 0;
  return row;
}

/** Why the target is not reached; empty where it is. */
function reasonsAgainst(row: KindRow): string[] {
  const { found, expected, deviation } = row;
  const reasons: string[] = [];
  if (expected === "fails") {
    if (found.outcome !== "reader-failed") reasons.push(`${found.outcome}: ${found.message}`);
  } else if (expected === "drift") {
    if (!found.drift) reasons.push("does not say that it becomes slower");
    if (found.message === CONFIRMED) reasons.push("confirmed a limit");
  } else {
    if (found.outcome !== "found") reasons.push(`${found.outcome}: ${found.message}`);
    if (row.holds === false) reasons.push("the interval does not hold it");
    if (deviation !== null && !meets(deviation, NEAR)) {
      reasons.push(`by ${(missedBy(deviation, NEAR) * 100).toFixed(1)} %`);
    }
    if (expected === "hoards" && !found.hoards) reasons.push("does not say that it hoards");
    if (expected === "limit" && found.hoards) reasons.push("says that it hoards");
  }
  const late = missedBy(found.seconds, row.target.seconds);
  if (late > 0) reasons.push(`by ${formatSeconds(late)}`);
  return reasons;
}

/** The column heads of the table. */
export const KIND_HEAD: readonly string[] = [
  "reader",
  "sender",
  "found",
  "holds it",
  "off by",
  "width",
  "besides",
  "time",
  "target",
  "verdict",
];

const TARGETS: Record<Expected, string> = {
  limit: "holds it, within 5 %",
  hoards: "the same, and hoards",
  drift: "becomes slower",
  fails: "fails",
};

/** The cells of one row. */
export function formatKindRow(row: KindRow): string[] {
  const { found, deviation, width } = row;
  const reasons = reasonsAgainst(row);
  return [
    row.what,
    row.runtime,
    found.limit === null ? found.outcome : formatInterval(found.limit.lower, found.limit.upper),
    row.holds === null ? "-" : row.holds ? "yes" : "no",
    deviation === null ? "-" : formatDeviation(deviation),
    width === null ? "-" : `${(width * 100).toFixed(1)} %`,
    formatBesides(row) || "-",
    formatSeconds(found.seconds),
    `${TARGETS[row.expected]}, in ${formatSeconds(row.target.seconds.most!)}`,
    reasons.length === 0 ? "reached" : `target not reached (${reasons.join(", ")})`,
  ];
}

/** What the result says beside its limit. */
function formatBesides({ found, intake }: KindRow): string {
  const { hidden, drift } = found;
  const parts: string[] = [];
  if (found.outcome !== "found" && found.limit !== null) parts.push(found.outcome);
  if (found.hoards) {
    const burst = hidden?.bytes ?? null;
    parts.push(burst === null ? "hoards" : `hoards ${formatBytes(burst)}`);
  }
  if (found.intake) {
    const { lower, upper } = found.intake;
    const right = intake?.holds == null ? "" : intake.holds ? ", right" : ", wrong";
    const takes = upper === null
      ? `${formatByteRate(lower)} or more`
      : formatInterval(lower, upper);
    parts.push(`takes ${takes}${right}`);
  }
  if (drift) parts.push(`${(100 * drift.perMillionMessages).toFixed(1)} % a million messages`);
  return parts.join("; ");
}

/** Of the intervals of each part, how many hold the true rate: `noise 5 of 5, ...`. */
export function formatCoverage(rows: readonly KindRow[]): string {
  return KIND_PARTS.flatMap((part) => {
    const judged = rows.filter((row) =>
      row.part === part && row.expected !== "drift" && row.holds !== null &&
      row.found.outcome === "found"
    );
    const right = judged.filter((row) => row.holds).length;
    return judged.length === 0 ? [] : [`${part} ${right} of ${judged.length}`];
  }).join(", ");
}
