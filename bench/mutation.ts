/**
 * Changes the source in small ways, one at a time, and runs the tests that should notice it: shows
 * which changes no test notices.
 *
 *     npx node --no-warnings bench/mutation.ts --only src/send --out mutation.json
 */
import { existsSync, globSync, readFileSync } from "node:fs";
import { basename, dirname, join, normalize } from "node:path";
import { choice, flag, option, parseCommandLine } from "../src/cli/command_line.ts";
import { parseOutFile } from "../src/cli/out_file.ts";
import { printLine, runMain } from "../src/cli/program.ts";
import { formatMachine } from "../src/report/machine.ts";
import { ProgressLine } from "../src/text/progress.ts";
import { formatTable } from "../src/text/table.ts";
import { parseCount } from "../src/text/units.ts";
import { formatMinutes } from "./bench_time.ts";
import { type Mutant, mutantsOf, mutated } from "./mutants.ts";
import { namedMutants } from "./mutation_named.ts";
import { ProjectCopy, type TestRun } from "./mutation_run.ts";
import { ROOT } from "./programs.ts";
import { describeMachine, writeResult } from "./rows.ts";

const spec = {
  name: "mutation",
  summary: "Changes src/send and src/measure in small ways, one at a time, in a copy of the\n" +
    "project, and runs the tests that should notice it. Exits with 1 if a change that\n" +
    "is not explained in bench/mutation_explained.json survives.\n" +
    "Runs on Node.",
  usage: ["mutation.ts [OPTIONS]"],
  options: {
    only: option({
      value: "PATH",
      help: "only this file or folder (default src/send and src/measure)",
      parse: (text) => normalize(text).replace(/\/$/, ""),
    }),
    mutants: option({
      value: "N",
      help: "number of changes, drawn from all (default all)",
      parse: (text) => parseCount(text, { most: 1e6 }),
    }),
    seed: option({
      value: "N",
      help: "which ones are drawn, and in which order",
      default: "1",
      parse: (text) => parseCount(text, { most: 1e9 }),
    }),
    named: flag("only the changes that no test noticed in the first version"),
    runtime: choice({
      help: "the runtime of the tests",
      choices: ["bun", "node"] as const,
      default: "bun",
    }),
    out: option({
      value: "FILE.json",
      help: "also writes all of it to this file",
      parse: parseOutFile,
    }),
  },
};

/** Of the search: of made-up readers, so that no time is waited for. */
const SEARCH = ["search_test.ts", "coverage_test.ts"];

/**
 * The tests of a folder or file; beside them, those that import the file. The first entry counts that
 * the file's path begins with.
 */
const TESTS: readonly [path: string, tests: readonly string[]][] = [
  ["src/send/", ["send_test.ts", "overflow_test.ts", "server_test.ts"]],
  ["src/measure/search.ts", SEARCH],
  ["src/measure/search_trials.ts", SEARCH],
  ["src/measure/saturation.ts", SEARCH],
  ["src/measure/stretch.ts", SEARCH],
  ["src/measure/service.ts", SEARCH],
  ["src/measure/backlog.ts", SEARCH],
  ["src/measure/processing.ts", SEARCH],
  ["src/measure/statistics.ts", []],
  ["src/measure/hidden_backlog.ts", SEARCH],
  ["src/measure/work_end.ts", []],
  ["src/measure/thread_background.ts", ["work_end_test.ts"]],
  ["src/measure/sampler.ts", []],
  ["src/measure/clearing.ts", []],
  ["src/measure/beyond.ts", []],
  ["src/measure/trial_watch.ts", []],
  ["src/measure/", ["limit_failures_test.ts", "limit_attach_test.ts", "limit_test.ts"]],
  ["src/relay/", ["relay_source_test.ts", "relay_reader_test.ts", "relay_test.ts"]],
];
const FILES = ["src/send/*.ts", "src/measure/*.ts"];

/** A mutant hangs once a test takes this much longer than without it. */
const deadlineOf = (seconds: number) => 3 * seconds + 10;

