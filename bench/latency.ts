/**
 * Measures the latency of messages to our drain client by offered rate, up to and beyond its limit.
 *
 *     node --no-warnings bench/latency.ts --runtime deno --mode drain
 *     node --no-warnings bench/latency.ts --runtime bun --mode naive --limit 5MB/s
 *
 * Latency is the time from the planned send to the read, which corrects for coordinated omission.
 * It includes the sender's tick of about 1 ms: messages that become due during a tick are sent at
 * its end.
 */
import { ProgressLine } from "../src/text/progress.ts";
import { formatTable } from "../src/text/table.ts";
import {
  formatByteRate,
  formatCount,
  formatSize,
  parseByteRate,
  parseBytes,
  parseDuration,
} from "../src/text/units.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import { DEFAULT_NUMBERED_SIZE, LEAST_NUMBERED_SIZE } from "../src/message/numbered.ts";
import { formatPercentiles, type Latency, LATENCY_HEAD } from "../src/read/latency.ts";
import type { LimitResult } from "../src/measure/limit_result.ts";
import type { BenchLatency } from "../src/report/bench_result.ts";
import { formatMachine } from "../src/report/machine.ts";
import { choice, flag, option, parseCommandLine } from "../src/cli/command_line.ts";
import { printLine, runMain } from "../src/cli/program.ts";
import { commandOn, Program, runPair, RUNTIMES } from "./programs.ts";
import { compileC } from "./readers/compile.ts";
import { describeMachine } from "./rows.ts";

/** Shares of the limit to offer. */
const LATENCY_SHARES: readonly number[] = [0.1, 0.5, 0.8, 0.95, 0.99, 1.05];

export interface LatencyByRateOptions {
  /** The reader's runtime. */
  runtime: Runtime;
  mode: "naive" | "drain";
  /** The reader's speed limit: bytes a second. */
  limit: number;
  /** Shares of the limit to offer; default LATENCY_SHARES. */
  shares?: readonly number[];
  /** Bytes of a message; default 64. */
  size?: number;
  /** Seconds of measuring at each rate, after a warm-up; default 1. */
  seconds?: number;
  /** The server's runtime; default deno. */
  server?: Runtime;
  /** Further arguments of the reader, such as `--work 20us`. */
  args?: readonly string[];
  onRate?: (rate: number) => void;
  /** Called instead of measuring where the sender cannot produce the rate, whatever the reader. */
  onSkipped?: (rate: number, generatorRate: number) => void;
}

/** Warm-up, in which the JIT compilers do most of their work. Seconds. */
const SETTLE_SECONDS = 0.3;
/** A run that hangs is killed this long after it should have ended. Seconds. */
const GRACE_SECONDS = 30;
/** Share of the sender's highest rate that it can keep up while a reader runs on the other core. */
const GENERATOR_MARGIN = 0.9;
const GENERATOR_SECONDS = 0.7;

/**
 * Offers our drain client several shares of its limit and measures the latency at each, every time
 * with a new server and a new reader in processes of their own. A rate that the sender cannot
 * produce would measure the sender: it is left out, see `onSkipped`. Rejects where a run fails.
 */
export async function latencyByRate(options: LatencyByRateOptions): Promise<BenchLatency[]> {
  const { limit, shares = LATENCY_SHARES, onRate, onSkipped } = options;
  const most = await generatorRate(options) * GENERATOR_MARGIN;
  const rows: BenchLatency[] = [];
  for (const share of shares) {
    const rate = limit * share;
    if (rate > most) {
      onSkipped?.(rate, most);
      continue;
    }
    onRate?.(rate);
    const { count, p50, p90, p99, p999, p9999, max } = await measure(rate, options);
    rows.push({ rate, messages: count, p50, p90, p99, p999, p9999, max });
  }
  return rows;
}

/** A server that floods one reader with numbered messages, without acknowledgements. */
function serverCommand(rate: string, seconds: number, options: LatencyByRateOptions): string[] {
  const { server = "deno", size = DEFAULT_NUMBERED_SIZE } = options;
  return commandOn(
    server,
    "server.ts",
    ...["--port", "0", "--message", "numbered", "--size", String(size), "--rate", rate],
    ...["--overflow", "block", "--ack", "none", "--duration", `${seconds}s`, "--json"],
  );
}

const pairOptions = (seconds: number) => ({
  seconds: seconds + GRACE_SECONDS,
  listening: /"event":"listening".*?"port":(\d+)/,
});

async function measure(rate: number, options: LatencyByRateOptions): Promise<Latency> {
  const { runtime, mode, size = DEFAULT_NUMBERED_SIZE, seconds = 1, args = [] } = options;
  const total = SETTLE_SECONDS + seconds;
  const { read } = await runPair(
    serverCommand(`${Math.round(rate)}B/s`, total, options),
    (port) =>
      commandOn(
        runtime,
        "client.ts",
        ...[`127.0.0.1:${port}`, "--mode", mode, "--size", String(size), ...args],
        ...["--latency", "--settle", `${SETTLE_SECONDS}s`, "--json"],
      ),
    pairOptions(total),
  );
  const { latency } = read as { latency?: Latency };
  if (latency !== undefined) return latency;
  const why = `one message every ${formatCount(size / rate)} s is too few for ${seconds} s`;
  throw new Error(`no latency was measured at ${formatByteRate(rate)}: ${why}`);
}

