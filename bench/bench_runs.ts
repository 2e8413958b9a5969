/** One run of a cell: a search for a reader's limit, or a flood into a drain. */
import { createServer } from "node:net";
import { resolve } from "node:path";
import { formatByteRate } from "../src/text/units.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import { ARTICLE_MESSAGE, fillerMessage, textMessage } from "../src/message/message.ts";
import { findLimit } from "../src/measure/limit.ts";
import type { LimitEvent, LimitOptions } from "../src/measure/limit_options.ts";
import { highestKeptUp } from "../src/measure/limit_result.ts";
import { recordAround } from "../src/measure/series.ts";
import type { BenchCell, ReaderFigures, SenderFigures } from "../src/report/bench_result.ts";
import { interrupted } from "../src/cli/program.ts";
import type { Installed } from "./bench_cells.ts";
import { latencyByRate } from "./latency.ts";
import type { FloodFigures } from "./peers/flood.ts";
import { commandOn, Program, ROOT, runPair } from "./programs.ts";
import { checkPair, MESSAGE_SIZE, type PeerFigures } from "./throughput.ts";

/** How long runs take, which also decides how precise they are. */
export interface RunEffort {
  /** Options of a reader's search. */
  search: Required<Pick<LimitOptions, "timeSeconds">>;
  /** Duration of each of the two recorded trials. */
  seriesSeconds: number;
  /** Duration of a flood. */
  floodSeconds: number;
}

/** If an earlier run measured the reader, a search begins at this share of that rate. */
const START_SHARE = 0.25;
/** A flood that hangs is killed this long after it should have ended. Seconds. */
const GRACE_SECONDS = 20;
/** A process that was on a core for at least this share of the time may have been the limit. */
const BUSY = 0.9;
/** Shares of the limit at which latency is measured; the last one is beyond the limit. */
const OFFERED_SHARES = [0.1, 0.5, 0.8, 0.95, 1.05];
/** Size of the drain's reads, and largest send of the control. Bytes. */
const BLOCK = 65_536;

type ReaderCell = Extract<BenchCell, { kind: "reader" }>;

function readerCommand({ who, mode }: ReaderCell, installed: Installed): string[] {
  switch (who) {
    case "c":
      return [installed.reader!, mode, "{host}", "{port}"];
    case "python":
      return ["python3", resolve(ROOT, `bench/readers/${mode}.py`), "{host}", "{port}"];
    default:
      return commandOn(
        who as Runtime,
        "client.ts",
        "{host}:{port}",
        "--mode",
        mode,
        "--runtime-reads",
      );
  }
}

export interface ReaderRunOptions {
  installed: Installed;
  effort: RunEffort;
  precision: number;
  /** Rate at which earlier runs of the same reader kept up; bytes a second. */
  keptUpBefore: number | undefined;
  /** Whether to record a trial below the limit and one above it. */
  series: boolean;
  /** Runtime of the server for measuring latency; undefined: latency is not measured. */
  latencyServer: Runtime | undefined;
  /** Called when a measurement was left out. */
  onNote: (note: string) => void;
  onEvent: (event: LimitEvent) => void;
}

/** One search. Resolves to null where it was interrupted. */
export async function runReader(
  cell: ReaderCell,
  options: ReaderRunOptions,
): Promise<ReaderFigures | null> {
  const { installed, effort, precision, keptUpBefore, onEvent } = options;
  const signal = interrupted();
  const { size } = cell;
  const reader = {
    command: readerCommand(cell, installed),
    message: size === MESSAGE_SIZE ? textMessage(ARTICLE_MESSAGE) : fillerMessage(size),
    signal,
  };
  const result = await findLimit({
    ...reader,
    ...effort.search,
    precision,
    ...(keptUpBefore === undefined ? {} : { startRate: keptUpBefore * START_SHARE }),
    onEvent,
  });
  if (result.interrupted) return null;
  const { outcome, message, limit, overload, recovery, trials } = result;
  const figures: ReaderFigures = {
    outcome,
    message: message.replaceAll(`${ROOT}/`, ""),
    limit,
    overload,
    recovery,
    trials,
    keepsUpAt: highestKeptUp(trials),
    // Also where the interval is wide: the reader kept up below it and fell behind above it.
    limitedBy: limit !== null
      ? "reader"
      : outcome === "generator-limited"
      ? "generator"
      : "unknown",
  };
  if (options.series && limit !== null) {
    const series = await recordAround(limit, { ...reader, seconds: effort.seriesSeconds });
    if (series === null) return null;
    if (series !== undefined) figures.series = series;
  }
  const base = limit === null ? figures.keepsUpAt : (limit.lower + limit.upper) / 2;
  const { latencyServer: server } = options;
  if (server === undefined || base === 0) return figures;
  const runtime = cell.who as Runtime;
  try {
    figures.latency = await latencyByRate({
      ...{ runtime, mode: cell.mode, limit: base, size, server },
      // Without a limit, a higher rate than it kept up with is not known to be beyond the limit.
      shares: OFFERED_SHARES.filter((share) => share < 1 || limit !== null),
      args: ["--runtime-reads"],
      onSkipped: (rate, most) =>
        options.onNote(
          `no latency at ${formatByteRate(rate)}: ${server} can only send ${
            formatByteRate(most)
          } ` +
            "of numbered messages",
        ),
    });
  } catch (error) {
    if (signal.aborted) return null;
    // The limit has been measured all the same.
    options.onNote(`the latency was not measured: ${(error as Error).message}`);
  }
  return figures;
}

