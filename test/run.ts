/**
 * The whole suite under Deno, Bun and Node, one after the other; closes with `N passed, N failed`
 * over the three together. Runs on Node.
 *
 *     npm test                      # all of it
 *     npm test -- net_test.ts       # some files
 */
import { spawn } from "node:child_process";
import { globSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import process from "node:process";

const ROOT = resolve(import.meta.dirname!, "..");
/** A suite that hangs fails: no wait in it is longer than a few minutes altogether. */
const LONGEST_MS = 20 * 60_000;

const RUNTIMES = ["deno", "bun", "node"] as const;
type Runtime = typeof RUNTIMES[number];

/** How each runtime runs test files and writes a JUnit report. */
function command(runtime: Runtime, files: string[], report: string): string[] {
  switch (runtime) {
    case "deno":
      return [
        "deno",
        "test",
        "-A",
        "--no-check",
        "--node-modules-dir=manual",
        `--junit-path=${report}`,
        ...files,
      ];
    case "bun":
      return [
        "bun",
        "test",
        "--timeout",
        "300000",
        "--reporter=junit",
        `--reporter-outfile=${report}`,
        ...files,
      ];
    case "node":
      return [
        "node",
        "--experimental-ffi",
        "--no-warnings",
        "--test",
        "--test-concurrency=1",
        // A failed test leaves its sockets open: that must not keep the others waiting.
        "--test-force-exit",
        "--test-reporter=spec",
        "--test-reporter-destination=stdout",
        "--test-reporter=junit",
        `--test-reporter-destination=${report}`,
        ...files,
      ];
  }
}

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

/** The tests in a JUnit report; a suite that is listed as a test of its own (Deno) is none. */
function count(report: string): Counts {
  const cases = [...report.matchAll(/<testcase\s([^>]*?)(\/>|>([\s\S]*?)<\/testcase>)/g)].map((
    match,
  ) => ({
    name: /(?:^|\s)name="([^"]*)"/.exec(match[1]!)?.[1] ?? "",
    body: match[3] ?? "",
  }));
  const counts: Counts = { passed: 0, failed: 0, skipped: 0 };
  for (const { name, body } of cases) {
    if (cases.some((other) => other.name.startsWith(`${name} &gt; `))) continue;
    if (/<(failure|error)/.test(body)) counts.failed++;
    else if (/<skipped/.test(body)) counts.skipped++;
    else counts.passed++;
  }
  return counts;
}

async function run(runtime: Runtime, files: string[], folder: string): Promise<Counts> {
  const report = join(folder, `${runtime}.xml`);
  const [program, ...args] = command(runtime, files, report) as [string, ...string[]];
  console.log(`\n== ${runtime}: ${files.length} files`);
  const child = spawn(program, args, {
    cwd: ROOT,
    stdio: "inherit",
    env: { ...process.env, SPEEDLIMIT_EXPECT_RUNTIME: runtime },
  });
  const timer = setTimeout(() => child.kill("SIGKILL"), LONGEST_MS);
  const status = await new Promise<number | null>((done) => {
    child.once("error", (error) => {
      console.log(`${runtime} cannot be started: ${error.message}`);
      done(null);
    });
    child.once("exit", done);
  });
  clearTimeout(timer);
  let counts: Counts = { passed: 0, failed: 0, skipped: 0 };
  try {
    counts = count(readFileSync(report, "utf8"));
  } catch {
    console.log(`${runtime} left no report`);
  }
  // A crash outside of every test, or a run of nothing, is a failure as well.
  if ((status !== 0 && counts.failed === 0) || counts.passed + counts.failed === 0) counts.failed++;
  return counts;
}

const wanted = process.argv.slice(2).map((name) => basename(name));
const files = globSync("test/*_test.ts", { cwd: ROOT }).sort()
  .filter((file) => wanted.length === 0 || wanted.includes(basename(file)));
const folder = mkdtempSync(join(tmpdir(), "speedlimit-test-"));
const total: Counts = { passed: 0, failed: 0, skipped: 0 };
const lines: string[] = [];
for (const runtime of RUNTIMES) {
  const counts = await run(runtime, files, folder);
  lines.push(
    `${runtime}: ${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`,
  );
  for (const key of ["passed", "failed", "skipped"] as const) total[key] += counts[key];
}
rmSync(folder, { recursive: true });
console.log(`\n${lines.join("\n")}`);
console.log(
  `${total.passed} passed, ${total.failed} failed${
    total.skipped > 0 ? `, ${total.skipped} skipped` : ""
  }`,
);
process.exitCode = total.failed === 0 ? 0 : 1;
