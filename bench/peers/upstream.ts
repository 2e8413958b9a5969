/**
 * A server that will not wait: sends messages at a fixed rate to the first who connects, and tells
 * what its kernel saw of the window that it sends into. Needs libc (see src/kernel/libc.ts).
 *
 *     bun bench/peers/upstream.ts --rate 50MB/s --size 64 --seconds 30s
 *
 * Like the peers in C it prints "listening PORT" first, and one JSON line at the end.
 */
import { option, parseCommandLine } from "../../src/cli/command_line.ts";
import { Flood } from "../../src/send/flood.ts";
import { tcpInfo } from "../../src/kernel/tcp_info.ts";
import { fillerMessage } from "../../src/message/message.ts";
import { Ticker } from "../../src/send/pacer.ts";
import { print, runMain } from "../../src/cli/program.ts";
import { parseByteRate, parseBytes, parseDuration } from "../../src/text/units.ts";
import { acceptOne, checkEnd } from "./accept_one.ts";

/** What it prints at its end. */
export interface UpstreamFigures {
  /** All that its kernel accepted, and how long that took. */
  bytes: number;
  seconds: number;
  /** How often the window was looked at. */
  samples: number;
  /** Of these: how often it was zero, and the smallest that it was. Bytes. */
  zeroWindows: number;
  leastWindow: number;
  /** The time in which the window was what kept it from sending: tcpi_rwnd_limited. */
  windowLimitedUs: number;
  /** The share of the samples that found its kernel taking no more. */
  blocked: number;
}

const spec = {
  name: "upstream",
  summary: "Floods the first who connects to 127.0.0.1, and tells what became of its window.",
  usage: ["upstream.ts [OPTIONS]"],
  options: {
    rate: option({
      value: "RATE",
      help: "bytes a second",
      default: "50MB/s",
      parse: parseByteRate,
    }),
    size: option({
      value: "SIZE",
      help: "bytes of a message",
      default: "64",
      parse: (text) => parseBytes(text, { most: 1 << 20 }),
    }),
    seconds: option({
      value: "TIME",
      help: "from the connection to the end",
      default: "30s",
      parse: parseDuration,
    }),
  },
};

async function main(args: readonly string[]): Promise<void> {
  const { rate, size, seconds: ms } = parseCommandLine(spec, args).options;
  const connection = await acceptOne();
  const ticker = new Ticker();
  const flood = new Flood({ connection, message: fillerMessage(size), ticker });
  const startMs = performance.now();
  const figures: UpstreamFigures = {
    bytes: 0,
    seconds: 0,
    samples: 0,
    zeroWindows: 0,
    leastWindow: Infinity,
    windowLimitedUs: 0,
    blocked: 0,
  };
  let blocked = 0;
  ticker.add(() => {
    const { fd } = connection;
    const info = fd === undefined ? undefined : tcpInfo(fd);
    const window = info?.sendWindow;
    if (info === undefined || window === undefined) return;
    figures.samples++;
    if (window === 0) figures.zeroWindows++;
    figures.leastWindow = Math.min(figures.leastWindow, window);
    figures.windowLimitedUs = info.receiveWindowLimitedUs;
    if (connection.blockedSince !== undefined) blocked++;
  });
  flood.start(rate / size, startMs, startMs + ms);
  const timer = setTimeout(() => flood.finish(startMs + ms), ms);
  const closed = await flood.done;
  clearTimeout(timer);
  checkEnd(closed);
  if (figures.samples === 0) throw new Error("the kernel does not tell of the window here");
  figures.bytes = flood.accepted;
  figures.seconds = (performance.now() - startMs) / 1000;
  figures.blocked = blocked / figures.samples;
  print(JSON.stringify(figures));
}

if (import.meta.main) await runMain("upstream", main);
