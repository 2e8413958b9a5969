/** Measures whether the pacer keeps its rate, from 1 k to 50 M messages a second, to a C drain. */
import { formatCount } from "../src/text/units.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import { median } from "../src/measure/statistics.ts";
import type { FloodFigures } from "./peers/flood.ts";
import { commandOn, runPair, RUNTIMES } from "./programs.ts";
import type { Cell } from "./rounds.ts";
import { judge, type SpeedRow } from "./speed_rows.ts";
import {
  BLOCK,
  checkPair,
  MESSAGE_SIZE,
  type PeerFigures,
  type PeerOptions,
} from "./throughput.ts";

/** Rates to offer, messages a second. */
const RATES = [1e3, 10e3, 100e3, 1e6, 10e6, 50e6];
/** Warm-up, in which the JIT compilers do most of their work. */
const SETTLE_SECONDS = 0.3;
/** Time after a run to deliver what is still owed, which takes long if the sender is too slow. */
const GRACE_SECONDS = 60;
/** More than one tick and one write may leave owed; seconds at the rate. */
const BEHIND_SECONDS = 0.02;
/**
 * The two ends begin and end at different times, which explains a difference of up to this share.
 */
const CLOCKS_DIFFER = 0.02;

/** The result of one run; rates in messages a second. */
export interface PaceRun {
  asked: number;
  /** Accepted between two instants of the sender's clock. */
  achieved: number;
  /** Received by the C drain over its whole run, by its own clock. */
  drained: number;
  /** Due but not accepted at the second instant, in seconds at the rate. */
  behindSeconds: number;
  /** Share of the ticks in which the kernel's send buffer was full. */
  blocked: number;
}

const cellName = (asked: number, runtime: Runtime) => `${formatCount(asked)}/s, ${runtime}`;

/** The runs of one round; `seconds` is the time between the two instants. */
export function paceCells({ peer, seconds }: PeerOptions): Cell<PaceRun>[] {
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
): Promise<PaceRun> {
  const options = ["--rate", String(asked), "--settle", `${SETTLE_SECONDS}s`];
  const { sent, read } = await runPair(
    commandOn(runtime, "bench/peers/flood.ts", ...options, "--seconds", `${seconds}s`),
    (port) => [peer, "drain", "127.0.0.1", port, BLOCK],
    { seconds: seconds + GRACE_SECONDS },
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

/** One row of the result, with the details of its runs. */
export interface PaceRow extends SpeedRow {
  details: PaceRun[];
}

/** The rows for the results of the cells. */
export function paceRows(results: ReadonlyMap<string, PaceRun[]>): PaceRow[] {
  return RATES.flatMap((asked) =>
    RUNTIMES.map((runtime) => {
      const runs = results.get(cellName(asked, runtime))!;
      const note = noteOn(runs);
      const row = judge({
        what: "pacer, 13-byte messages",
        against: "the offered rate",
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

function noteOn(runs: readonly PaceRun[]): string | undefined {
  const middle = (of: (run: PaceRun) => number) => median(runs.map(of));
  const achieved = middle((run) => run.achieved);
  const drained = middle((run) => run.drained);
  if (middle((run) => run.behindSeconds) > BEHIND_SECONDS) {
    // If the send buffer was full, the reader was too slow, not the sender.
    const slow = middle((run) => run.blocked) > 0.5 ? "the C drain" : "this sender";
    return `${slow} reached only ${formatCount(achieved)}/s`;
  }
  if (Math.abs(drained / achieved - 1) > CLOCKS_DIFFER) {
    return `the C drain counted ${formatCount(drained)}/s by its own clock`;
  }
  return undefined;
}
