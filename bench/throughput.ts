/** Measures the highest rate of our flood and of our drain client, each compared with C. */
import type { Runtime } from "../src/kernel/runtime.ts";
import type { FloodFigures } from "./peers/flood.ts";
import { commandOn, runPair, RUNTIMES } from "./programs.ts";
import type { Cell } from "./rounds.ts";
import type { Target } from "./rows.ts";
import { judge, type SpeedRow } from "./speed_rows.ts";

export interface PeerOptions {
  /** Path of peer.c as a compiled program. */
  peer: string;
  /** Duration of each run. */
  seconds: number;
}

/** The part of the output of peer.c and the drain client that is used. */
export interface PeerFigures {
  bytes: number;
  seconds: number;
  /** Share of the time in which the process was on a core; only from a peer in C. */
  busy?: number;
}

/** 64 KiB: the size of writes and reads, except where other sizes are compared. */
export const BLOCK = "65536";
/** The article's message. Bytes. */
export const MESSAGE_SIZE = 13;

/** A run that hangs is killed this long after it should have ended. Seconds. */
const GRACE_SECONDS = 30;

/** The size of our own longest write. */
const LONG_BLOCK = "1048576";

const C_FLOOD = "flood, C";
const C_LONG_FLOOD = "flood, C, 1 MiB a send";
const C_MESSAGES = "messages, C";
/** The controls: peer.c's mode, and the size of a send. */
const CONTROLS = [
  { name: C_FLOOD, mode: "flood", size: BLOCK },
  { name: C_LONG_FLOOD, mode: "flood", size: LONG_BLOCK },
  { name: C_MESSAGES, mode: "messages", size: String(MESSAGE_SIZE) },
];

const LONG_FLOOD = "flood, 64 KiB messages, as many a write as are due";
const SINGLE_FLOOD = "flood, one 64 KiB message a write";
const SMALL_FLOOD = "flood, 13-byte messages, as many a write as are due";
/** Our own floods, with the options of peers/flood.ts. */
const FLOODS = [
  { name: LONG_FLOOD, args: ["--size", BLOCK] },
  { name: SINGLE_FLOOD, args: ["--size", BLOCK, "--write-size", BLOCK] },
  { name: SMALL_FLOOD, args: [] },
];
const DRAIN = "drain, 64 KiB reads";

/** The comparisons with their controls, in the order of the table. */
const COMPARISONS: readonly {
  cell: string;
  control: string;
  target: Target;
  unit: SpeedRow["unit"];
}[] = [
  { cell: LONG_FLOOD, control: C_FLOOD, target: { least: 0.95 }, unit: "bytes/s" },
  { cell: LONG_FLOOD, control: C_LONG_FLOOD, target: {}, unit: "bytes/s" },
  { cell: SINGLE_FLOOD, control: C_FLOOD, target: { least: 0.95 }, unit: "bytes/s" },
  { cell: SMALL_FLOOD, control: C_MESSAGES, target: { least: 50 }, unit: "messages/s" },
  { cell: DRAIN, control: C_FLOOD, target: { least: 0.95 }, unit: "bytes/s" },
];
/** Descriptions of the controls in the table. */
const AGAINST: Record<string, string> = {
  [C_FLOOD]: "C, 64 KiB a send",
  [C_LONG_FLOOD]: "C, 1 MiB a send",
  [C_MESSAGES]: "C, one send a message",
};

/** Throws an Error unless as many bytes were read as were sent, more than none and in some time. */
export function checkPair(sentBytes: number, { bytes, seconds }: PeerFigures, name: string): void {
  if (!(bytes > 0 && seconds > 0)) throw new Error(`${name}: the reader received nothing`);
  if (sentBytes !== bytes) {
    throw new Error(`${name}: ${sentBytes} bytes were sent, but ${bytes} bytes were read`);
  }
}

/** The cells of one round, which measure bytes a second as the reading end counts them. */
export function throughputCells({ peer, seconds }: PeerOptions): Cell<number>[] {
  const options = { seconds: seconds + GRACE_SECONDS };
  const cDrain = (port: string) => [peer, "drain", "127.0.0.1", port, BLOCK];
  const cServer = (mode: string, size: string) => [peer, mode, "0", String(seconds), size];
  const cell = (
    name: string,
    server: readonly string[],
    reader: (port: string) => readonly string[],
  ): Cell<number> => ({
    name,
    async run() {
      const figures = await runPair(server, reader, options);
      const sent = figures.sent as PeerFigures | FloodFigures;
      const read = figures.read as PeerFigures;
      checkPair(sent.bytes, read, name);
      return read.bytes / read.seconds;
    },
  });
  const ownDrain = (runtime: Runtime) => (port: string) =>
    commandOn(
      runtime,
      "client.ts",
      ...[`127.0.0.1:${port}`, "--mode", "drain", "--read-size", BLOCK, "--json"],
    );
  const time = ["--seconds", `${seconds}s`];
  return [
    ...CONTROLS.map(({ name, mode, size }) => cell(name, cServer(mode, size), cDrain)),
    ...RUNTIMES.flatMap((runtime) => [
      ...FLOODS.map(({ name, args }) => {
        const server = commandOn(runtime, "bench/peers/flood.ts", ...args, ...time);
        return cell(`${name}, ${runtime}`, server, cDrain);
      }),
      cell(`${DRAIN}, ${runtime}`, cServer("flood", BLOCK), ownDrain(runtime)),
    ]),
  ];
}

/** The rows for the results of the cells. */
export function throughputRows(results: ReadonlyMap<string, number[]>): SpeedRow[] {
  return COMPARISONS.flatMap(({ cell, control, target, unit }) => {
    const runs = (name: string) =>
      results.get(name)!.map((bytes) => unit === "messages/s" ? bytes / MESSAGE_SIZE : bytes);
    return RUNTIMES.map((runtime) =>
      judge(
        {
          what: cell,
          against: AGAINST[control]!,
          runtime,
          unit,
          runs: runs(`${cell}, ${runtime}`),
          target,
        },
        runs(control),
      )
    );
  });
}
