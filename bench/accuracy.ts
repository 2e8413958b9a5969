/**
 * Measures how accurate `limit` is: runs bin/limit.ts on readers whose speed limit is known.
 *
 *     node --no-warnings bench/accuracy.ts --runtime deno --out accuracy.json
 */
import { ProgressLine } from "../src/text/progress.ts";
import { formatTable } from "../src/text/table.ts";
import { formatByteRate, formatSeconds, parseCount, UnitError } from "../src/text/units.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import { LIMIT_SCHEMA, type LimitResult } from "../src/measure/limit_result.ts";
import { formatInterval } from "../src/report/limit_table.ts";
import { formatMachine } from "../src/report/machine.ts";
import { choice, flag, option, parseCommandLine } from "../src/cli/command_line.ts";
import { parseOutFile } from "../src/cli/out_file.ts";
import { printLine, runMain } from "../src/cli/program.ts";
import {
  argumentsOf,
  formatCoverage,
  formatKindRow,
  judgeKind,
  KIND_HEAD,
  KIND_PARTS,
  type KindCase,
  kindCases,
  type KindRow,
  messageOptions,
  nameKind,
} from "./accuracy_kinds.ts";
import {
  ACCURACY_HEAD,
  type AccuracyRow,
  formatAccuracyRow,
  judgeInterval,
  judgeSearches,
  readerRow,
} from "./accuracy_rows.ts";
import { commandOn, Program, ROOT, RUNTIMES } from "./programs.ts";
import { compileC } from "./readers/compile.ts";
import { type Language, languageReader, LANGUAGES } from "./readers/languages.ts";
import { describeMachine, writeResult } from "./rows.ts";

const PARTS = ["all", "steady", "intervals", "searches", "python", "kinds", ...KIND_PARTS] as const;

function parsePart(text: string): typeof PARTS[number] {
  const part = PARTS.find((each) => each === text);
  if (part === undefined) throw new UnitError(`must be one of ${PARTS.join(", ")}`);
  return part;
}

const spec = {
  name: "accuracy",
  summary: "Measures readers whose speed limit is known with bin/limit.ts, one of them\n" +
    "several times, the article's readers in Python, and readers of many kinds:\n" +
    "noisy ones, ones that pause, work in batches or hoard, and ones in other\n" +
    "languages. Reports which targets are met.",
  usage: ["accuracy.ts [OPTIONS]"],
  options: {
    runtime: choice({
      help: "runtime of the sender",
      choices: ["all", ...RUNTIMES],
      default: "all",
    }),
    searches: option({
      value: "N",
      help: "number of searches of the same reader",
      default: "10",
      parse: (text) => parseCount(text, { least: 2, most: 1000 }),
    }),
    only: option({
      value: "PART",
      help: "measure only a part: steady (intervals, searches), python, or " +
        `kinds (${KIND_PARTS.join(", ")})`,
      default: "all",
      parse: parsePart,
    }),
    seed: option({
      value: "N",
      help: "what readers of a kind draw: each reader adds its number to it",
      default: "1",
      parse: (text) => parseCount(text, { most: 1e9 }),
    }),
    out: option({
      value: "FILE.json",
      help: "also writes all figures to this file",
      parse: parseOutFile,
    }),
    quick: flag("only one reader of each part and two searches, to try the benchmark itself"),
  },
};

/** The service rate of the reader whose limit is searched several times. Bytes a second. */
const STEADY = 20e6;
/** Readers of bench/readers/paced.c: service rate in bytes a second, and further arguments. */
const PACED: readonly { rate: number; args: readonly string[] }[] = [
  { rate: 1e6, args: [] },
  { rate: STEADY, args: [] },
  { rate: 200e6, args: [] },
  { rate: 1e9, args: [] },
  { rate: STEADY, args: ["--pause", "50", "--every", "500"] },
];
const PYTHON = ["naive.py", "drain.py", "drain_bytearray.py"];
/** The target is 60 s at most; a search that takes longer than this hangs. Seconds. */
const LONGEST_SEARCH = 300;

