/** Checks what a reader of bench/kill.ts has stored against the guarantees in docs/serve.md. */
import { readFileSync } from "node:fs";
import { environment } from "../src/kernel/environment.ts";
import { crc32 } from "../src/message/crc32.ts";
import type { KillCell } from "./kill_cells.ts";
import type { KeeperConnection } from "./readers/keeper.ts";

/** Numbers from `from` up to but not including `to`. */
export interface Range {
  from: number;
  to: number;
}

/** The size of a reader's file at some times; ms since 1970, and bytes. */
export type Growth = { time: number; bytes: number }[];

/** A kill of the server that the readers read. */
export interface ServerKill {
  time: number;
  /** Of a plain TCP source: what it alone may have lost, by number. */
  unstored: Range | undefined;
  /** What was on disk for each reader and not delivered, by the reader's name and by number. */
  stored: ReadonlyMap<string, Range[]> | undefined;
}

export interface ReaderRecord {
  name: string;
  file: string;
  size: number;
  connections: readonly KeeperConnection[];
  growth: Growth;
  /** Number after the last message that it should have. */
  end: number;
  serverKills: readonly ServerKill[];
  /** How often the server said that it skips bytes for this reader. */
  gapEvents: number;
}

export interface ReaderFigures {
  messages: number;
  /** Messages that never came. */
  missing: number;
  /** Of these: what the source could not repeat, and what was in the kernels of a reader that ended. */
  missingOfSource: number;
  missingOfReader: number;
  /** Of those that the source could not repeat: of no gap was the reader or the log told. */
  unreported: number;
  duplicates: number;
  outOfOrder: number;
  damaged: number;
  /** The most that one kill of the server repeated, and how much of it docs/serve.md does not name; bytes. */
  mostRepeated: number;
  beyondStated: number;
  /** The most that one end of the reader lost; bytes. */
  mostLost: number;
}

export const NO_FIGURES: Readonly<ReaderFigures> = {
  messages: 0,
  missing: 0,
  missingOfSource: 0,
  missingOfReader: 0,
  unreported: 0,
  duplicates: 0,
  outOfOrder: 0,
  damaged: 0,
  mostRepeated: 0,
  beyondStated: 0,
  mostLost: 0,
};

/** The buffers of Linux's defaults, where they cannot be read; bytes. */
const RECEIVE_BUFFER = 32 << 20;
const SEND_BUFFER = 4 << 20;
/** What a reader's runtime may have read and not passed on; bytes. */
const IN_USER_SPACE = 1 << 20;
const BATCH = 1 << 20;
/** What docs/serve.md says for a kill of the server, and what is accepted on a busy machine; ms. */
const STATED_MS = 200;
const NOTED_MS = 700;
/** The same for a kill of the reader: the server asks its kernel every 10 ms. */
const NOTICED_MS = 200;

/** Consecutive messages that came over one connection. */
interface Run extends Range {
  connection: number;
  /** Bytes in the file after it. */
  bytes: number;
}

/** The messages in the file. `onBad`: damaged, or in a connection before its predecessor. */
function readRuns(
  { file, size, connections }: ReaderRecord,
  onBad: (what: "damaged" | "outOfOrder", number: number) => void,
): Run[] {
  const bytes = readFileSync(file);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const runs: Run[] = [];
  for (const [i, { at }] of connections.entries()) {
    const end = connections[i + 1]?.at ?? bytes.length - bytes.length % size;
    let run: Run | undefined;
    for (let from = at; from + size <= end; from += size) {
      const number = view.getUint32(from) * 2 ** 32 + view.getUint32(from + 4);
      const crc = from + size - 4;
      if (view.getUint32(crc) !== crc32(bytes, from, crc)) {
        onBad("damaged", number);
        run = undefined;
        continue;
      }
      if (run?.to === number) {
        run.to++;
        run.bytes = from + size;
        continue;
      }
      if (run !== undefined && number < run.to) onBad("outOfOrder", number);
      run = { connection: i, from: number, to: number + 1, bytes: from + size };
      runs.push(run);
    }
  }
  return runs;
}

/** The numbers from the first one up to `end` that are in none of these ranges. */
export function missingIn(ranges: readonly Range[], end: number): Range[] {
  const sorted = [...ranges].sort((a, b) => a.from - b.from);
  const missing: Range[] = [];
  let next = sorted[0]?.from ?? 0;
  for (const { from, to } of [...sorted, { from: end, to: end }]) {
    if (from > next) missing.push({ from: next, to: from });
    next = Math.max(next, to);
  }
  return missing;
}

