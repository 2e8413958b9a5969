/**
 * A server that sends messages at a fixed rate to the first reader that connects, and reports what its
 * kernel saw of that reader's window. Needs libc (see src/kernel/libc.ts).
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
import { printLine, runMain } from "../../src/cli/program.ts";
import { parseByteRate, parseBytes, parseDuration } from "../../src/text/units.ts";
import { acceptOne, checkEnd } from "./accept_one.ts";

/** The JSON line that it prints at its end. */
export interface UpstreamFigures {
  /** Bytes that its kernel accepted, and in which time. */
  bytes: number;
  seconds: number;
  /** How often the window was sampled. */
  samples: number;
  /** Samples in which the window was zero. */
  zeroWindows: number;
  /** The smallest window in a sample; bytes. */
  leastWindow: number;
  /** Time in which the window limited sending: tcpi_rwnd_limited. */
  windowLimitedUs: number;
  /** Share of the samples in which its kernel accepted no more bytes. */
  blocked: number;
}

const spec = {
  name: "upstream",
  summary: "Floods the first reader that connects to 127.0.0.1, and reports its window.",
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
      help: "length of a message",
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
  if (figures.samples === 0) throw new Error("this kernel does not report the window");
  figures.bytes = flood.accepted;
  figures.seconds = (performance.now() - startMs) / 1000;
  figures.blocked = blocked / figures.samples;
  printLine(JSON.stringify(figures));
}

if (import.meta.main) await runMain("upstream", main);
