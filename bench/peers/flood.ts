/**
 * A flood server of one reader, with the length of a write to choose: what bench/speed.ts measures,
 * beside peer.c.
 *
 *     bun bench/peers/flood.ts --rate max --size 64k --write-size 64k --seconds 1s
 *
 * Like the peers in C it prints "listening PORT" first, and one JSON line at the end.
 */
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { option, parseCommandLine } from "../../src/cli/command_line.ts";
import { Flood } from "../../src/send/flood.ts";
import {
  ARTICLE_MESSAGE,
  fillerMessage,
  LONGEST_WRITE,
  textMessage,
} from "../../src/message/message.ts";
import { nextTurn, Ticker } from "../../src/send/pacer.ts";
import { print, runMain } from "../../src/cli/program.ts";
import { parseBytes, parseDuration, parseRate, UnitError } from "../../src/text/units.ts";
import { acceptOne, checkEnd } from "./accept_one.ts";

/** What it prints at its end. */
export interface FloodFigures {
  /** All that its kernel accepted. */
  bytes: number;
  /** What it accepted between two instants, each right after a write. */
  window: { bytes: number; seconds: number };
  /** At the second of them: bytes that were due by then and not accepted; null at rate max. */
  owed: number | null;
  /** The share of the ticks between them that found the kernel taking no more. */
  blocked: number;
  /** The share of the time between them that the process was on a core; above 1 with threads. */
  busy: number;
}

const spec = {
  name: "flood",
  summary:
    "Floods the first reader that connects to 127.0.0.1, and tells what the kernel accepted.",
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
      help: "bytes of a message (default: the article's 13)",
      parse: (text) => parseBytes(text, { most: 2 ** 28 }),
    }),
    writeSize: option({
      value: "SIZE",
      help: "the most that one write offers",
      default: "1M",
      parse: (text) => parseBytes(text, { most: LONGEST_WRITE }),
    }),
    settle: option({
      value: "TIME",
      help: "from the connection to the first instant",
      default: "0",
      parse: (text) => parseDuration(text, { least: 0 }),
    }),
    seconds: option({
      value: "TIME",
      help: "from the first instant to the second",
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
  let over = false;
  void flood.done.then(() => over = true);

  /** Some ms later, right after a write: what is accepted is then no tick's share behind. */
  const instant = async (laterMs: number) => {
    if (laterMs > 0) await sleep(laterMs);
    const before = flood.accepted;
    while (flood.accepted === before) {
      if (over) throw new Error(`the reader left after ${flood.accepted} bytes`);
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
  print(JSON.stringify(figures));
}

if (import.meta.main) await runMain("flood", main);
