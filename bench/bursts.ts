/**
 * Maps readers whose burst tolerance is known by a formula, and the article's readers.
 *
 *     npx node --no-warnings bench/bursts.ts --runtime bun --out bench/results/bursts.json
 */
import { choice, option, parseCommandLine } from "../src/cli/command_line.ts";
import { parseOutFile } from "../src/cli/out_file.ts";
import { printLine, runMain } from "../src/cli/program.ts";
import type { MapResult } from "../src/burst/map_result.ts";
import { formatMachine } from "../src/report/machine.ts";
import { formatTable } from "../src/text/table.ts";
import { parseCount } from "../src/text/units.ts";
import { commandOn, Program, ROOT, RUNTIMES } from "./programs.ts";
import { compileC } from "./readers/compile.ts";
import { describeMachine, writeResult } from "./rows.ts";
import {
  BURST_HEAD,
  type BurstRow,
  type BurstsResult,
  checkOf,
  formatBurstRow,
  formatCheck,
  GATHER,
  type SurvivalCheck,
  toleranceOf,
} from "./burst_rows.ts";

/** The base rates of the model reader, as shares of its limit. */
const SHARES = [0.05, 0.1, 0.2, 0.35, 0.5, 0.6];
/** A map takes up to this; seconds. */
const LONGEST = 600;

/** How the article's fix is mapped, with one limit for all of its forms, and at which base rates. */
const ARTICLE_LIMIT = ["--limit", "50MB/s"];
const ARTICLE_RATES = "4%,10%,40%";

const PARTS = ["gather", "paced", "article", "bytearray", "python2"] as const;

const spec = {
  name: "bursts",
  summary: "Maps a model reader whose burst tolerance is known, a paced reader, and the\n" +
    "article's fix. The sender is the given runtime. Runs on Node.",
  usage: ["bursts.ts [OPTIONS]"],
  options: {
    runtime: choice({ help: "the sender", choices: RUNTIMES, default: "bun" }),
    only: choice({ help: "only this part", choices: PARTS }),
    oldPython: option({
      value: "PROGRAM",
      help: "a Python 2, which runs the article's fix as its author did",
      parse: String,
    }),
    checks: option({
      value: "N",
      help: "the chance to survive is checked again with so many runs at each of three bursts",
      default: "20",
      parse: (text) => parseCount(text, { least: 0, most: 1000 }),
    }),
    out: option({ value: "FILE.json", help: "writes the result", parse: parseOutFile }),
  },
};

async function main(args: readonly string[]): Promise<number> {
  const { options } = parseCommandLine(spec, args);
  const { runtime, only, checks } = options;
  const machine = await describeMachine([runtime]);
  const map = async (reader: readonly string[], ...more: string[]): Promise<MapResult> => {
    const words = commandOn(runtime, "bin/map.ts", "--json", "--size", "1000", ...more);
    const program = new Program([...words, "--", ...reader], { seconds: LONGEST });
    const { stdout } = await program.ended();
    return JSON.parse(stdout) as MapResult;
  };
  const result: BurstsResult = {
    schema: "speedlimit/bursts@1",
    environment: machine,
    options: { runtime, checks },
    rows: [],
    checks: [],
    maps: [],
  };
  const add = (name: string, found: MapResult, expected?: (rate: number) => number | null) => {
    result.maps.push({ name, map: found });
    for (const { rate, tolerance } of found.rates) {
      const row: BurstRow = { name, rate, ...tolerance, expected: expected?.(rate) };
      result.rows.push(row);
    }
    printLine(`${name}: ${found.message} (${found.seconds.toFixed(0)} s)`);
  };

  if (only === undefined || only === "gather") {
    const program = await compileC(`${ROOT}/bench/readers/gather.c`);
    const { limit, chunk, copying } = GATHER;
    const reader = [program, "{host}", "{port}", ...[limit, chunk, copying].map(String)];
    const shares = SHARES.map((share) => `${100 * share}%`).join(",");
    const found = await map(reader, "--limit", `${limit}B/s`, "--rates", shares);
    add("gather.c", found, toleranceOf);
  }
  if (only === undefined || only === "paced") {
    const program = await compileC(`${ROOT}/bench/readers/paced.c`);
    const reader = [program, "{host}", "{port}", "20000000"];
    add("paced.c", await map(reader, "--limit", "20MB/s"), () => null);
  }
  const pythons = [
    ["article", "python3", "drain.py"],
    ["bytearray", "python3", "drain_bytearray.py"],
    ["python2", options.oldPython, "drain.py"],
  ] as const;
  for (const [part, python, file] of pythons) {
    if (only !== undefined && only !== part) continue;
    if (python === undefined) {
      printLine(`${part}: skipped: no Python 2 was named with --old-python`);
      continue;
    }
    const reader = [python, `${ROOT}/bench/readers/${file}`, "{host}", "{port}"];
    const found = await map(reader, ...ARTICLE_LIMIT, "--rates", ARTICLE_RATES, "--repeats", "6");
    add(`${file}, ${await versionOf(python)}`, found);
    if (part === "article") result.checks.push(...await survivalChecks(found, reader, map, checks));
  }
  print(result);
  printLine(formatMachine(machine));
  if (options.out !== undefined) writeResult(options.out, result);
  return 0;
}

/** "Python 3.11.7". Python 2 prints its version to stderr. */
async function versionOf(python: string): Promise<string> {
  const { stdout, stderr } = await new Program([python, "--version"], { seconds: 20 }).ended();
  return (stdout + stderr).trim();
}

/** The chance at three bursts of the middle rate, measured again. */
async function survivalChecks(
  found: MapResult,
  reader: readonly string[],
  map: (reader: readonly string[], ...more: string[]) => Promise<MapResult>,
  runs: number,
): Promise<SurvivalCheck[]> {
  const { rate, share, chances, tolerance } = found.rates[found.rates.length >> 1]!;
  if (runs === 0 || tolerance.upper === null) return [];
  const between = chances.filter(({ burst }) =>
    burst > tolerance.lower && burst < tolerance.upper!
  );
  const of = (burst: number) => chances.find((chance) => chance.burst === burst);
  const wanted = [of(tolerance.lower), between[between.length >> 1], of(tolerance.upper)];
  const checks: SurvivalCheck[] = [];
  for (const chance of wanted) {
    if (chance === undefined) continue;
    const again = await map(
      reader,
      ...[...ARTICLE_LIMIT, "--rates", `${100 * share}%`],
      ...["--burst", String(chance.burst), "--repeats", String(runs)],
    );
    checks.push(checkOf(rate, chance, again));
  }
  return checks;
}

function print({ rows, checks }: BurstsResult): void {
  printLine(formatTable([[...BURST_HEAD], ...rows.map(formatBurstRow)]));
  for (const check of checks) printLine(formatCheck(check));
}

if (import.meta.main) await runMain("bursts", main);
