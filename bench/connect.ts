/**
 * Measures how long many readers that connect at once wait until the server serves them all.
 *
 *     node --no-warnings bench/connect.ts --readers 10000 --out connect.json
 *
 * The readers are one process in C. Each connects once, and is served when its first message has
 * come. The server sends each of them one message a second, so the least is 1 s. It serves them as
 * plain floods, and as a relay that knows each reader by its name.
 */
import { formatTable } from "../src/text/table.ts";
import { ProgressLine } from "../src/text/progress.ts";
import { formatCount, formatSeconds, parseCount } from "../src/text/units.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import { median } from "../src/measure/statistics.ts";
import { formatMachine } from "../src/report/machine.ts";
import { choice, flag, option, parseCommandLine } from "../src/cli/command_line.ts";
import { parseOutFile } from "../src/cli/out_file.ts";
import { printLine, runMain } from "../src/cli/program.ts";
import { commandOn, Program, RUNTIMES } from "./programs.ts";
import { compileC } from "./readers/compile.ts";
import { describeMachine, meets, type Target, writeResult } from "./rows.ts";

/** How the server feeds its readers: see src/relay/choose_feeder.ts. */
const FEEDERS = ["flood", "relay"] as const;
type Feeder = (typeof FEEDERS)[number];

/** Until all 10,000 are served; seconds. */
const TARGET: Target = { most: 5 };
/** Deadline of a run. Seconds. */
const RUN_SECONDS = 60;
/** Each process has this many descriptors besides those of its connections. */
const OTHER_DESCRIPTORS = 200;

const spec = {
  name: "connect",
  summary: "Measures how long many readers that connect at once wait until the server serves\n" +
    "them all, on each runtime. The readers are one process in C.",
  usage: ["connect.ts [OPTIONS]"],
  options: {
    readers: option({
      value: "N",
      help: "readers that connect; both processes need that many descriptors (ulimit -Hn)",
      default: "10000",
      parse: (text) => parseCount(text, { most: 20_000 }),
    }),
    runtime: choice({
      help: "runtime of the server",
      choices: [...RUNTIMES, "all"] as const,
      default: "all",
    }),
    runs: option({
      value: "N",
      help: "runs of each row, of which the median counts",
      default: "5",
      parse: (text) => parseCount(text, { most: 100 }),
    }),
    json: flag("prints the result as one JSON object"),
    out: option({
      value: "FILE.json",
      help: "also writes all figures to this file",
      parse: parseOutFile,
    }),
  },
};

/** What the readers say of one run; seconds. */
interface ConnectRun {
  /** Until the kernel had connected all. */
  connected: number;
  /** Until all had received a message. */
  served: number;
  /** The longest time that one reader waited for its first message. */
  slowest: number;
}

interface ConnectRow {
  runtime: Runtime;
  feeder: Feeder;
  readers: number;
  runs: ConnectRun[];
  /** Median of the runs. */
  served: number;
  met: boolean;
}

async function connectAll(runtime: Runtime, feeder: Feeder, readers: number): Promise<ConnectRun> {
  const crowd = await compileC(new URL("peers/crowd.c", import.meta.url));
  const name = feeder === "relay"
    ? ["--reader-id", "hello", "--max-reader-names", String(readers)]
    : [];
  const command = commandOn(
    runtime,
    "server.ts",
    ...["--port", "0", "--rate", "1/s", "--overflow", "block", "--json", ...name],
  );
  // The soft limit of descriptors is often 1024; not every runtime raises it.
  const descriptors = readers + OTHER_DESCRIPTORS;
  const raised = `ulimit -n ${descriptors} && exec "$0" "$@"`;
  const options = { seconds: RUN_SECONDS + 10 };
  const server = new Program(["sh", "-c", raised, ...command], options);
  try {
    const [, port] = await server.saw(/"event":"listening".*?"port":(\d+)/);
    const words = [crowd, "127.0.0.1", port!, String(readers), String(RUN_SECONDS)];
    if (feeder === "relay") words.push("reader-");
    const figures = await new Program(["sh", "-c", raised, ...words], options).figures();
    const { connected, served, slowest } = figures as ConnectRun;
    return { connected, served, slowest };
  } finally {
    server.kill();
  }
}

const HEAD = ["runtime", "served as", "readers", "runs", "all served", "least-most", "verdict"];

function formatRow({ runtime, feeder, readers, runs, served, met }: ConnectRow): string[] {
  const times = runs.map((run) => run.served).toSorted((a, b) => a - b);
  const range = `${times[0]!.toFixed(2)}-${times.at(-1)!.toFixed(2)} s`;
  const verdict = met ? "reached" : `above ${TARGET.most} s`;
  return [
    ...[runtime, feeder, formatCount(readers), String(runs.length)],
    ...[formatSeconds(served), range, verdict],
  ];
}

async function main(args: readonly string[]): Promise<number> {
  const { options } = parseCommandLine(spec, args);
  const { runtime: chosen, readers, runs: count, json, out } = options;
  const runtimes = chosen === "all" ? RUNTIMES : [chosen];
  const machine = await describeMachine(runtimes);
  const progress = new ProgressLine();
  const runs = new Map<string, ConnectRun[]>();
  // One run of each row after the other, so that a slow minute of the machine meets them all.
  for (let run = 1; run <= count; run++) {
    for (const runtime of runtimes) {
      for (const feeder of FEEDERS) {
        const what = `${runtime} ${feeder}`;
        progress.update(`${what}: run ${run} of ${count}`);
        const list = runs.get(what) ?? [];
        runs.set(what, [...list, await connectAll(runtime, feeder, readers)]);
      }
    }
  }
  progress.end();
  const rows = runtimes.flatMap((runtime) =>
    FEEDERS.map((feeder): ConnectRow => {
      const list = runs.get(`${runtime} ${feeder}`)!;
      const served = median(list.map((run) => run.served));
      return { runtime, feeder, readers, runs: list, served, met: meets(served, TARGET) };
    })
  );
  const result = {
    schema: "speedlimit/connect@1",
    environment: machine,
    options: { readers, runs: count, targetSeconds: TARGET.most },
    rows,
  };
  if (out !== undefined) writeResult(out, result);
  if (json) printLine(JSON.stringify(result));
  else {
    printLine(formatTable([HEAD, ...rows.map(formatRow)]));
    printLine(`from the first connect() to the last first message\n${formatMachine(machine)}`);
  }
  return rows.every(({ met }) => met) ? 0 : 1;
}

if (import.meta.main) await runMain("connect", main);
