/** What bench/kill.ts combines, and the random draws of a round, which a seed repeats. */
import type { Runtime } from "../src/kernel/runtime.ts";

export const SOURCES = ["flood", "file", "tcp", "chain"] as const;
export const ACKS = ["none", "tcp", "reader"] as const;

/**
 * - `flood`: the server's own numbered messages;
 * - `file`: a file of them;
 * - `tcp`: a plain TCP server, which sends each message once;
 * - `chain`: a first server that floods, read with `--source-ack`; both servers are killed.
 */
export type KillSource = (typeof SOURCES)[number];
/** As in `--ack`. */
export type KillAck = (typeof ACKS)[number];

/** One combination. Its guarantees are those of docs/serve.md. */
export interface KillCell {
  source: KillSource;
  ack: KillAck;
  /** With more than one, each sends its name (`--reader-id hello`). */
  readers: number;
  /** Of the servers and readers. */
  runtime: Runtime;
}

/** `flood/reader/5/deno` */
export const cellName = ({ source, ack, readers, runtime }: KillCell): string =>
  `${source}/${ack}/${readers}/${runtime}`;

/** The cell with this name; undefined if no cell has it. */
export function parseCell(text: string): KillCell | undefined {
  const [source, ack, readers, runtime] = text.split("/");
  const count = Number(readers);
  const known = SOURCES.includes(source as KillSource) && ACKS.includes(ack as KillAck) &&
    Number.isInteger(count) && count >= 1 && count <= 100 &&
    ["deno", "bun", "node"].includes(runtime ?? "");
  if (!known || text.split("/").length !== 4) return undefined;
  return {
    source: source as KillSource,
    ack: ack as KillAck,
    readers: count,
    runtime: runtime as Runtime,
  };
}

export type Random = () => number;

export const pick = <T>(random: Random, items: readonly T[]): T =>
  items[Math.floor(random() * items.length)]!;

/** Who is killed. */
export type Victim = "server" | "upstream" | { reader: number };

/** One kill of a round. */
export interface PlannedKill {
  victim: Victim;
  /** Whether the servers are first waited for; else the kill may hit one that is starting. */
  ready: boolean;
  /** Then the time until the kill; ms. */
  afterMs: number;
  /** The time until what was killed is started again; ms. */
  downMs: number;
}

/** What a reader does besides storing its stream. */
export interface PlannedReader {
  name: string | undefined;
  /** Limit of its rate, as a multiple of the offered one. */
  speed: number;
  leaves: boolean;
}

export interface Plan {
  sync: string;
  /** As in `--backlog`. */
  backlog: string;
  durable: boolean;
  readers: PlannedReader[];
  kills: PlannedKill[];
}

/** Some readers are faster than what is offered to them, one is slower, two leave and come back. */
const FIVE: readonly Omit<PlannedReader, "name">[] = [
  { speed: 3, leaves: false },
  { speed: 1.5, leaves: false },
  { speed: 0.8, leaves: false },
  { speed: 3, leaves: true },
  { speed: 2, leaves: true },
];

/** Draws what happens in a round. */
export function planRound(cell: KillCell, kills: number, random: Random): Plan {
  const { source, readers } = cell;
  const sync = pick(random, ["always", "interval:100ms", "off"]);
  const backlog = pick(random, ["64k", "1M"]);
  const durable = random() < 0.25;
  const one = { speed: pick(random, [3, 1.3, 0.8]), leaves: random() < 0.2 };
  const victims = (): Victim => {
    const chance = random();
    if (chance < 0.4) return { reader: Math.floor(random() * readers) };
    return source === "chain" && chance < 0.7 ? "upstream" : "server";
  };
  return {
    sync,
    backlog,
    durable,
    readers: readers === 1
      ? [{ name: undefined, ...one }]
      : Array.from({ length: readers }, (_, i) => ({ name: `r${i}`, ...FIVE[i % FIVE.length]! })),
    kills: Array.from({ length: kills }, () => ({
      victim: victims(),
      ready: random() < 0.7,
      afterMs: 10 + random() ** 2 * 600,
      downMs: random() < 0.5 ? 0 : random() * 250,
    })),
  };
}
