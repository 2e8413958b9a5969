/** What is published, without publishing: versions, and the files of the npm and JSR packages and of the image. */
import { after, before, describe, test } from "node:test";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, normalize } from "node:path";
import { assert, assertEquals } from "#std/assert";
import { runtime } from "../src/kernel/runtime.ts";
import { hasRuntime, Program, ROOT, type RunResult } from "./process.ts";

const LONGEST_MS = 60_000;

const read = (name: string): string => readFileSync(join(ROOT, name), "utf8");
const manifest = JSON.parse(read("package.json")) as {
  version: string;
  scripts: Record<string, string>;
};

/** Runs a program of another project; its exit status must be 0. */
async function runs(
  program: string,
  args: readonly string[],
  { cwd = ROOT, env = {} }: { cwd?: string; env?: Record<string, string> } = {},
): Promise<RunResult> {
  const result = await new Program(program, args, { cwd, env, timeoutMs: LONGEST_MS }).ended;
  assertEquals(result.status, 0, result.stdout + result.stderr);
  return result;
}

test("package.json, package-lock.json, deno.json and the changelog name the same version", () => {
  const lock = JSON.parse(read("package-lock.json"));
  assertEquals([lock.version, lock.packages[""].version], [manifest.version, manifest.version]);
  assertEquals(JSON.parse(read("deno.json")).version, manifest.version);
  const headings = [...read("CHANGELOG.md").matchAll(/^## (\S+)/gm)].map(([, name]) => name);
  // Before the first release all changes are unreleased.
  const [newest = manifest.version] = headings.filter((name) => name !== "Unreleased");
  assert(headings.length > 0, "the changelog has no version");
  assertEquals(newest, manifest.version);
});

describe("the npm package", { skip: runtime !== "node" && "the same on every runtime" }, () => {
  let files: string[] = [];

  before(async () => {
    // Without prepack: what is built is tested in build_test.ts.
    const args = ["pack", "--dry-run", "--json", "--ignore-scripts"];
    const { stdout } = await runs("npm", args);
    const packages = Object.values(
      JSON.parse(stdout) as Record<string, { files: { path: string }[] }>,
    );
    files = packages[0]!.files.map(({ path }) => path);
  });

  test("has the sources, the readers and the documents", () => {
    const needed = ["README.md", "LICENSE", "CHANGELOG.md", "SECURITY.md", "mod.ts", "server.ts"];
    const sources = ["bin/limit.ts", "src/types/std_cli.d.ts", "bench/readers/naive.py"];
    for (const name of [...needed, ...sources]) assert(files.includes(name), `${name} is missing`);
    assertEquals(
      files.filter((name) => /^(test|tools|\.|docs|bench\/(?!readers\/))/.test(name)),
      [],
    );
  });

  test("has every module that its TypeScript imports", () => {
    for (const name of files.filter((file) => file.endsWith(".ts") && !file.startsWith("dist/"))) {
      for (
        const [, path] of read(name).matchAll(/^(?:\} |import |export ).*"(\.{1,2}\/[^"]+)"/gm)
      ) {
        const imported = normalize(join(dirname(name), path!));
        assert(
          files.includes(imported),
          `${name} imports ${imported}, which is not in the package`,
        );
      }
    }
  });

  test("runs nothing when it is installed", () => {
    const names = ["preinstall", "install", "postinstall", "prepare"];
    assertEquals(names.filter((name) => name in manifest.scripts), []);
  });
});

// deno.json makes this a JSR package, which may have no slow types: `deno lint` checks that, too.
test("deno publish accepts the JSR package, without a network", async (t) => {
  if (runtime !== "node") return t.skip("the same on every runtime");
  if (!hasRuntime("deno")) return t.skip("no deno in node_modules");
  const cache = mkdtempSync(join(tmpdir(), "speedlimit-jsr-"));
  try {
    const nowhere = "http://127.0.0.1:9";
    const { stdout, stderr } = await runs(
      join(ROOT, "node_modules/.bin/deno"),
      ["publish", "--dry-run", "--allow-dirty"],
      { env: { DENO_DIR: cache, HTTP_PROXY: nowhere, HTTPS_PROXY: nowhere } },
    );
    const listed = [...(stdout + stderr).matchAll(/^ +file:\/\/(\S+) \(/gm)];
    const names = listed.map(([, path]) => path!.slice(ROOT.length + 1));
    for (const name of ["mod.ts", "server.ts", "client.ts", "README.md", "LICENSE"]) {
      assert(names.includes(name), `${name} is missing`);
    }
    assertEquals(names.filter((name) => /^(test|tools|bench|bin|\.)/.test(name)), []);
  } finally {
    rmSync(cache, { recursive: true });
  }
});

describe("the Dockerfile", { skip: runtime !== "node" && "the same on every runtime" }, () => {
  const context = mkdtempSync(join(tmpdir(), "speedlimit-image-"));
  after(() => rmSync(context, { recursive: true }));

  /** What .dockerignore leaves of this folder: `*` and then what is not ignored. */
  const kept = read(".dockerignore").split("\n").filter((line) => line.startsWith("!"))
    .map((line) => line.slice(1));

  test("copies only what exists and is not ignored", () => {
    assertEquals(kept.filter((name) => !existsSync(join(ROOT, name))), []);
    const copied = [...read("Dockerfile").matchAll(/^COPY (?!--from)(.*) \S+$/gm)]
      .flatMap(([, sources]) => sources!.split(" ")).filter((name) => name !== ".");
    assert(copied.length > 0, "no COPY was found");
    assertEquals(copied.filter((name) => !kept.includes(name)), []);
  });

  test("copies all that the build needs", async () => {
    for (const name of kept) cpSync(join(ROOT, name), join(context, name), { recursive: true });
    symlinkSync(join(ROOT, "node_modules"), join(context, "node_modules"));
    await runs("npm", ["run", "build", "--", "--package"], { cwd: context });
    assert(existsSync(join(context, "dist/speedlimit.js")), "dist/speedlimit.js was not made");
  });
});