/** The highest rate at which the reader kept up; 0: none. */
/** One flood: of a sender, of the control or of iperf3. */
export async function runSender(
  cell: Exclude<BenchCell, { kind: "reader" }>,
  { installed, effort }: { installed: Installed; effort: RunEffort },
): Promise<SenderFigures> {
  const { size } = cell;
  const seconds = effort.floodSeconds;
  if (cell.kind === "iperf3") return await runIperf(size, seconds);
  const peer = installed.peer!;
  const cServer = (mode: string, bytes: number) => [peer, mode, "0", `${seconds}`, `${bytes}`];
  const server = cell.kind === "control"
    // Each send has as many whole messages as fit into a block.
    ? cServer("flood", Math.max(1, Math.floor(BLOCK / size)) * size)
    : cell.who === "c"
    ? cServer("messages", size)
    : commandOn(
      cell.who as Runtime,
      "bench/peers/flood.ts",
      ...["--size", `${size}`, "--seconds", `${seconds}s`],
    );
  const drain = (port: string) => [peer, "drain", "127.0.0.1", port, `${BLOCK}`];
  const figures = await runPair(server, drain, { seconds: seconds + GRACE_SECONDS });
  const sent = figures.sent as PeerFigures | FloodFigures;
  const read = figures.read as PeerFigures;
  checkPair(sent.bytes, read, `${cell.kind} ${cell.who}`);
  const senderBusy = sent.busy ?? null;
  const readerBusy = read.busy ?? null;
  return {
    bytesPerSecond: read.bytes / read.seconds,
    senderBusy,
    readerBusy,
    limitedBy: judgeBusy(senderBusy, readerBusy),
  };
}

function judgeBusy(sender: number | null, reader: number | null): SenderFigures["limitedBy"] {
  if (sender === null || reader === null) return "unknown";
  if (sender >= BUSY && reader < BUSY) return "sender";
  return reader >= BUSY && sender < BUSY ? "reader" : "unknown";
}

/** The part of iperf3's JSON output that is used. */
interface IperfFigures {
  error?: string;
  end?: {
    sum_received?: { bits_per_second?: number };
    cpu_utilization_percent?: { host_total?: number; remote_total?: number };
  };
}

async function runIperf(size: number, seconds: number): Promise<SenderFigures> {
  const port = String(await freePort());
  // iperf3 takes whole seconds, and at least 1.
  const time = String(Math.max(1, Math.round(seconds)));
  const options = { seconds: seconds + GRACE_SECONDS };
  const own = ["-p", port, "--forceflush"];
  const server = new Program(["iperf3", "-s", "-1", "-B", "127.0.0.1", ...own], options);
  try {
    await server.saw(/Server listening/);
    const words = ["iperf3", "-c", "127.0.0.1", "-J", "-l", `${size}`, "-t", time, ...own];
    const { stdout } = await new Program(words, options).ended();
    const { end, error } = JSON.parse(stdout) as IperfFigures;
    const bits = end?.sum_received?.bits_per_second;
    if (!(bits! > 0)) throw new Error(`iperf3 gave no figures: ${error ?? "no bits_per_second"}`);
    const { host_total: host, remote_total: remote } = end?.cpu_utilization_percent ?? {};
    const senderBusy = host === undefined ? null : host / 100;
    const readerBusy = remote === undefined ? null : remote / 100;
    const limitedBy = judgeBusy(senderBusy, readerBusy);
    return { bytesPerSecond: bits! / 8, senderBusy, readerBusy, limitedBy };
  } finally {
    server.kill();
  }
}

/** For iperf3, port 0 means its default port, so a free port must be chosen here. */
function freePort(): Promise<number> {
  return new Promise((done, failed) => {
    const server = createServer();
    server.once("error", failed);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => done(port));
    });
  });
}
