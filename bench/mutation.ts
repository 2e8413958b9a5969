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
import {
  formatMutationRow,
  type MutantResult,
  MUTATION_HEAD,
  type MutationResult,
  rowsByFile,
  withOthers,
} from "./mutation_rows.ts";
import { ProjectCopy, type TestRun } from "./mutation_run.ts";
import { ROOT } from "./programs.ts";
import { describeMachine, writeResult } from "./rows.ts";

const spec = {
  name: "mutation",
  summary: "Changes src/send, what decides in src/measure, and what reckons with offsets in\n" +
    "src/relay, src/queue and src/source in small ways, one at a time, in a copy of\n" +
    "the project, and runs the tests that should notice it. Exits with 1 if a change\n" +
    "survives that is not explained in bench/mutation_explained.json. Runs on Node.",
  usage: ["mutation.ts [OPTIONS]"],
  options: {
    only: option({
      value: "PATH",
      help: "only this file or folder; of src/measure, also those that only real searches test",
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
      help: "also writes all of it to this file, which keeps what it has of other files",
      parse: parseOutFile,
    }),
  },
};

/** Of the search: over made-up readers, so that no time is waited for. */
const SEARCH = ["search_test.ts", "coverage_test.ts"];

/** The files of src/measure that tests without sockets notice, and those tests, beside their own. */
const PURE: Record<string, readonly string[]> = {
  backlog: SEARCH,
  beyond: [],
  clearing: [],
  hidden_backlog: SEARCH,
  processing: SEARCH,
  sampler: [],
  saturation: SEARCH,
  search: SEARCH,
  search_trials: SEARCH,
  service: SEARCH,
  statistics: [],
  stretch: SEARCH,
  thread_background: ["work_end_exact_test.ts", "work_end_test.ts"],
  trial_watch: [],
  work_end: [],
};

/** Where the offsets and positions of a stream are reckoned with: files of src/relay. */
const OFFSETS = [
  ...["blocks", "read_ahead", "records", "reservation", "retention"],
  ...["spiller", "stream", "stream_cursor"],
];
/** Their tests beside their own, which are fast; the first against a model. */
const MODEL = ["stream_model_test.ts", "kill_found_test.ts", "spiller_test.ts"];
/** Of a stream over a log that is in memory. */
const STREAM = [
  ...["stream_test.ts", "stream_dropped_test.ts", "stream_gaps_test.ts", "stream_next_test.ts"],
  ...["stream_recover_test.ts", "stream_stored_test.ts"],
];
/** Of the queue: on a real disk. */
const QUEUE = ["queue_test.ts", "queue_space_test.ts", "queue_fuzz_test.ts"];
const SOURCE = ["source_test.ts", "frame_test.ts", "bad_frame_test.ts", "relay_source_test.ts"];

/**
 * The tests of a folder or file; beside them, those that import the file. The first entry counts that
 * the file's path begins with.
 */
const TESTS: readonly [path: string, tests: readonly string[]][] = [
  ["src/send/", ["send_test.ts", "overflow_test.ts", "server_test.ts"]],
  ...Object.entries(PURE).map(([name, tests]): [string, readonly string[]] => [
    `src/measure/${name}.ts`,
    tests,
  ]),
  ["src/measure/", ["limit_failures_test.ts", "limit_attach_test.ts", "limit_test.ts"]],
  ["src/relay/spiller.ts", ["spiller_made_test.ts", ...MODEL]],
  ["src/relay/stream.ts", [...STREAM, ...MODEL]],
  ...OFFSETS.map((name): [string, readonly string[]] => [`src/relay/${name}.ts`, MODEL]),
  ["src/relay/", ["relay_source_test.ts", "relay_reader_test.ts", "relay_test.ts"]],
  ["src/queue/disk_cursor.ts", ["disk_cursor_test.ts", ...QUEUE]],
  ["src/queue/disk_log.ts", ["disk_log_test.ts", ...QUEUE]],
  ["src/queue/segment.ts", ["segment_test.ts", ...QUEUE]],
  ["src/queue/segment_format.ts", ["segment_format_test.ts", ...QUEUE]],
  ["src/queue/", QUEUE],
  ["src/source/ack_sender.ts", ["ack_sender_test.ts", ...SOURCE]],
  ["src/source/file_source.ts", ["file_source_test.ts", ...SOURCE]],
  ["src/message/reassembly.ts", ["reassembly_test.ts", ...SOURCE]],
  ["src/source/", SOURCE],
  ["src/message/", ["ack_test.ts", "frame_test.ts", "numbered_test.ts"]],
];
const FILES = [
  "src/send/*.ts",
  `src/measure/{${Object.keys(PURE).join(",")}}.ts`,
  `src/relay/{${OFFSETS.join(",")}}.ts`,
  "src/queue/{disk_cursor,disk_log,segment,segment_format}.ts",
  "src/source/{ack_sender,file_source,reassembly}.ts",
  "src/message/protocol.ts",
];

/** A mutant hangs once a test takes this much longer than without it. */
const deadlineOf = (seconds: number) => 3 * seconds + 10;

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
    const rows = rowsByFile(results, all, (file) => testsOf(file).map((test) => test.file));
    print(results, rows, all.length);
    const keys = new Set(named ? [] : all.map(({ key }) => key));
    const stale = [...explained.keys()].filter((key) =>
      !named && isWanted(key.split(": ")[0]!) && !keys.has(key)
    );
    for (const key of stale) printLine(`explained, but no longer a change: ${key}`);
    for (const name of byName.lost) printLine(`its text is no longer there: ${name}`);
    printLine(formatMachine(machine));
    if (options.out !== undefined) {
      const result: MutationResult = {
        schema: "speedlimit/mutation@2",
        environment: machine,
        options: { mutants: options.mutants ?? null, seed, named, runtime },
        stale,
        lost: byName.lost,
        files: named ? rows : withOthers(rows, readEarlier(options.out)),
      };
      writeResult(options.out, result);
    }
    return results.some(({ outcome }) => outcome === "survived") ? 1 : 0;
  } finally {
    copy.end();
  }
}

/** What the last runs have written, of other files as well. */
function readEarlier(file: string): Partial<MutationResult> {
  if (!existsSync(file)) return {};
  const earlier = JSON.parse(readFileSync(file, "utf8")) as Partial<MutationResult>;
  return earlier.schema === "speedlimit/mutation@2" ? earlier : {};
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
    "search|saturation|stretch|service|backlog|statistics|processing|coverage",
    "work_end|thread_background|clearing|sampler|trial_watch|beyond",
    "reservation|records|read_ahead|stream_cursor|blocks|retention|spiller_made",
    "stream(?=_test)|stream_(dropped|gaps|next|recover|stored)",
    "disk_cursor|disk_log|segment|segment_format|ack|reassembly|file_source",
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

function print(
  results: readonly MutantResult[],
  rows: MutationResult["files"],
  possible: number,
): void {
  printLine(formatTable([MUTATION_HEAD, ...rows.map(formatMutationRow)]));
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
