/** Results of a benchmark that nobody ran: readers whose limits are known because they are made up. */
import {
  BENCH_SCHEMA,
  type BenchCell,
  type BenchLatency,
  type BenchResult,
  type ReaderFigures,
} from "../src/report/bench_result.ts";
import { assemble } from "../src/report/bench_file.ts";
import type { LimitResult, Trial } from "../src/measure/limit_result.ts";
import type { TrialSeries } from "../src/measure/series.ts";
import { trialFigures } from "../src/measure/trial_figures.ts";

export interface MadeReader {
  who: string;
  mode: "naive" | "drain";
  size: number;
  /** Bytes a second, one a run. */
  limits: number[];
  /** What it drains past its limit; default: the limit. */
  drains?: number;
}

export const MADE_READERS: MadeReader[] = [
  { who: "c", mode: "drain", size: 13, limits: [3.9e9, 4e9, 4.1e9] },
  { who: "c", mode: "naive", size: 13, limits: [11.1e6, 11.2e6, 11.3e6] },
  { who: "deno", mode: "drain", size: 13, limits: [2.98e9, 3e9, 3.02e9] },
  { who: "deno", mode: "naive", size: 13, limits: [5.2e6, 5.21e6, 5.25e6] },
  { who: "python", mode: "drain", size: 13, limits: [53e6, 55e6, 56e6], drains: 1.6e6 },
  { who: "python", mode: "naive", size: 13, limits: [7.4e6, 7.5e6, 7.52e6] },
  { who: "deno", mode: "drain", size: 65536, limits: [4.98e9, 5e9, 5.02e9] },
];

/** The figures of one search. */
export function madeFigures(limit: number, drains = limit): ReaderFigures {
  const lower = limit * 0.996;
  const upper = limit * 1.004;
  const trial = (offered: number, purpose: Trial["purpose"], drained: number): Trial => ({
    offered,
    achieved: offered,
    drained,
    backlogSlope: offered - drained,
    ...trialFigures(undefined, undefined),
    stalled: drained < offered ? 0.9 : 0,
    seconds: purpose === "ramp" ? 0.3 : 1.2,
    verdict: drained < offered ? "falls-behind" : "keeps-up",
    purpose,
    workedOn: null,
    readerCpu: null,
    senderCpu: 0.1,
  });
  const trials: Trial[] = [];
  let rate = 5e5;
  for (; rate < limit; rate *= 2) trials.push(trial(rate, "ramp", rate));
  const past = (offered: number) => drains * Math.min(1, (limit / offered) ** 0.1);
  trials.push(trial(rate, "ramp", past(rate)));
  trials.push(trial(limit * 1.06, "bound", drains < limit ? drains * 1.2 : limit));
  for (const share of [0.96, 0.99]) trials.push(trial(limit * share, "bound", limit * share));
  trials.push(trial(lower, "confirm", lower));
  trials.push(trial(upper, "confirm", drains < limit ? drains * 1.5 : limit));
  trials.push(trial(2 * upper, "overload", past(2 * upper)));
  return {
    outcome: "found",
    message: "the limit was found and confirmed by longer trials",
    limit: { lower, upper, messagesPerSecond: lower / 13 },
    overload: { offered: 2 * upper, drained: past(2 * upper), collapsed: drains < lower / 2 },
    recovery: { recovered: drains === limit, seconds: 1.5 },
    trials,
    keepsUpAt: lower,
    limitedBy: "reader",
  };
}

/** Half a second at a rate, of a reader that drains at another. */
function madeSeries(rate: number, drains: number): TrialSeries {
  const time = Array.from({ length: 200 }, (_, i) => i / 100);
  const drained = time.map((t) => Math.min(rate, drains) * t * (1 + 0.004 * Math.sin(40 * t)));
  const offered = time.map((t) => rate * t);
  return {
    rate,
    time,
    offered,
    drained,
    backlog: offered.map((sum, i) => Math.max(0, sum - drained[i]!) + rate * 0.001),
    window: time.map((t) => drains < rate ? Math.max(0, 3e6 - (rate - drains) * t) : 3e6),
  };
}

