/** As fast as it goes: our flood and our drain client, each against the same in C, through a C peer. */
import type { FloodFigures } from "./peers/flood.ts";
import { commandOn, runPair, RUNTIMES } from "./programs.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import type { Cell } from "./rounds.ts";
import type { Target } from "./rows.ts";
import { judge, type SpeedRow } from "./speed_rows.ts";

export interface PeerOptions {
  /** peer.c, compiled. */
  peer: string;
  /** Of each run. */
  seconds: number;
}

/** What peer.c and the drain client print, of which this is used. */
export interface PeerFigures {
  bytes: number;
  seconds: number;
  /** The share of it that a peer in C was on a core. */
  busy?: number;
}

/** 64 KiB: of a write and of a read, wherever another is not the point. */
export const BLOCK = "65536";
/** The article's message. Bytes. */
export const MESSAGE_SIZE = 13;

/** A run that hangs is killed this long after it should have ended. Seconds. */
const PATIENCE = 30;

/** As long as the longest write of ours. */
const LONG_BLOCK = "1048576";

const C_FLOOD = "flood, C";
const C_LONG_FLOOD = "flood, C, 1 MiB a send";
const C_MESSAGES = "messages, C";
/** The controls: peer.c's words, and the size of a send. */
const CONTROLS = [
  { name: C_FLOOD, mode: "flood", size: BLOCK },
  { name: C_LONG_FLOOD, mode: "flood", size: LONG_BLOCK },
  { name: C_MESSAGES, mode: "messages", size: String(MESSAGE_SIZE) },
];

const LONG_FLOOD = "flood, 64 KiB messages, as many a write as are due";
const SINGLE_FLOOD = "flood, one 64 KiB message a write";
const SMALL_FLOOD = "flood, 13-byte messages, as many a write as are due";
/** The floods of ours: the options of peers/flood.ts. */
const FLOODS = [
  { name: LONG_FLOOD, args: ["--size", BLOCK] },
  { name: SINGLE_FLOOD, args: ["--size", BLOCK, "--write-size", BLOCK] },
  { name: SMALL_FLOOD, args: [] },
];
const DRAIN = "drain, 64 KiB reads";

/** What is compared with which control, in the order of the table. */
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
/** What a control does, in the table. */
const AGAINST: Record<string, string> = {
  [C_FLOOD]: "C, 64 KiB a send",
  [C_LONG_FLOOD]: "C, 1 MiB a send",
  [C_MESSAGES]: "C, one send a message",
};

/** What was sent must be what was read, to the byte, and take some time. */
export function checkPair(sentBytes: number, { bytes, seconds }: PeerFigures, name: string): void {
  if (!(bytes > 0 && seconds > 0)) throw new Error(`${name}: the reader got nothing`);
  if (sentBytes !== bytes) {
    throw new Error(`${name}: ${sentBytes} bytes were sent, but ${bytes} read`);
  }
}

/** The runs of one round: bytes a second, as the C end of the connection counts them. */
export function throughputCells({ peer, seconds }: PeerOptions): Cell<number>[] {
  const options = { seconds: seconds + PATIENCE };
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

/** The rows of what the cells gave. */
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