async function main(args: readonly string[]): Promise<void> {
  const { options } = parseCommandLine(spec, args);
  const { quick, only } = options;
  const searches = quick ? 2 : options.searches;
  const paced = quick ? PACED.filter(({ rate }) => rate === STEADY).slice(0, 1) : PACED;
  const runtimes = options.runtime === "all" ? RUNTIMES : [options.runtime];
  const reader = await compileC(new URL("readers/paced.c", import.meta.url));
  const kindsProgram = await compileC(new URL("readers/kinds.c", import.meta.url));
  const part = KIND_PARTS.find((each) => each === only);
  const wanted = part !== undefined || only === "kinds" || only === "all" ? kindCases(part) : [];
  const languages = await findLanguages(wanted);
  const chosen = wanted.filter(({ language }) =>
    language === undefined || languages.commands.has(language)
  );
  const cases = quick
    ? chosen.filter((each, i) => chosen.findIndex(({ part }) => part === each.part) === i)
    : chosen;
  const machine = await describeMachine(runtimes);
  const python = only === "all" && !quick || only === "python" ? await findPython() : undefined;
  const progress = new ProgressLine();
  const search = async (
    runtime: Runtime,
    what: string,
    command: readonly string[],
    limitOptions: readonly string[] = [],
  ) => {
    progress.update(`${runtime}: ${what} ...`);
    const result = await findLimit(runtime, command, limitOptions);
    progress.line(`${runtime}: ${what}: ${describe(result)}`);
    return result;
  };

  const rows: AccuracyRow[] = [];
  const kinds: KindRow[] = [];
  for (const runtime of runtimes) {
    if (["all", "steady", "intervals"].includes(only)) {
      for (const { rate, args } of paced) {
        const what = ["paced", formatByteRate(rate), ...args].join(" ");
        const words = [reader, "{host}", "{port}", String(rate), ...args];
        rows.push(judgeInterval(what, runtime, rate, await search(runtime, what, words)));
      }
    }
    if (["all", "steady", "searches"].includes(only)) {
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
        rows.push(readerRow(what, runtime, await search(runtime, what, words)));
      }
    }
    for (const [i, each] of cases.entries()) {
      const { language } = each;
      const program = language === undefined ? [kindsProgram] : languages.commands.get(language)!;
      const args = argumentsOf(each, options.seed + i);
      const words = [...program, ...args];
      const result = await search(runtime, nameKind(each), words, messageOptions(each));
      kinds.push(judgeKind(each, runtime, args, result));
    }
  }

  const judged = [...rows.filter(({ met }) => met !== null), ...kinds];
  const met = judged.filter((row) => row.met).length;
  if (rows.length > 0) printLine(formatTable([ACCURACY_HEAD, ...rows.map(formatAccuracyRow)]));
  if (kinds.length > 0) {
    if (rows.length > 0) printLine("");
    printLine(formatTable([KIND_HEAD, ...kinds.map(formatKindRow)]));
    printLine(`\nintervals that hold the true rate: ${formatCoverage(kinds) || "none found"}`);
  }
  const skipped = [...languages.skipped];
  if (python !== undefined && "skipped" in python) {
    skipped.push(`the article's readers in Python (${python.skipped})`);
  }
  if (skipped.length > 0) printLine(`\nskipped: ${skipped.join(", ")}`);
  printLine(
    `\n${met} of ${judged.length} targets met${
      quick ? "; quick run: these figures are not precise" : ""
    }\n` +
      formatMachine(machine),
  );
  if (options.out === undefined) return;
  writeResult(options.out, {
    schema: "speedlimit/accuracy@1",
    environment: machine,
    options: { runtime: options.runtime, searches, only, quick, seed: options.seed },
    ...(skipped.length === 0 ? {} : { skipped }),
    ...(languages.versions.length === 0 ? {} : { compilers: languages.versions }),
    rows: [...rows, ...kinds],
  });
}

/** Runs one search with the command `limit`. A search without a limit is a result, not an error. */
async function findLimit(
  runtime: Runtime,
  command: readonly string[],
  options: readonly string[],
): Promise<LimitResult> {
  const words = commandOn(runtime, "bin/limit.ts", ...options, "--json", "--", ...command);
  const program = new Program(words, { seconds: LONGEST_SEARCH, statuses: [0, 1] });
  const result = await program.figures() as LimitResult;
  if (result.schema === LIMIT_SCHEMA) return result;
  throw new Error(`${words.join(" ")} did not print a result of limit`);
}

/** The readers of the languages of these cases: what starts them, their compilers, what is missing. */
async function findLanguages(cases: readonly KindCase[]): Promise<{
  commands: ReadonlyMap<Language, readonly string[]>;
  versions: readonly string[];
  skipped: readonly string[];
}> {
  const commands = new Map<Language, readonly string[]>();
  const versions: string[] = [];
  const skipped: string[] = [];
  for (const language of LANGUAGES) {
    if (!cases.some((each) => each.language === language)) continue;
    const reader = await languageReader(language);
    if ("missing" in reader) {
      skipped.push(`the readers in ${language} (${reader.missing})`);
    } else {
      commands.set(language, reader.command);
      versions.push(reader.version);
    }
  }
  return { commands, versions, skipped };
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
  const interval = limit === null ? "no limit" : formatInterval(limit.lower, limit.upper);
  const why = outcome === "found" ? "" : `, ${outcome}: ${message}`;
  return `${interval}${why} in ${formatSeconds(seconds)}`;
}

if (import.meta.main) await runMain("accuracy", main);