/** A knee in time: late from its limit on. */
function madeLatency(limit: number): BenchLatency[] {
  return [0.1, 0.5, 0.95, 1.05].map((share) => {
    const p50 = share < 1 ? 0.0006 / (1 - share) ** 0.5 : 0.025;
    const [p90, p99, p999, p9999, max] = [1.5, 2, 3, 4, 4.1].map((times) => p50 * times);
    return {
      rate: limit * share,
      messages: 10_000,
      ...{ p50, p90: p90!, p99: p99!, p999: p999!, p9999: p9999!, max: max! },
    };
  });
}

/** A result, as readBench gives it. */
export function madeResult(
  readers: readonly MadeReader[] = MADE_READERS,
  change: Partial<BenchResult> = {},
): BenchResult {
  const cells: BenchCell[] = [
    ...readers.map(({ who, mode, size }): BenchCell => ({ kind: "reader", who, mode, size })),
    { kind: "control", who: "c", size: 65536 },
  ];
  const date = "2026-11-20T12:00:00.000Z";
  const runs = Math.max(...readers.map(({ limits }) => limits.length));
  const result = assemble(
    {
      type: "header",
      schema: BENCH_SCHEMA,
      id: "made-up",
      machine: {
        date,
        cpu: "Example CPU",
        cores: 2,
        memory: 8e9,
        kernel: "Linux 6.18",
        congestionControl: "cubic",
        tcpRmem: [4096, 131072, 6291456],
        tcpWmem: [4096, 16384, 4194304],
        runtimes: { deno: "2.9.5", bun: "1.4.5", node: "26.10.0" },
        loadBefore: 0.1,
      },
      generator: { runtime: "deno 2.9.5", kernelSource: "sock_diag" },
      programs: { python: "3.11.7", c: "gcc 12.2.0" },
      command: "deno task bench --runs 3",
      quick: false,
      precision: 0.01,
      runs,
      warmUps: 0,
      cells,
      skipped: [],
    },
    [
      ...readers.flatMap(({ who, size, limits, drains }, cell) =>
        limits.map((limit, round) => ({
          type: "run" as const,
          cell,
          round,
          date,
          seconds: 12,
          figures: {
            ...madeFigures(limit, drains ?? limit),
            ...(round > 0 ? {} : {
              series: {
                below: madeSeries(limit * 0.98, limit),
                above: madeSeries(limit * 1.05, drains ?? limit),
              },
              ...(who === "deno" && size === 65536 ? { latency: madeLatency(limit) } : {}),
            }),
          },
        }))
      ),
      ...[7.2e9, 7.4e9, 7.3e9].map((bytesPerSecond, round) => ({
        type: "run" as const,
        cell: readers.length,
        round,
        date,
        seconds: 3,
        figures: {
          bytesPerSecond,
          senderBusy: 0.99,
          readerBusy: 0.7,
          limitedBy: "sender" as const,
        },
      })),
    ],
    { type: "end", date, seconds: 400 },
  );
  return { ...result, ...change };
}

/** A result of `limit --json`. */
export function madeLimit(reader: string, limit: number, drains = limit): LimitResult {
  const { limitedBy: _limitedBy, ...found } = madeFigures(limit, drains);
  return {
    ...found,
    schema: "speedlimit/limit@2",
    reader,
    readers: 1,
    interrupted: false,
    until: "worked",
    intake: null,
    hoards: false,
    hidden: null,
    output: null,
    drift: null,
    queueSource: "socket",
    messageSize: 13,
    precision: 0.01,
    confidence: 0.95,
    sampleSeconds: 0.01,
    seconds: 12,
    environment: {
      date: "2026-11-20T12:00:00.000Z",
      cpu: "Example CPU",
      cores: 2,
      memory: 8e9,
      kernel: "Linux 6.18",
      runtime: "deno 2.9.5",
      kernelSource: "sock_diag",
    },
  };
}
