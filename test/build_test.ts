/** What `npm run build` and `npm pack` make, used far from this project: no node_modules, no sources. */
import { after, before, describe, test } from "node:test";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, delimiter, join, resolve } from "node:path";
import process from "node:process";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "#std/assert";
import manifest from "../package.json" with { type: "json" };
import { runtime } from "../src/kernel/runtime.ts";
import { hasRuntime, Program, ROOT, run, type RunResult, type Runtime, start } from "./process.ts";
import { skip } from "./skip.ts";
import { within } from "./within.ts";

const TRANSFER_MS = 20_000;
const LIMIT_MS = 60_000;

/** How a program is started from the folder of the test: with its arguments. */
type Starter = (...args: string[]) => Program;

let folder = "";
/** Where the bundles are. */
let dist = "";

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "speedlimit-build-"));
  dist = join(folder, "dist");
  if (runtime === "node") {
    // What a package has is built, and tried, on Node. From a copy: nothing is written where somebody works.
    const copy = join(folder, "copy");
    cpSync(ROOT, copy, {
      recursive: true,
      filter: (from) =>
        resolve(from) === ROOT || !/^(node_modules|\.git|dist)$/.test(basename(from)),
    });
    symlinkSync(join(ROOT, "node_modules"), join(copy, "node_modules"));
    await npm(["pack", "--pack-destination", folder], copy);
    renameSync(join(copy, "dist"), dist);
    rmSync(copy, { recursive: true });
    return;
  }
  // The executable is Bun's.
  const only = runtime === "bun" ? ["--no-types"] : ["--no-types", "--package"];
  const result = await run(["tools/build.ts", "--out", dist, ...only], {
    runtime: "node",
    timeoutMs: 60_000,
  });
  assertEquals([result.status, result.stderr], [0, ""]);
});
after(() => rmSync(folder, { recursive: true, force: true }));

/** A bundle on this runtime. */
const bundle = (name: string): Starter => (...args) =>
  start([join(dist, name), ...args], { cwd: folder, timeoutMs: LIMIT_MS });

function ended(what: string, program: Program): Promise<RunResult> {
  return within(what, LIMIT_MS, program.ended);
}

async function npm(args: string[], cwd: string): Promise<RunResult> {
  const result = await ended("npm", new Program("npm", args, { cwd, timeoutMs: LIMIT_MS }));
  assertEquals(result.status, 0, result.stdout + result.stderr);
  return result;
}

/** Runs it to its end, which must be a good one; what it said. */
async function said(program: Program): Promise<string> {
  const { status, stdout, stderr } = await ended("the program", program);
  assertEquals(status, 0, stdout + stderr);
  return stdout;
}

/** The client gets all that the server has sent. */
async function assertTransfers(server: Starter, client: Starter): Promise<void> {
  const rate = ["--rate", "1MB/s", "--overflow", "block", "--duration", "300ms"];
  const sending = server("--port", "0", ...rate, "--json");
  try {
    const [, port] = await within("listening", TRANSFER_MS, sending.saw(/"port":(\d+)/));
    const received = JSON.parse(await said(client(`127.0.0.1:${port}`, "--json")));
    const { event, bytes } = JSON.parse((await said(sending)).trim().split("\n").at(-1)!);
    assert(bytes > 0, "nothing was sent");
    assertEquals([event, received.ended, received.bytes], ["done", "eof", bytes]);
  } finally {
    sending.kill("SIGKILL");
  }
}

/** It starts itself as a reader, in both modes, and measures it. */
async function assertMeasuresItself(limit: Starter): Promise<void> {
  const page = join(folder, "page.html");
  const args = ["--max-rate", "100kB/s", "--json", "--html", page];
  const { stdout, stderr } = await ended("limit", limit(...args));
  assertMatch(stdout, /^\{.*\}\n$/, stderr);
  const { results } = JSON.parse(stdout) as {
    results: { reader: string; outcome: string; message: string; trials: { drained: number }[] }[];
  };
  assertEquals(results.map(({ reader }) => reader.split(",")[0]), [
    "client --mode naive",
    "client --mode drain",
  ]);
  // uPlot is in the bundle: there is no node_modules here.
  assertMatch(readFileSync(page, "utf8"), /<!doctype html>[\s\S]*uPlot=function/);
  rmSync(page);
  for (const { outcome, message, trials } of results) {
    // On a machine that others use, a trial may be inconclusive, however it was built.
    assert(outcome !== "reader-failed", message);
    assert(trials[0]!.drained > 0, "nothing was drained");
  }
}