/** What became of a mutant. `explained`: it survived, and `why` says that it changes nothing. */
export interface MutantResult extends Mutant {
  outcome: "killed" | "timed-out" | "survived" | "explained";
  /** The tests that ran, the last one noticed it unless it survived. */
  tests: string[];
  /** What that one said. */
  failure?: string;
  why?: string;
  seconds: number;
}

async function main(args: readonly string[]): Promise<number> {
  const { options } = parseCommandLine(spec, args);
  const { seed, named, runtime } = options;
  const { only } = options;
  const isWanted = (file: string) =>
    only === undefined || file === only || file.startsWith(`${only}/`);
  const explained = readExplained();
  const machine = await describeMachine([runtime]);
  const copy = new ProjectCopy(runtime);
  try {
    const files = globSync(only?.endsWith(".ts") ? only : only ? `${only}/*.ts` : FILES, {
      cwd: copy.folder,
    }).sort();
    const read = (file: string) =>
      existsSync(join(copy.folder, file)) ? copy.read(file) : undefined;
    const byName = namedMutants(read, isWanted);
    const all = named
      ? byName.mutants
      : shuffled(files.flatMap((file) => mutantsOf(file, copy.read(file))), seed);
    if (all.length === 0) throw new Error(`${only ?? "--named"} has nothing to change`);
    const chosen = all.slice(0, options.mutants);

    const progress = new ProgressLine();
    const testsOf = await measureTests(
      copy,
      [...new Set(chosen.map(({ file }) => file))],
      progress,
    );
    const results: MutantResult[] = [];
    const startMs = performance.now();
    for (const [i, mutant] of chosen.entries()) {
      const survived = results.filter(({ outcome }) => outcome === "survived").length;
      const left = (chosen.length - i) * (performance.now() - startMs) / 1000 / Math.max(1, i);
      progress.update(
        `${i + 1}/${chosen.length} ${mutant.file}:${mutant.line}, ${survived} survived` +
          (i < 5 ? "" : `, ${formatMinutes(left)} left`),
      );
      const result = await tryMutant(copy, mutant, testsOf(mutant.file), explained);
      results.push(result);
      if (result.outcome === "survived") {
        progress.line(`survived: ${mutant.file}:${mutant.line}: ${mutant.key}`);
      }
    }
    progress.end();
    print(results, all.length);
    const keys = new Set(named ? [] : all.map(({ key }) => key));
    const stale = [...explained.keys()].filter((key) =>
      !named && isWanted(key.split(": ")[0]!) && !keys.has(key)
    );
    for (const key of stale) printLine(`explained, but no longer a change: ${key}`);
    for (const name of byName.lost) printLine(`its text is no longer there: ${name}`);
    printLine(formatMachine(machine));
    if (options.out !== undefined) {
      writeResult(options.out, {
        schema: "speedlimit/mutation@1",
        environment: machine,
        options: { only: only ?? null, mutants: options.mutants ?? null, seed, named, runtime },
        possible: all.length,
        totals: totals(results),
        stale,
        lost: byName.lost,
        mutants: results,
      });
    }
    return results.some(({ outcome }) => outcome === "survived") ? 1 : 0;
  } finally {
    copy.end();
  }
}

/** Why survivors are equivalent, by their keys. */
function readExplained(): Map<string, string> {
  const file = new URL("mutation_explained.json", import.meta.url);
  return new Map(Object.entries(JSON.parse(readFileSync(file, "utf8")) as Record<string, string>));
}

interface MeasuredTest {
  file: string;
  seconds: number;
}

