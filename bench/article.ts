/**
 * Measures what the article says of errors and buffers: what a reader's calls return once its server has
 * closed the connection, and how long a reader that is too slow stays connected.
 *
 *     npx node --no-warnings bench/article.ts --out bench/results/article.json
 */
import { readFileSync } from "node:fs";
import { choice, option, parseCommandLine } from "../src/cli/command_line.ts";
import { parseOutFile } from "../src/cli/out_file.ts";
import { printLine, runMain } from "../src/cli/program.ts";
import { formatMachine } from "../src/report/machine.ts";
import { formatTable } from "../src/text/table.ts";
import { parseCount } from "../src/text/units.ts";
import {
  type ArticleResult,
  BUFFER_HEAD,
  type BufferRow,
  ERROR_HEAD,
  type ErrorCase,
  formatBufferRow,
  formatErrorCase,
} from "./article_rows.ts";
import { commandOn, Program, ROOT, RUNTIMES } from "./programs.ts";
import { describeMachine, writeResult } from "./rows.ts";
import { ServerRun } from "./spill_server.ts";

const spec = {
  name: "article",
  summary: "Measures what the article says of errors and buffers: what a reader's calls\n" +
    "return once its server has closed the connection, and how long a reader that is\n" +
    "too slow stays connected. Runs on Node.",
  usage: ["article.ts [OPTIONS]"],
  options: {
    runtime: choice({ help: "the server and the reader", choices: RUNTIMES, default: "deno" }),
    runs: option({
      value: "N",
      help: "runs with each pair of buffers; the median counts",
      default: "3",
      parse: (text) => parseCount(text, { most: 100 }),
    }),
    out: option({ value: "FILE.json", help: "writes the result", parse: parseOutFile }),
  },
};

/** What is sent, bytes a second, and how the reader works: it takes some 0.4 MB/s. */
const RATE = 10e6;
const READER = ["--mode", "naive", "--work", "20us", "--json"];
/** Sizes that are set for the server's and the reader's socket; null: none. Bytes. */
const SIZES: readonly (readonly [number | null, number | null])[] = [
  [null, null],
  [16 << 10, null],
  [null, 16 << 10],
  [16 << 10, 16 << 10],
  [2 << 20, null],
  [null, 2 << 20],
  [2 << 20, 2 << 20],
];
/** A run that takes longer has not been disconnected. Seconds. */
const LONGEST = 60;

async function main(args: readonly string[]): Promise<void> {
  const { options } = parseCommandLine(spec, args);
  const machine = await describeMachine([options.runtime]);
  const python = new Program(["python3", `${ROOT}/bench/peers/errors.py`], { seconds: LONGEST });
  const { cases } = await python.figures() as { cases: ErrorCase[] };
  printLine(formatTable([[...ERROR_HEAD], ...cases.map(formatErrorCase)]));
  const buffers: BufferRow[] = [];
  for (const [sendBuffer, receiveBuffer] of SIZES) {
    const row: BufferRow = { sendBuffer, receiveBuffer, seconds: [], sent: [] };
    for (let i = 0; i < options.runs; i++) await disconnect(options.runtime, row);
    buffers.push(row);
  }
  printLine(formatTable([[...BUFFER_HEAD], ...buffers.map(formatBufferRow)]));
  printLine(formatMachine(machine));
  const result: ArticleResult = {
    schema: "speedlimit/article@1",
    environment: machine,
    errors: cases,
    rate: RATE,
    buffers,
    largest: {
      wmemMax: setting("net/core/wmem_max"),
      rmemMax: setting("net/core/rmem_max"),
      tcpWmem: setting("net/ipv4/tcp_wmem"),
      tcpRmem: setting("net/ipv4/tcp_rmem"),
    },
  };
  if (options.out !== undefined) writeResult(options.out, result);
}

/** The last number of a file in /proc/sys. */
const setting = (name: string) =>
  Number(readFileSync(`/proc/sys/${name}`, "utf8").trim().split(/\s+/).at(-1));

/** One run: the server closes when its kernel takes no more, as the article's does. */
async function disconnect(runtime: typeof RUNTIMES[number], row: BufferRow): Promise<void> {
  const { sendBuffer, receiveBuffer } = row;
  const set = (name: string, bytes: number | null) => bytes === null ? [] : [name, String(bytes)];
  const server = await ServerRun.start(runtime, LONGEST, [
    ...["--rate", `${RATE}B/s`, "--overflow", "close", ...set("--sndbuf", sendBuffer)],
  ]);
  const words = [`127.0.0.1:${server.port}`, ...READER, ...set("--rcvbuf", receiveBuffer)];
  const reader = new Program(commandOn(runtime, "client.ts", ...words), {
    seconds: LONGEST,
    statuses: [0, 1],
  });
  try {
    const [line] = await server.during(server.program.saw(/^.*"event":"closed".*$/m));
    const { seconds, bytes } = JSON.parse(line) as { seconds: number; bytes: number };
    row.seconds.push(seconds);
    row.sent.push(bytes);
  } finally {
    reader.kill();
    await server.kill();
    await reader.ended().catch(() => {});
  }
}

if (import.meta.main) await runMain("article", main);