/** What is left of a range without those. */
export function without(range: Range, others: readonly Range[]): Range[] {
  let left = [range];
  for (const { from, to } of others) {
    left = left.flatMap((each) =>
      [
        { from: each.from, to: Math.min(each.to, from) },
        { from: Math.max(each.from, to), to: each.to },
      ].filter((part) => part.to > part.from)
    );
  }
  return left;
}

const lengthOf = (ranges: readonly Range[]): number =>
  ranges.reduce((sum, { from, to }) => sum + Math.max(0, to - from), 0);
const show = (ranges: readonly Range[]): string =>
  ranges.slice(0, 5).map(({ from, to }) => `${from}-${to - 1}`).join(", ") +
  (ranges.length > 5 ? ", ..." : "");

/** Bytes in the file at that time. */
function bytesAt(growth: Growth, time: number): number {
  let bytes = 0;
  for (const sample of growth) {
    if (sample.time > time) break;
    bytes = sample.bytes;
  }
  return bytes;
}

/** What came between two runs of different connections, or after the last one. */
interface Break {
  /** From the last message before it to the first one after it. */
  jump: Range;
  /** Repeated messages. */
  repeated: number;
  /** The reader ended a connection in between. */
  readerEnded: boolean;
  /** When the server was killed first in between; ms since 1970. */
  killedAt: number | undefined;
  /** The server told the reader that it skips bytes. */
  told: boolean;
  /** Bytes in the file at the break. */
  bytes: number;
}

function breaksOf(record: ReaderRecord, runs: readonly Run[]): Break[] {
  const { connections, serverKills, end } = record;
  const breaks: Break[] = [];
  for (const [i, run] of runs.entries()) {
    const next = runs[i + 1];
    if (next?.connection === run.connection) continue;
    const between = connections.slice(run.connection + 1, (next?.connection ?? Infinity) + 1);
    const beganAt = connections[run.connection]!.time;
    const endedAt = next === undefined ? Infinity : connections[next.connection]!.time;
    const first = next?.from ?? Math.max(run.to, end);
    // Of those that it went back over, some may never have come before.
    const back = { from: first, to: Math.max(first, run.to) };
    const fresh = without(back, runs.slice(0, i + 1));
    breaks.push({
      jump: { from: run.to, to: first },
      repeated: lengthOf([back]) - lengthOf(fresh),
      readerEnded: between.some(({ why }) => why !== "lost"),
      killedAt: serverKills.find(({ time }) => time >= beganAt && time <= endedAt)?.time,
      told: between.some(({ offset = 0, requested = Infinity }) => offset > requested),
      bytes: run.bytes,
    });
  }
  return breaks;
}

