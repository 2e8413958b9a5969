/** Whether the pacer keeps its rate, from 1 k to 50 M messages a second, into a C drain. */
import { formatCount } from "../src/text/units.ts";
import type { FloodFigures } from "./peers/flood.ts";
import { commandOn, runPair, RUNTIMES } from "./programs.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import type { Cell } from "./rounds.ts";
import { median } from "../src/measure/statistics.ts";
import { judge, type SpeedRow } from "./speed_rows.ts";
import {
  BLOCK,
  checkPair,
  MESSAGE_SIZE,
  type PeerFigures,
  type PeerOptions,
} from "./throughput.ts";

/** Messages a second. */
const RATES = [1e3, 10e3, 100e3, 1e6, 10e6, 50e6];
/** The JIT compilers have done most of their work by then. */
const SETTLE_SECONDS = 0.3;
/** What was owed is delivered at the end: by a sender that keeps a tenth of the rate, for long. */
const PATIENCE = 60;
/** Beyond what one tick and one write may leave owed: seconds of the rate. */
const BEHIND_SECONDS = 0.02;
/** The clocks of the two ends differ by how each began and ended: more than this is no such thing. */
const CLOCKS_DIFFER = 0.02;

/** What one run kept; rates in messages a second. */
export interface KeptRate {
  asked: number;
  /** Between two instants of the sender's clock. */
  achieved: number;
  /** What the C drain got, over all its time, by its own clock. */
  drained: number;
  /** What was due and not accepted at the second instant, in seconds of the rate. */
  behindSeconds: number;
  /** The share of the ticks that found the kernel taking no more. */
  blocked: number;
}

const cellName = (asked: number, runtime: Runtime) => `${formatCount(asked)}/s, ${runtime}`;

/** The runs of one round; `seconds` is the time between the two instants. */
export function paceCells({ peer, seconds }: PeerOptions): Cell<KeptRate>[] {
  return RUNTIMES.flatMap((runtime) =>
    RATES.map((asked) => ({
      name: cellName(asked, runtime),
      run: () => measurePace(peer, seconds, asked, runtime),
    }))
  );
}

async function measurePace(
  peer: string,
  seconds: number,
  asked: number,
  runtime: Runtime,
): Promise<KeptRate> {
  const options = ["--rate", String(asked), "--settle", `${SETTLE_SECONDS}s`];
  const { sent, read } = await runPair(
    commandOn(runtime, "bench/peers/flood.ts", ...options, "--seconds", `${seconds}s`),
    (port) => [peer, "drain", "127.0.0.1", port, BLOCK],
    { seconds: seconds + PATIENCE },
  );
  const { bytes, window, owed, blocked } = sent as FloodFigures;
  const drained = read as PeerFigures;
  checkPair(bytes, drained, `pacer, ${cellName(asked, runtime)}`);
  return {
    asked,
    achieved: window.bytes / MESSAGE_SIZE / window.seconds,
    drained: drained.bytes / MESSAGE_SIZE / drained.seconds,
    behindSeconds: (owed ?? 0) / MESSAGE_SIZE / asked,
    blocked,
  };
}

/** One line of the result, with all that was seen of its runs. */
export interface PaceRow extends SpeedRow {
  details: KeptRate[];
}

/** The rows of what the cells gave. */
export function paceRows(results: ReadonlyMap<string, KeptRate[]>): PaceRow[] {
  return RATES.flatMap((asked) =>
    RUNTIMES.map((runtime) => {
      const runs = results.get(cellName(asked, runtime))!;
      const note = noteOn(runs);
      const row = judge({
        what: "pacer, 13-byte messages",
        against: "the rate asked",
        runtime,
        unit: "messages/s",
        runs: runs.map(({ achieved }) => achieved),
        target: { least: 0.999, most: 1.001 },
        ...(note === undefined ? {} : { note }),
      }, asked);
      return { ...row, details: runs };
    })
  );
}

function noteOn(runs: readonly KeptRate[]): string | undefined {
  const middle = (of: (run: KeptRate) => number) => median(runs.map(of));
  const achieved = middle((run) => run.achieved);
  const drained = middle((run) => run.drained);
  if (middle((run) => run.behindSeconds) > BEHIND_SECONDS) {
    // A kernel that took no more is full because of the reader, not of us.
    const whose = middle((run) => run.blocked) > 0.5 ? "the C drain's" : "this sender's";
    return `kept ${formatCount(achieved)}/s: ${whose} most`;
  }
  if (Math.abs(drained / achieved - 1) > CLOCKS_DIFFER) {
    return `the C drain counted ${formatCount(drained)}/s by its own clock`;
  }
  return undefined;
}
