/** All runs of a benchmark that are still to come: in rounds, shuffled, each written as it ends. */
import type { BenchCell, BenchHeader, BenchRun } from "../src/report/bench_result.ts";
import type { BenchWriter } from "../src/report/bench_file.ts";
import { type Installed, nameCell } from "./bench_cells.ts";
import { runReader, runSender, type SearchPhase } from "./bench_runs.ts";
import { BenchTime, formatMinutes, type Pending } from "./bench_time.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import { RUNTIMES } from "./programs.ts";
import { shuffled } from "./rounds.ts";
import { interrupted } from "../src/cli/program.ts";
import type { ProgressLine } from "../src/text/progress.ts";
import { LEAST_NUMBERED_SIZE } from "../src/message/numbered.ts";
import { formatInterval } from "../src/report/limit_table.ts";
import { formatByteRate, formatSeconds } from "../src/text/units.ts";

const PHASES: Record<"quick" | "full", SearchPhase> = {
  quick: {
    search: { trialScale: 0.4, maxTrialSeconds: 1, usualSeconds: 4, longestSeconds: 6 },
    seriesSeconds: 0.5,
    floodSeconds: 0.3,
  },
  full: {
    search: { trialScale: 0.8, maxTrialSeconds: 4, usualSeconds: 12, longestSeconds: 25 },
    seriesSeconds: 1.5,
    floodSeconds: 1,
  },
};

/**
 * Floods for each search: they take no time, and three of them say too little. Two sets of three
 * figures from one distribution lie apart in a tenth of all cases, two of six in 0.2 %.
 */
const FLOOD_RUNS = 2;

export interface MeasureOptions {
  header: BenchHeader;
  /** Those that were made already; new ones are added. */
  runs: BenchRun[];
  writer: BenchWriter;
  installed: Installed;
  progress: ProgressLine;
}

/** Makes all runs that are missing. False: it was interrupted. */
export async function measureRuns(options: MeasureOptions): Promise<boolean> {
  const { header, runs, writer, installed, progress } = options;
  const { cells, quick, warmUps } = header;
  const effort = quick ? PHASES.quick : PHASES.full;
  const time = new BenchTime(cells, { quick, firstRound: warmUps });
  for (const run of runs) time.saw(run);
  const pending = listPending(header, runs);
  const left = () => formatMinutes(time.left(pending));
  progress.line(
    `${pending.length} runs${runs.length > 0 ? ` of ${pending.length + runs.length} left` : ""}` +
      `, about ${left()}`,
  );
  while (pending.length > 0) {
    if (interrupted().aborted) return false;
    const { cell, round } = pending[0]!;
    const name = nameCell(cells[cell]!);
    const say = (what: string) =>
      progress.update(
        `${runs.length + 1}/${runs.length + pending.length} ${name}${what}, ` +
          `${left()} left`,
      );
    say("");
    const date = new Date().toISOString();
    const startMs = performance.now();
    let figures: BenchRun["figures"] | null;
    try {
      figures = await measure(cells[cell]!, {
        installed,
        effort,
        precision: header.precision,
        keptBefore: keptBefore(cells, cell, runs),
        series: round === warmUps,
        latencyServer: round === warmUps && measuresLatency(header, cell)
          ? header.generator.runtime.split(" ")[0] as Runtime
          : undefined,
        say,
        note: (text) => progress.line(`    ${name}: ${text}`),
      });
    } catch (error) {
      if (interrupted().aborted) return false;
      // A row that says so: neither a low number nor the end of the others.
      figures = { failed: (error as Error).message.trim().replace(/\s*\n\s*/g, " ") };
    }
    if (figures === null) return false;
    const seconds = (performance.now() - startMs) / 1000;
    const run: BenchRun = { type: "run", cell, round, date, seconds, figures };
    writer.append(run);
    runs.push(run);
    time.saw(run);
    pending.shift();
    progress.line(
      `${String(runs.length).padStart(3)}/${runs.length + pending.length} ` +
        `${round < warmUps ? "warm-up " : ""}${name}: ${tell(figures)}, ` +
        `${formatSeconds(seconds)}${pending.length > 0 ? `; ${left()} left` : ""}`,
    );
  }
  return true;
}

/** What there is to run and was not: every round in an order of its own. */
function listPending({ cells, runs, warmUps }: BenchHeader, done: readonly BenchRun[]): Pending[] {
  const pending: Pending[] = [];
  for (let round = 0; round < warmUps + runs * FLOOD_RUNS; round++) {
    // Each search of a reader begins with a ramp: that is its warm-up.
    const searches = round >= warmUps && (round - warmUps) % FLOOD_RUNS === 0;
    const inRound = cells.map((_, cell) => cell).filter((cell) =>
      (searches || cells[cell]!.kind !== "reader") &&
      !done.some((run) => run.cell === cell && run.round === round)
    );
    pending.push(...shuffled(inRound).map((cell) => ({ cell, round })));
  }
  return pending;
}

/** Of our own readers, with the shortest messages that can be numbered; a quick run has no time. */
function measuresLatency({ cells, quick }: BenchHeader, cell: number): boolean {
  const { kind, who, size } = cells[cell]!;
  const sizes = cells.filter((each) => each.kind === "reader").map((each) => each.size)
    .filter((each) => each >= LEAST_NUMBERED_SIZE);
  return !quick && kind === "reader" && RUNTIMES.some((each) => each === who) &&
    size === Math.min(...sizes);
}

/** The least that the same reader kept in a run so far, whatever the size of the messages. */
function keptBefore(
  cells: readonly BenchCell[],
  cell: number,
  runs: readonly BenchRun[],
): number | undefined {
  const same = cells[cell]!;
  const rates = runs.flatMap(({ cell, figures }) => {
    const other = cells[cell]!;
    if (same.kind !== "reader" || other.kind !== "reader" || !("keepsUpAt" in figures)) return [];
    return other.who === same.who && other.mode === same.mode && figures.keepsUpAt > 0
      ? [figures.limit?.lower ?? figures.keepsUpAt]
      : [];
  });
  return rates.length === 0 ? undefined : Math.min(...rates);
}

interface RunOptions {
  installed: Installed;
  effort: SearchPhase;
  precision: number;
  keptBefore: number | undefined;
  series: boolean;
  latencyServer: Runtime | undefined;
  say: (what: string) => void;
  note: (text: string) => void;
}

async function measure(
  cell: BenchCell,
  { say, note: onNote, ...options }: RunOptions,
): Promise<BenchRun["figures"] | null> {
  if (cell.kind !== "reader") return await runSender(cell, options);
  return await runReader(cell, {
    ...options,
    onNote,
    onEvent(event) {
      if (event.event === "trial-begins") say(` at ${formatByteRate(event.rate)}`);
    },
  });
}

function tell(figures: BenchRun["figures"]): string {
  if ("failed" in figures) return `failed: ${figures.failed}`;
  if ("bytesPerSecond" in figures) return formatByteRate(figures.bytesPerSecond);
  const { limit, outcome, keepsUpAt } = figures;
  if (limit !== null) return formatInterval(limit.lower, limit.upper);
  return outcome === "generator-limited"
    ? `above ${formatByteRate(keepsUpAt)}`
    : `${outcome}: ${figures.message}`;
}
