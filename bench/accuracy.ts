/**
 * How exact `limit` is: readers whose limit is known, measured by bin/limit.ts as a person would.
 *
 *     node --no-warnings bench/accuracy.ts --runtime deno --out accuracy.json
 */
import {
  ACCURACY_HEAD,
  type AccuracyRow,
  formatAccuracyRow,
  judgeInterval,
  judgeSearches,
  tellReader,
} from "./accuracy_rows.ts";
import { choice, flag, option, parseCommandLine } from "../src/cli/command_line.ts";
import { LIMIT_SCHEMA, type LimitResult } from "../src/measure/limit_result.ts";
import { formatInterval } from "../src/report/limit_table.ts";
import { print, runMain } from "../src/cli/program.ts";
import { ProgressLine } from "../src/text/progress.ts";
import { formatByteRate, formatSeconds, parseCount } from "../src/text/units.ts";
import { commandOn, Program, ROOT, RUNTIMES } from "./programs.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import { compileC } from "./readers/compile.ts";
import { describeMachine, writeResult } from "./rows.ts";
import { formatMachine } from "../src/report/machine.ts";
import { parseOutFile } from "../src/cli/out_file.ts";
import { formatTable } from "../src/text/table.ts";

const spec = {
  name: "accuracy",
  summary:
    "Measures readers whose speed limit is known with bin/limit.ts, one of them again and\n" +
    "again, and the article's two readers in Python, and tells which targets are met.",
  usage: ["accuracy.ts [OPTIONS]"],
  options: {
    runtime: choice({
      help: "the sender's",
      choices: ["all", ...RUNTIMES],
      default: "all",
    }),
    searches: option({
      value: "N",
      help: "of the same reader",
      default: "10",
      parse: (text) => parseCount(text, { least: 2, most: 1000 }),
    }),
    only: choice({
      help: "a part of it",
      choices: ["all", "intervals", "searches", "python"],
      default: "all",
    }),
    out: option({
      value: "FILE.json",
      help: "writes all figures there, too",
      parse: parseOutFile,
    }),
    quick: flag("one reader and two searches, to see that it works: no figures to keep"),
  },
};

/** The service rate of the reader that is searched again and again. Bytes a second. */
const STEADY = 20e6;
/** Readers of bench/readers/paced.c: service rate in bytes a second, and what follows it. */
const PACED: readonly { rate: number; args: readonly string[] }[] = [
  { rate: 1e6, args: [] },
  { rate: STEADY, args: [] },
  { rate: 200e6, args: [] },
  { rate: 1e9, args: [] },
  { rate: STEADY, args: ["--pause", "50", "--every", "500"] },
];
const PYTHON = ["naive.py", "drain.py"];
/** A search has 20 s to meet its target; one that takes this long hangs. Seconds. */
const LONGEST_SEARCH = 300;

async function main(args: readonly string[]): Promise<void> {
  const { options } = parseCommandLine(spec, args);
  const { quick, only } = options;
  const searches = quick ? 2 : options.searches;
  const paced = quick ? PACED.filter(({ rate }) => rate === STEADY).slice(0, 1) : PACED;
  const runtimes = options.runtime === "all" ? RUNTIMES : [options.runtime];
  const reader = await compileC(new URL("readers/paced.c", import.meta.url));
  const machine = await describeMachine(runtimes);
  const python = only === "all" && !quick || only === "python" ? await findPython() : undefined;
  const progress = new ProgressLine();
  const search = async (runtime: Runtime, what: string, command: readonly string[]) => {
    progress.update(`${runtime}: ${what} ...`);
    const result = await findLimit(runtime, command);
    progress.line(`${runtime}: ${what}: ${describe(result)}`);
    return result;
  };

  const rows: AccuracyRow[] = [];
  for (const runtime of runtimes) {
    if (only === "all" || only === "intervals") {
      for (const { rate, args } of paced) {
        const what = ["paced", formatByteRate(rate), ...args].join(" ");
        const words = [reader, "{host}", "{port}", String(rate), ...args];
        rows.push(judgeInterval(what, runtime, rate, await search(runtime, what, words)));
      }
    }
    if (only === "all" || only === "searches") {
      const what = `paced ${formatByteRate(STEADY)}, ${searches} searches`;
      const results: LimitResult[] = [];
      for (let i = 1; i <= searches; i++) {
        const words = [reader, "{host}", "{port}", String(STEADY)];
        results.push(await search(runtime, `${what}, number ${i}`, words));
      }
      rows.push(judgeSearches(what, runtime, STEADY, results));
    }
    if (python !== undefined && "version" in python) {
      for (const file of PYTHON) {
        const what = `${file}, ${python.version}`;
        const words = ["python3", `${ROOT}/bench/readers/${file}`, "{host}", "{port}"];
        rows.push(tellReader(what, runtime, await search(runtime, what, words)));
      }
    }
  }

  const judged = rows.filter(({ met }) => met !== null);
  const met = judged.filter((row) => row.met).length;
  print(formatTable([ACCURACY_HEAD, ...rows.map(formatAccuracyRow)]));
  const skipped = python !== undefined && "skipped" in python ? python.skipped : undefined;
  if (skipped !== undefined) {
    print(`\nskipped: ${skipped}: the article's readers were not measured`);
  }
  print(
    `\n${met} of ${judged.length} targets met${quick ? "; quick: no figures to keep" : ""}\n` +
      formatMachine(machine),
  );
  if (options.out === undefined) return;
  writeResult(options.out, {
    schema: "speedlimit/accuracy@1",
    environment: machine,
    options: { runtime: options.runtime, searches, only, quick },
    ...(skipped === undefined ? {} : { skipped }),
    rows,
  });
}

/** One search by the command that a person would use. It may find nothing, but it must say so. */
async function findLimit(runtime: Runtime, command: readonly string[]): Promise<LimitResult> {
  const words = commandOn(runtime, "bin/limit.ts", "--json", "--", ...command);
  const program = new Program(words, { seconds: LONGEST_SEARCH, statuses: [0, 1] });
  const result = await program.figures() as LimitResult;
  if (result.schema === LIMIT_SCHEMA) return result;
  throw new Error(`${words.join(" ")} printed something else than a limit`);
}

async function findPython(): Promise<{ version: string } | { skipped: string }> {
  try {
    const { stdout } = await new Program(["python3", "--version"], { seconds: 20 }).ended();
    return { version: stdout.trim() };
  } catch (error) {
    if ((error as Error).name === "AbortError") throw error;
    return { skipped: "no python3" };
  }
}

function describe({ limit, outcome, message, seconds }: LimitResult): string {
  const found = limit === null ? "no limit" : formatInterval(limit.lower, limit.upper);
  const why = outcome === "found" ? "" : `, ${outcome}: ${message}`;
  return `${found}${why} in ${formatSeconds(seconds)}`;
}

if (import.meta.main) await runMain("accuracy", main);
