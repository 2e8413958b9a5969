/** The rows of the table that bench/spill.ts prints, and their targets. */
import { formatByteRate, formatBytes, formatSeconds } from "../src/text/units.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import { median, spread } from "../src/measure/statistics.ts";
import { meets, missedBy, type Target } from "./rows.ts";
import type { AwayRun } from "./spill_away.ts";
import type { CrowdRun } from "./spill_crowd.ts";
import type { SpillRun, WindowRun } from "./spill_runs.ts";
import { type Memory, SYNC } from "./spill_server.ts";

/** The unit of a figure; `times`: a number of events. */
export type SpillUnit = "bytes/s" | "bytes" | "s" | "times";

/** A figure of the same run to compare with. */
export interface Reference {
  name: string;
  runs: readonly number[];
}

/** One line of the result. */
export interface SpillRow {
  what: string;
  runtime: Runtime;
  unit: SpillUnit;
  /** The median of `runs`. */
  value: number;
  runs: number[];
  /** Name of the reference; absent if the row has no reference. */
  against?: string;
  /** The median of `referenceRuns`. */
  reference?: number;
  referenceRuns?: number[];
  /** value / reference */
  ratio?: number;
  /** Target of `ratio`, or of `value` if there is no reference; empty: no target. */
  target: Target;
  /** Whether the target is reached; null without a target. */
  met: boolean | null;
  note?: string;
  /** Further figures of the runs, for the JSON file. */
  details?: unknown;
}

/** The data of a row. */
export interface Figure
  extends Pick<SpillRow, "what" | "runtime" | "unit" | "runs" | "target" | "details"> {
  note?: string | undefined;
  reference?: Reference;
}

/** Makes a row: computes its median, its ratio, and whether the target is reached. */
export function judge(
  { what, runtime, unit, runs, target, note, details, reference }: Figure,
): SpillRow {
  const value = median(runs);
  const row: SpillRow = { what, runtime, unit, value, runs, target, met: null };
  if (reference !== undefined) {
    row.against = reference.name;
    row.reference = median(reference.runs);
    row.referenceRuns = [...reference.runs];
    row.ratio = value / row.reference;
  }
  if (target.least !== undefined || target.most !== undefined) {
    row.met = meets(row.ratio ?? value, target);
  }
  if (note !== undefined) row.note = note;
  if (details !== undefined) row.details = details;
  return row;
}

/** The cells of a row in the table. */
export function formatSpillRow(row: SpillRow): string[] {
  const { what, runtime, unit, value, runs, against, reference, ratio, met, note } = row;
  const show = (figure: number) => formatFigure(figure, unit);
  const { min, max } = spread(runs);
  const verdict = met === null ? "" : met ? "reached" : formatMiss(row);
  return [
    what,
    runtime,
    show(value),
    runs.length === 1 ? "" : `${show(min)}-${show(max)}`,
    reference === undefined ? "" : `${against}: ${show(reference)}`,
    ratio === undefined ? "" : `${ratio.toFixed(2)}x`,
    formatTarget(row),
    [verdict, note].filter((text) => text !== undefined && text !== "").join(": "),
  ];
}

export function formatFigure(value: number, unit: SpillUnit): string {
  switch (unit) {
    case "bytes/s":
      return formatByteRate(value);
    case "bytes":
      return formatBytes(value);
    case "s":
      return formatSeconds(value);
    case "times":
      return String(value);
  }
}

function formatTarget({ target: { least, most }, ratio, unit }: SpillRow): string {
  const show = (bound: number) => ratio === undefined ? formatFigure(bound, unit) : `${bound}x`;
  if (least !== undefined) return `>= ${show(least)}`;
  return most === undefined ? "-" : `<= ${show(most)}`;
}

function formatMiss({ target, value, ratio, unit }: SpillRow): string {
  const missed = missedBy(ratio ?? value, target);
  const bound = target.least ?? target.most!;
  if (bound === 0) return `target not reached (by ${formatFigure(missed, unit)})`;
  return `target not reached (by ${(missed / bound * 100).toFixed(1)} %)`;
}

/** Target for a server's memory, whatever the backlog. Bytes. */
const MOST_MEMORY = 200e6;
/** Target for the size of an empty queue. Bytes. */
const MOST_LEFT = 4e6;

export interface Sustained {
  runtimes: readonly Runtime[];
  syncs: readonly string[];
  /** Rate to each of two readers; bytes a second. */
  rates: ReadonlyMap<Runtime, number>;
  /** These rates as a share of the rate at which one reader alone is spilled. */
  share: number;
}

/** The rows of the part sustained, from the runs by the names of their cells. */
export function sustainedRows(
  results: ReadonlyMap<string, SpillRun[]>,
  { runtimes, syncs, rates, share }: Sustained,
): SpillRow[] {
  const spilled = (name: string) => results.get(name)!.map((run) => run.spilled!);
  const fast = (name: string) => results.get(name)!.map((run) => run.fast!);
  const spilling = syncs.flatMap((sync) =>
    runtimes.map((runtime) =>
      judge({
        what: `spilled, --sync ${sync}`,
        runtime,
        unit: "bytes/s",
        runs: spilled(`${sync}, ${runtime}`),
        reference: { name: "dd conv=fdatasync", runs: spilled("dd") },
        target: sync === SYNC && runtime !== "node" ? { least: 0.7 } : {},
      })
    )
  );
  const beside = runtimes.map((runtime) => {
    const rate = rates.get(runtime)!;
    const other = spilled(`beside, ${runtime}`);
    return judge({
      what: "a fast reader beside a spilling one",
      runtime,
      unit: "bytes/s",
      runs: fast(`beside, ${runtime}`),
      reference: { name: "the same alone", runs: fast(`alone, ${runtime}`) },
      target: { least: 0.9 },
      note: `${formatByteRate(rate)} to each, ${share * 100} % of what was spilled alone; ` +
        `the other spilled ${formatByteRate(median(other))}`,
      details: { rate, spilledBeside: other },
    });
  });
  return [...spilling, ...beside];
}