/** All commands in one program. */
async function assertIsSpeedlimit(program: Starter): Promise<void> {
  assertEquals(await said(program("--version")), `${manifest.version}\n`);
  assertStringIncludes(await said(program("--help")), "speedlimit COMMAND [OPTIONS]");
  for (const command of ["limit", "map", "report", "serve", "client"]) {
    assertStringIncludes(await said(program(command, "--help")), `  speedlimit ${command} [`);
  }
  await assertTransfers(
    (...args) => program("serve", ...args),
    (...args) => program("client", ...args),
  );
  await assertMeasuresItself((...args) => program("limit", ...args));
}

describe("a bundle", () => {
  for (const name of ["server", "client", "limit", "map", "report"]) {
    test(`${name}.js is this one command`, async () => {
      // Every command is in limit.js, and all of them would be main.
      assertMatch(
        await said(bundle(`${name}.js`)("--help")),
        new RegExp(`^  ${name}\\.js \\[`, "m"),
      );
      const { status, stdout, stderr } = await ended(name, bundle(`${name}.js`)("--nonsense"));
      const line = `${name}: unknown option "--nonsense" (see --help)\n`;
      assertEquals([status, stdout, stderr], [2, "", line]);
    });
  }

  test("of the server sends to the one of the client", () =>
    assertTransfers(bundle("server.js"), bundle("client.js")));

  test("of limit measures itself", () => assertMeasuresItself(bundle("limit.js")));

  test("of all commands runs each", () => assertIsSpeedlimit(bundle("speedlimit.js")));

  test("of all commands refuses what is none", async () => {
    const refuses = async (args: string[], message: string) => {
      const { status, stdout, stderr } = await ended("it", bundle("speedlimit.js")(...args));
      assertEquals([status, stdout, stderr], [2, "", `speedlimit: ${message} (see --help)\n`]);
    };
    await refuses([], "no command: must be limit, map, plan, report, serve, client or queue");
    await refuses(
      ["server"],
      'COMMAND "server" must be limit, map, plan, report, serve, client or queue; did you mean serve?',
    );
    await refuses(["--verson"], 'unknown option "--verson"; did you mean --version?');
    await refuses(["serve", "--prot=1"], 'unknown option "--prot"; did you mean --port?');
  });

  test("runs on the Node of this machine", async (t) => {
    const node = nodeOfMachine();
    if (runtime !== "node") return skip(t, "the run on Node tries the machine's Node as well");
    if (node === undefined) return skip(t, "there is no Node on PATH but the one of node_modules");
    console.log(`  ${node}: ${(await said(new Program(node, ["--version"], {}))).trim()}`);
    const program: Starter = (...args) =>
      new Program(node, [join(dist, "speedlimit.js"), ...args], {
        cwd: folder,
        timeoutMs: LIMIT_MS,
      });
    await assertIsSpeedlimit(program);
  });
});

/** The first `node` on PATH that is not of some node_modules: often an older one than ours. */
function nodeOfMachine(): string | undefined {
  return (process.env.PATH ?? "").split(delimiter)
    .filter((each) => each !== "" && !each.includes("node_modules"))
    .map((each) => join(each, "node")).find((file) => existsSync(file));
}

test("the executable runs each command", async (t) => {
  if (runtime !== "bun") return skip(t, "the executable is Bun's: the run on Bun tries it");
  await assertIsSpeedlimit((...args) =>
    new Program(join(dist, "speedlimit"), args, { cwd: folder, timeoutMs: LIMIT_MS })
  );
});