/** The figures of one reader; `violation` is called for each guarantee that does not hold. */
export function checkReader(
  cell: KillCell,
  record: ReaderRecord,
  violation: (what: string) => void,
): ReaderFigures {
  const { ack, source } = cell;
  const { name, size, connections, growth, end, serverKills, gapEvents } = record;
  const figures = { ...NO_FIGURES };
  const bad = { damaged: [] as number[], outOfOrder: [] as number[] };
  const runs = readRuns(record, (what, number) => bad[what].push(number));
  const say = (what: string) => violation(`reader ${name}: ${what}`);
  for (const [what, numbers] of Object.entries(bad)) {
    if (numbers.length > 0) say(`${numbers.length} messages ${what}, the first is ${numbers[0]}`);
  }
  figures.damaged = bad.damaged.length;
  figures.outOfOrder = bad.outOfOrder.length;
  figures.messages = lengthOf(runs);
  if (runs.length === 0) {
    say("received nothing");
    return figures;
  }
  const last = Math.max(...runs.map(({ to }) => to));
  // Without acknowledgements a killed server may begin earlier, and end before it is there again.
  if (last > end && ack === "reader") {
    say(`received message ${last - 1}, but the last one that was made is ${end - 1}`);
  }

  const missing = missingIn(runs, Math.max(last, end));
  figures.missing = lengthOf(missing);
  const first = Math.min(...runs.map(({ from }) => from));
  figures.duplicates = figures.messages - (Math.max(last, end) - first - figures.missing);
  if (ack === "reader" && figures.duplicates > 0) say(`${figures.duplicates} messages came twice`);
  const breaks = breaksOf(record, runs);

  // What a reader that ends has in its kernel, and with --ack none in the server's, is lost.
  const readerLosses = ack === "reader" ? [] : breaks.filter(({ readerEnded }) => readerEnded);
  const { tcpRmem, tcpWmem } = environment();
  const held = (tcpRmem?.[2] ?? RECEIVE_BUFFER) + IN_USER_SPACE +
    (ack === "none" ? tcpWmem?.[2] ?? SEND_BUFFER : 0);
  for (const { jump, killedAt } of readerLosses) {
    const bytes = (jump.to - jump.from) * size;
    if (source === "tcp" && killedAt !== undefined) continue;
    figures.mostLost = Math.max(figures.mostLost, bytes);
    if (bytes > held) say(`${bytes} bytes are missing after it ended, more than the kernels hold`);
  }
  const unstored = serverKills.flatMap(({ unstored }) => unstored ?? []);
  const ofReader = readerLosses.map(({ jump }) => jump);
  const notOfReader = missing.flatMap((range) => without(range, ofReader));
  const broken = notOfReader.flatMap((range) => without(range, unstored));
  figures.missingOfReader = figures.missing - lengthOf(notOfReader);
  figures.missingOfSource = lengthOf(notOfReader) - lengthOf(broken);
  if (broken.length > 0) say(`${lengthOf(broken)} messages missing: ${show(broken)}`);
  for (const [i, { stored }] of serverKills.entries()) {
    const due = stored?.get(name) ?? [];
    const lost = notOfReader.flatMap((range) => without(range, without(range, due)));
    if (lost.length > 0) {
      say(`messages were on disk at kill ${i + 1} of the server, and never came: ${show(lost)}`);
    }
  }

  for (const [i, run] of runs.entries()) {
    const next = runs[i + 1];
    if (next === undefined || next.connection !== run.connection || next.from <= run.to) continue;
    // Within one connection.
    const jump = { from: run.to, to: next.from };
    if (ack === "reader") say(`messages ${show([jump])} are skipped within a connection`);
    else if (gapEvents === 0) figures.unreported += lengthOf([jump]);
  }
  for (const each of breaks) {
    const { jump, repeated, readerEnded, killedAt, told, bytes } = each;
    const skipped = lengthOf([jump]);
    if (skipped > 0 && source === "tcp") {
      if (ack === "reader" && !told) {
        say(`messages ${show([jump])} are skipped, and it was not told`);
      }
      const quiet = ack === "reader" ? !told : gapEvents === 0 && !readerEnded;
      if (quiet) figures.unreported += skipped;
    }
    if (repeated === 0) continue;
    if (ack === "reader") continue;
    const repeatedBytes = repeated * size;
    const since = (ms: number) => bytes - bytesAt(growth, (killedAt ?? 0) - ms);
    if (killedAt === undefined) {
      const endedAt = growth.findLast((sample) => sample.bytes < bytes)?.time ?? 0;
      const most = ack === "none" ? 0 : bytes - bytesAt(growth, endedAt - NOTICED_MS) + 65_536;
      if (repeatedBytes > most) {
        say(`${repeatedBytes} bytes came twice after it ended, at most ${most} expected`);
      }
      continue;
    }
    figures.mostRepeated = Math.max(figures.mostRepeated, repeatedBytes);
    const stated = bytesAt(growth, killedAt) - bytesAt(growth, killedAt - STATED_MS) + BATCH;
    figures.beyondStated = Math.max(figures.beyondStated, repeatedBytes - stated);
    if (repeatedBytes > since(NOTED_MS) + BATCH) {
      say(
        `${repeatedBytes} bytes came twice after a kill of the server, at most ` +
          `${since(NOTED_MS) + BATCH} expected`,
      );
    }
  }
  if (ack === "reader" && source !== "tcp") {
    // Offsets and numbers go together.
    for (const run of runs) {
      const { at, offset } = connections[run.connection]!;
      const number = offset! / size + (run.bytes - (run.to - run.from) * size - at) / size;
      if (number !== run.from) say(`message ${run.from} came at the place of message ${number}`);
    }
  }
  return figures;
}