/** Runs each test once without a mutant. Returns the tests of a file, the fastest first. */
async function measureTests(
  copy: ProjectCopy,
  files: readonly string[],
  progress: ProgressLine,
): Promise<(file: string) => MeasuredTest[]> {
  const imported = new Map<string, string[]>();
  for (const test of globSync("test/*_test.ts", { cwd: ROOT }).sort()) {
    const text = readFileSync(join(ROOT, test), "utf8");
    for (const [, path] of text.matchAll(/from "(\.\.\/src\/.+?)"/g)) {
      const file = normalize(join(dirname(test), path!));
      imported.set(file, [...(imported.get(file) ?? []), basename(test)]);
    }
  }
  const namesOf = (file: string) => {
    const [, tests = []] = TESTS.find(([path]) => file.startsWith(path)) ?? [];
    // Of a test of types or of one name, the file is not the subject.
    const direct = (imported.get(file) ?? []).filter((name) => isFast(name));
    return [...new Set([...tests, ...direct])];
  };
  const seconds = new Map<string, number>();
  for (const name of new Set(files.flatMap(namesOf))) {
    progress.update(`${name}, unchanged ...`);
    const run = await copy.test(name, 300);
    if (run.outcome !== "passed") {
      throw new Error(`${name} fails without a change: ${run.failure ?? "it takes over 300 s"}`);
    }
    seconds.set(name, run.seconds);
  }
  return (file) =>
    namesOf(file).map((name) => ({ file: name, seconds: seconds.get(name)! }))
      .sort((a, b) => a.seconds - b.seconds);
}

/** Tests of functions, by their names: they start no program. */
const FAST = new RegExp(
  "^(" + [
    "send|overflow|frame|numbered|units|old_names",
    "search|search_trials|saturation|stretch|service|backlog|statistics|processing|coverage",
    "work_end|thread_background|clearing|sampler|trial_watch|beyond",
  ].join("|") + ")_",
);
const isFast = (name: string) => FAST.test(name);

async function tryMutant(
  copy: ProjectCopy,
  mutant: Mutant,
  tests: readonly MeasuredTest[],
  explained: ReadonlyMap<string, string>,
): Promise<MutantResult> {
  const { file, key } = mutant;
  const source = copy.read(file);
  const startMs = performance.now();
  const ran: string[] = [];
  let last: TestRun | undefined;
  copy.write(file, mutated(source, mutant));
  try {
    for (const test of tests) {
      ran.push(test.file);
      last = await copy.test(test.file, deadlineOf(test.seconds));
      // A test with sockets and programs may fail for another reason, but not twice.
      if (last.outcome !== "passed" && !isFast(test.file)) {
        last = await copy.test(test.file, deadlineOf(test.seconds));
      }
      if (last.outcome !== "passed") break;
    }
  } finally {
    copy.write(file, source);
  }
  const why = explained.get(key);
  const outcome = last?.outcome === "failed"
    ? "killed"
    : last?.outcome === "timed-out"
    ? "timed-out"
    : why === undefined
    ? "survived"
    : "explained";
  return {
    ...mutant,
    outcome,
    tests: ran,
    ...(last?.failure === undefined ? {} : { failure: last.failure }),
    ...(outcome === "explained" ? { why: why! } : {}),
    seconds: (performance.now() - startMs) / 1000,
  };
}

/** A copy in an order that depends on the seed alone (Fisher-Yates; Numerical Recipes' generator). */
function shuffled<T>(items: readonly T[], seed: number): T[] {
  const result = [...items];
  let state = seed >>> 0;
  for (let i = result.length - 1; i > 0; i--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const j = Math.floor(state / 2 ** 32 * (i + 1));
    [result[i], result[j]] = [result[j]!, result[i]!];
  }
  return result;
}

function totals(results: readonly MutantResult[]): Record<MutantResult["outcome"], number> {
  const counts = { killed: 0, "timed-out": 0, survived: 0, explained: 0 };
  for (const { outcome } of results) counts[outcome]++;
  return counts;
}

function print(results: readonly MutantResult[], possible: number): void {
  const rows = [...new Set(results.map(({ file }) => file))].sort().map((file) => {
    const counts = totals(results.filter((result) => result.file === file));
    return [file, ...Object.values(counts).map(String)];
  });
  printLine(formatTable([["file", "killed", "timed out", "survived", "explained"], ...rows]));
  printLine("");
  for (const { outcome, file, line, key, tests, failure } of results) {
    if (outcome === "survived") printLine(`survived: ${file}:${line}: ${key}`);
    else if (!key.startsWith(file)) {
      printLine(`${outcome}: ${key}: ${tests.at(-1)}: ${failure ?? "it hangs"}`);
    }
  }
  printLine(`${results.length} of ${possible} changes were tried`);
}

if (import.meta.main) await runMain("mutation", main);