describe("the package", () => {
  const why = "a package is the same for all: the run on Node installs it";
  /** Where it is installed; undefined: it is not. */
  let installed: string | undefined;

  before(async () => {
    if (runtime !== "node") return;
    const archive = join(folder, `speedlimit-${manifest.version}.tgz`);
    const place = join(folder, "elsewhere");
    mkdirSync(place);
    writeFileSync(join(place, "package.json"), '{ "type": "module" }');
    // No network: what it depends on comes from a folder.
    const dependency = join(ROOT, "node_modules/deno-std");
    await npm(["install", "--offline", "--install-links", archive, dependency], place);
    installed = place;
  });

  test("brings the program, the library and its types, and no runtime", (t) => {
    if (installed === undefined) return skip(t, why);
    assertEquals(readdirSync(join(installed, "node_modules/.bin")), ["speedlimit"]);
    const modules = readdirSync(join(installed, "node_modules")).filter((name) => name[0] !== ".");
    assertEquals(modules.sort(), ["deno-std", "speedlimit"]);
    const own = readdirSync(join(installed, "node_modules/speedlimit/dist")).sort();
    assertEquals(own, [
      "client.js",
      "limit.js",
      "map.js",
      "mod.js",
      "plan.js",
      "queue.js",
      "report.js",
      "server.js",
      "speedlimit.js",
      "types",
    ]);
  });

  test("runs as npx speedlimit", async (t) => {
    if (installed === undefined) return skip(t, why);
    const { stdout } = await npm(["exec", "--offline", "--", "speedlimit", "--version"], installed);
    assertEquals(stdout, `${manifest.version}\n`);
    const file = join(installed, "node_modules/.bin/speedlimit");
    await assertIsSpeedlimit((...args) =>
      new Program(file, args, { cwd: installed!, timeoutMs: LIMIT_MS })
    );
  });

  test("measures the article's reader, which it brings", async (t) => {
    if (installed === undefined) return skip(t, why);
    const reader = "node_modules/speedlimit/bench/readers/naive.py";
    const args = ["limit", "--max-rate", "100kB/s", "--json"];
    const command = ["--", "python3", reader, "{host}", "{port}"];
    const program = new Program("python3", ["--version"], {});
    if ((await ended("python3", program)).status !== 0) return skip(t, "there is no python3");
    const file = join(installed, "node_modules/.bin/speedlimit");
    const limit = new Program(file, [...args, ...command], {
      cwd: installed,
      timeoutMs: LIMIT_MS,
    });
    const { stdout, stderr } = await ended("limit", limit);
    assertMatch(stdout, /^\{.*\}\n$/, stderr);
    const { outcome, message } = JSON.parse(stdout);
    assert(outcome !== "reader-failed", message);
  });

  test("can be imported on every runtime", async (t) => {
    if (installed === undefined) return skip(t, why);
    const program = join(installed, "use.js");
    writeFileSync(
      program,
      `import { drain, serve, textMessage } from "speedlimit";
      const server = await serve({ port: 0, message: textMessage("tick\\n"), rate: 1000, durationMs: 100 });
      const { ended, bytes } = await drain({ port: server.address.port });
      await server.done;
      console.log(ended, bytes > 0 && bytes % 5 === 0);
      process.exit();`,
    );
    for (const each of ["deno", "bun", "node"] satisfies Runtime[]) {
      if (!hasRuntime(each)) console.log(`  left out: ${each} is not installed here`);
      else {assertEquals(
          await said(start([program], { runtime: each, cwd: installed })),
          "eof true\n",
        );}
    }
  });

  test("has types", async (t) => {
    if (installed === undefined) return skip(t, why);
    if (!hasRuntime("deno")) return skip(t, "Deno, which checks types, is not installed here");
    writeFileSync(
      join(installed, "use.ts"),
      `import { findLimit, type LimitResult, textMessage } from "speedlimit";
      const result: LimitResult = await findLimit({ message: textMessage("tick\\n") });
      export const lower: number | undefined = result.limit?.lower;
      // @ts-expect-error: there is no such option
      await findLimit({ message: textMessage("tick\\n"), speed: 1 });`,
    );
    const deno = join(ROOT, "node_modules/.bin/deno");
    await said(new Program(deno, ["check", "use.ts"], { cwd: installed, timeoutMs: LIMIT_MS }));
  });
});
