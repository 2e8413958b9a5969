/** The help of every command: no line is wider than a terminal. */
import { globSync, readFileSync } from "node:fs";
import { describe, test } from "node:test";
import process from "node:process";
import { assertEquals, assertMatch, assertRejects } from "#std/assert";
import { main as client } from "../src/cli/client.ts";
import { HelpRequest } from "../src/cli/command_line.ts";
import { main as limit } from "../src/cli/limit.ts";
import { main as map } from "../src/cli/map.ts";
import { main as plan } from "../src/cli/plan.ts";
import { main as queue } from "../src/cli/queue.ts";
import { main as report } from "../src/cli/report.ts";
import { main as serve } from "../src/cli/server.ts";
import { main as speedlimit } from "../bin/speedlimit.ts";
import { ROOT, run } from "./process.ts";

const COLUMNS = 80;

type Main = (args: readonly string[], called?: string) => Promise<number>;

/** By the names that they are called by. */
const COMMANDS: Record<string, [main: Main, ...args: string[]]> = {
  "speedlimit": [speedlimit],
  "speedlimit limit": [limit],
  "speedlimit map": [map],
  "speedlimit plan": [plan],
  "speedlimit report": [report],
  "speedlimit serve": [serve],
  "speedlimit client": [client],
  "speedlimit queue": [queue],
  "speedlimit queue status": [queue, "status"],
  "speedlimit queue check": [queue, "check"],
  "speedlimit queue export": [queue, "export"],
  "speedlimit queue repair": [queue, "repair"],
  "server.ts": [serve],
  "client.ts": [client],
  "bin/limit.ts": [limit],
  "bin/map.ts": [map],
  "bin/plan.ts": [plan],
  "bin/report.ts": [report],
  "bin/queue.ts": [queue],
};

/** Programs of bench/ and tools/ that take options. */
const PROGRAMS = globSync("{bench,bench/peers,tools}/*.ts", { cwd: ROOT }).sort()
  .filter((file) => readFileSync(`${ROOT}/${file}`, "utf8").includes("runMain("));

function assertHelp(text: string, name: string): void {
  assertMatch(text, /\n\nUsage:\n {2}\S/, name);
  assertMatch(text, /\n {2}--help, -h /, name);
  const wide = text.split("\n").filter((line) => line.length > COLUMNS);
  assertEquals(wide, [], `${name} --help is wider than ${COLUMNS} columns`);
}

describe("--help fits 80 columns", () => {
  for (const [name, [main, ...args]] of Object.entries(COMMANDS)) {
    test(`of ${name}`, async () => {
      const called = name.split(" ").slice(0, 2).join(" ");
      const { message } = await assertRejects(() => main([...args, "--help"], called), HelpRequest);
      assertHelp(message, name);
    });
  }

  for (const file of PROGRAMS) {
    test(`of ${file}`, async () => {
      // tools/build.ts is Node's; the others run on each.
      const { status, stdout, stderr } = await run([file, "--help"], {
        ...(file.startsWith("tools/") ? { runtime: "node" } : {}),
        env: { PATH: process.env.PATH ?? "" },
      });
      assertEquals([status, stderr], [0, ""]);
      assertHelp(stdout, file);
    });
  }
});
