/**
 * A flood server for one reader with a configurable write size. bench/speed.ts measures it, and
 * compares it with peer.c.
 *
 *     bun bench/peers/flood.ts --rate max --size 64k --write-size 64k --seconds 1s
 *
 * Like the peers in C, it prints "listening PORT" first, and one JSON line at the end.
 */
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { parseBytes, parseDuration, parseRate, UnitError } from "../../src/text/units.ts";
import {
  ARTICLE_MESSAGE,
  fillerMessage,
  LONGEST_WRITE,
  textMessage,
} from "../../src/message/message.ts";
import { Flood } from "../../src/send/flood.ts";
import { nextTurn, Ticker } from "../../src/send/pacer.ts";
import { option, parseCommandLine } from "../../src/cli/command_line.ts";
import { printLine, runMain } from "../../src/cli/program.ts";
import { acceptOne, checkEnd } from "./accept_one.ts";

/** The JSON that is printed at the end. */
export interface FloodFigures {
  /** All bytes that the kernel accepted. */
  bytes: number;
  /** Bytes accepted between two instants, each right after a write. */
  window: { bytes: number; seconds: number };
  /** Bytes that were due but not accepted at the second instant; null at rate max. */
  owed: number | null;
  /** Share of the ticks between the instants in which the kernel's send buffer was full. */
  blocked: number;
  /**
   * Share of the time between the instants in which the process was on a core; above 1 with
   * threads.
   */
  busy: number;
}

const spec = {
  name: "flood",
  summary: "Floods the first reader that connects to 127.0.0.1, and reports how many bytes\n" +
    "the kernel accepted.",
  usage: ["flood.ts [OPTIONS]"],
  options: {
    rate: option({
      value: "RATE",
      help: "messages a second, or max",
      default: "max",
      parse: parseMessageRate,
    }),
    size: option({
      value: "SIZE",
      help: "message size in bytes (default: the article's 13)",
      parse: (text) => parseBytes(text, { most: 2 ** 28 }),
    }),
    writeSize: option({
      value: "SIZE",
      help: "largest write",
      default: "1M",
      parse: (text) => parseBytes(text, { most: LONGEST_WRITE }),
    }),
    settle: option({
      value: "TIME",
      help: "warm-up before the measurement",
      default: "0",
      parse: (text) => parseDuration(text, { least: 0 }),
    }),
    seconds: option({
      value: "TIME",
      help: "duration of the measurement",
      default: "1s",
      parse: parseDuration,
    }),
  },
};

function parseMessageRate(text: string): number {
  const rate = parseRate(text);
  if (rate === "max") return Infinity;
  if ("messagesPerSecond" in rate) return rate.messagesPerSecond;
  throw new UnitError("must be messages a second such as 1M/s, or max");
}

async function main(args: readonly string[]): Promise<void> {
  const { rate, size, writeSize, settle, seconds } = parseCommandLine(spec, args).options;
  const message = size === undefined ? textMessage(ARTICLE_MESSAGE) : fillerMessage(size);
  const connection = await acceptOne();
  const ticker = new Ticker();
  const flood = new Flood({ connection, message, ticker, writeSize });
  let ended = false;
  void flood.done.then(() => ended = true);

  /**
   * Waits for some ms and then for the next write, and returns the figures of that instant: right
   * after a write, no part of a tick is still owed.
   */
  const instant = async (laterMs: number) => {
    if (laterMs > 0) await sleep(laterMs);
    const before = flood.accepted;
    while (flood.accepted === before) {
      if (ended) throw new Error(`the reader closed its connection after ${flood.accepted} bytes`);
      await nextTurn();
    }
    const { user, system } = process.cpuUsage();
    return { ms: performance.now(), bytes: flood.accepted, busyMs: (user + system) / 1000 };
  };

  flood.start(rate);
  const first = await instant(settle);
  let ticks = 0;
  let blockedTicks = 0;
  ticker.add(() => {
    ticks++;
    if (connection.blockedSince !== undefined) blockedTicks++;
  });
  const second = await instant(seconds - (performance.now() - first.ms));
  const blocked = ticks === 0 ? 0 : blockedTicks / ticks;
  const offered = flood.offeredAt(second.ms);
  flood.finish();
  const closed = await flood.done;
  checkEnd(closed);
  const figures: FloodFigures = {
    bytes: flood.accepted,
    window: { bytes: second.bytes - first.bytes, seconds: (second.ms - first.ms) / 1000 },
    owed: offered === Infinity ? null : Math.max(0, offered - second.bytes),
    blocked,
    busy: (second.busyMs - first.busyMs) / (second.ms - first.ms),
  };
  printLine(JSON.stringify(figures));
}

if (import.meta.main) await runMain("flood", main);