/** The sender's highest rate, to a reader in C that drops everything: bytes a second. */
async function generatorRate(options: LatencyByRateOptions): Promise<number> {
  const peer = await compileC(new URL("peers/peer.c", import.meta.url));
  const { read } = await runPair(
    serverCommand("max", GENERATOR_SECONDS, options),
    (port) => [peer, "drain", "127.0.0.1", port, "65536"],
    pairOptions(GENERATOR_SECONDS),
  );
  const { bytes, seconds } = read as { bytes: number; seconds: number };
  return bytes / seconds;
}

const spec = {
  name: "latency",
  summary: "Measures the latency of messages to the drain client at several shares of its\n" +
    "speed limit, as percentiles of the time from the planned send to the read.",
  usage: ["latency.ts [OPTIONS]"],
  options: {
    runtime: choice({ help: "runtime of the reader", choices: RUNTIMES, default: "deno" }),
    mode: choice({ help: "mode of the reader", choices: ["naive", "drain"], default: "drain" }),
    server: choice({ help: "runtime of the server", choices: RUNTIMES, default: "deno" }),
    size: option({
      value: "SIZE",
      help: "message size in bytes (default 64; with --mode drain 64k)",
      parse: (text) => parseBytes(text, { least: LEAST_NUMBERED_SIZE, most: 2 ** 28 }),
    }),
    limit: option({
      value: "RATE",
      help: "the speed limit, bytes a second (default: measure it first)",
      parse: parseByteRate,
    }),
    work: option({
      value: "TIME",
      help: "time that the reader computes after each read, such as 50us (default none)",
      parse: (text) => {
        parseDuration(text);
        return text;
      },
    }),
    seconds: option({
      value: "TIME",
      help: "duration of the measurement at each rate",
      default: "1s",
      parse: (text) => parseDuration(text, { least: 100, most: 600_000 }),
    }),
    json: flag("prints the result as one JSON object"),
    quick: flag("only two rates, and briefly, to try the benchmark itself"),
  },
};

/** Measures the speed limit of the reader, without numbered messages. */
async function findLimitOf(
  runtime: Runtime,
  server: Runtime,
  size: number,
  args: readonly string[],
): Promise<number> {
  const reader = commandOn(runtime, "client.ts", "{host}:{port}", ...args);
  const words = commandOn(server, "bin/limit.ts", "--size", String(size), "--json");
  // Exit status 1: no limit was found, and the result contains the reason.
  const program = new Program([...words, "--", ...reader], { seconds: 170, statuses: [0, 1] });
  const { limit, message } = await program.figures() as LimitResult;
  if (limit !== null) return (limit.lower + limit.upper) / 2;
  throw new Error(`no speed limit was found: ${message}; set it with --limit`);
}

async function main(args: readonly string[]): Promise<void> {
  const { options } = parseCommandLine(spec, args);
  const { runtime, mode, server, work, json, quick } = options;
  const { size = mode === "drain" ? 65_536 : DEFAULT_NUMBERED_SIZE } = options;
  const seconds = quick ? 0.3 : options.seconds / 1000;
  const extra = work === undefined ? [] : ["--work", work];
  const machine = await describeMachine([...new Set([server, runtime])]);
  const progress = new ProgressLine();
  const reader = ["--mode", mode, ...extra].join(" ");
  let { limit } = options;
  if (limit === undefined) {
    progress.line(`measuring the speed limit of ${reader} on ${runtime}`);
    limit = await findLimitOf(runtime, server, size, ["--mode", mode, ...extra]);
  }
  const skipped: number[] = [];
  const rows = await latencyByRate({
    ...{ runtime, mode, limit, size, seconds, server, args: extra },
    ...(quick ? { shares: [0.5, 1.05] } : {}),
    onRate: (rate) => progress.update(`${formatByteRate(rate)} to ${reader} on ${runtime}`),
    onSkipped(rate, most) {
      skipped.push(rate);
      progress.line(
        `${formatByteRate(rate)} is left out: a server on ${server} can only send ${
          formatByteRate(most)
        } ` +
          `of numbered messages of ${formatSize(size)}`,
      );
    },
  });
  progress.end();
  if (json) {
    const corrected = "planned send time";
    const conditions = { runtime, mode, server, size, limit, seconds, work: work ?? null };
    printLine(JSON.stringify({
      ...{ schema: "speedlimit/latency@1", unit: "seconds", corrected, ...conditions },
      ...{ rows, skipped, environment: machine },
    }));
    return;
  }
  const head = ["offered", "of the limit", "messages", ...LATENCY_HEAD];
  const lines = rows.map((row) => [
    formatByteRate(row.rate),
    `${Math.round(row.rate / limit * 100)} %`,
    formatCount(row.messages),
    ...formatPercentiles(row),
  ]);
  printLine(
    `${reader} on ${runtime}, messages of ${formatSize(size)}, speed limit ${
      formatByteRate(limit)
    }\n` +
      `${formatTable([head, ...lines])}\n` +
      "time from the planned send to the read (corrected for coordinated omission), including the " +
      `sender's tick of 1 ms${quick ? "; quick run: these figures are not precise" : ""}\n` +
      formatMachine(machine),
  );
}

if (import.meta.main) await runMain("latency", main);