/** `how`: the rate at which the backlog was stored, as a text for people. */
export function awayRows(results: ReadonlyMap<Runtime, AwayRun>, how: string): SpillRow[] {
  const rows = [...results].map(([runtime, run]): SpillRow[] => {
    const memory = (what: string, memory: Memory) =>
      judge({
        what,
        runtime,
        unit: "bytes",
        runs: [memory.most],
        target: { most: MOST_MEMORY },
        note: `median ${formatBytes(median(memory.samples))}`,
        details: memory,
      });
    const drain = (name: string, runs: readonly number[], target: Target) =>
      judge({
        what: "drain of the backlog, nothing in the page cache",
        runtime,
        unit: "bytes/s",
        runs: [run.drained],
        reference: { name, runs },
        target,
      });
    return [
      memory(`memory, reader disconnected, ${how}`, run.awayMemory),
      judge({
        what: "listens again after kill -9",
        runtime,
        unit: "s",
        runs: [run.restartSeconds],
        target: { most: 1 },
        note: `backlog ${formatBytes(run.waiting)}`,
      }),
      ...run.paced.map(({ rate, drained }) =>
        judge({
          what: "drain of the backlog, by a reader with a limit",
          runtime,
          unit: "bytes/s",
          runs: [drained],
          reference: { name: "its limit", runs: [rate] },
          target: { least: 0.7 },
        })
      ),
      drain("dd of the same files", [run.coldRead], { least: 0.7 }),
      drain("of a flood through memory", run.relayed, { least: 0.7 }),
      drain("of a plain flood", run.flooded, { least: 0.7 }),
      memory("memory, while it drains", run.drainMemory),
      judge({
        what: "the queue, once all was delivered and the server ended",
        runtime,
        unit: "bytes",
        runs: [run.fileBytesClosed],
        target: { most: MOST_LEFT },
        note: `${formatBytes(run.fileBytes)} before, ${
          formatBytes(run.fileBytesLeft)
        } with the last byte`,
        details: { stored: run.stored },
      }),
    ];
  });
  // By figure, then by runtime, like the rows of the other parts.
  return (rows[0] ?? []).flatMap((_, i) => rows.map((each) => each[i]!));
}

/** Targets with many readers away: bytes on disk, as a multiple of what was fed; pauses in seconds. */
const MOST_ON_DISK = 1.1;
const MOST_FEED_PAUSE = 0.1;
const MOST_READER_PAUSE = 0.25;

/** `readers`: how many are away; `rate`: of the source. */
export function crowdRows(
  results: ReadonlyMap<Runtime, CrowdRun>,
  { readers, rate, seconds }: { readers: number; rate: number; seconds: number },
): SpillRow[] {
  const away = `${readers} readers away, a source of ${formatByteRate(rate)} for ${seconds} s`;
  const rows = [...results].map(([runtime, run]): SpillRow[] => [
    judge({
      what: `memory, ${away}`,
      runtime,
      unit: "bytes",
      runs: [run.memory.most],
      target: { most: MOST_MEMORY },
      note: `median ${formatBytes(median(run.memory.samples))}`,
      details: run,
    }),
    judge({
      what: `on disk, ${away}`,
      runtime,
      unit: "bytes",
      runs: [run.onDisk],
      reference: { name: "what was sent", runs: [run.fed] },
      target: { most: MOST_ON_DISK },
      note: `${formatBytes(run.waiting)} for all readers together`,
    }),
    judge({
      what: `longest pause of the source, ${away}`,
      runtime,
      unit: "s",
      runs: [run.feedPause],
      target: { most: MOST_FEED_PAUSE },
    }),
    judge({
      what: `longest pause of the reader that is there, ${away}`,
      runtime,
      unit: "s",
      runs: [run.readerPause],
      target: { most: MOST_READER_PAUSE },
    }),
  ]);
  return (rows[0] ?? []).flatMap((_, i) => rows.map((each) => each[i]!));
}

export function windowRows(
  results: ReadonlyMap<Runtime, WindowRun>,
  { rate, seconds }: { rate: number; seconds: number },
): SpillRow[] {
  return [...results].map(([runtime, run]) =>
    judge({
      what: `zero windows upstream at ${formatByteRate(rate)}, reader stopped ${seconds} s`,
      runtime,
      unit: "times",
      runs: [zeroWindows(run)],
      target: { most: 0 },
      note: `took ${formatByteRate(run.bytes / run.seconds)}, window ` +
        `${formatBytes(run.leastWindow)} at least, limited ` +
        `${formatSeconds(run.windowLimitedUs / 1e6)}; of all sockets here ${run.fromZeroWindow}`,
      details: run,
    })
  );
}

/**
 * The kernel's counter misses no zero window, but counts those of all sockets here. It is ignored if
 * the upstream's own connection had none in its samples and was never limited by the window.
 */
function zeroWindows({ zeroWindows, windowLimitedUs, fromZeroWindow }: WindowRun): number {
  const own = zeroWindows > 0 || windowLimitedUs > 0;
  return own ? Math.max(zeroWindows, fromZeroWindow) : 0;
}
