/** The end of a process on Node, which does not wait for its threads. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { assert, assertEquals } from "#std/assert";
import { runtime } from "../src/kernel/runtime.ts";
import { ROOT, start } from "./process.ts";
import { skip } from "./skip.ts";
import { within } from "./within.ts";

/** Its thread waits for a minute in a call that nothing ends; Node would wait for the thread. */
const PROGRAM = `
import { writeFileSync } from "node:fs";
import { Worker } from "node:worker_threads";
import { runMain } from ${JSON.stringify(`${ROOT}/src/cli/program.ts`)};
process.on("exit", (status) => writeFileSync("exit", String(status)));
await runMain("test", async () => {
  const text = \`
    const { functions } = process.getBuiltinModule("node:ffi")
      .dlopen("libc.so.6", { sleep: { arguments: ["u32"], return: "u32" } });
    require("node:worker_threads").parentPort.postMessage(0);
    functions.sleep(60);
  \`;
  const worker = new Worker(text, { eval: true });
  await new Promise((resolve) => worker.once("message", resolve));
  return 7;
});
`;

test("a process ends though one of its threads does not", async (t) => {
  if (runtime !== "node") return skip(t, "only Node waits for its threads");
  const folder = mkdtempSync(join(tmpdir(), "speedlimit-exit-"));
  try {
    const file = join(folder, "program.mjs");
    writeFileSync(file, PROGRAM);
    const { status, stderr } = await within(
      "its end",
      20_000,
      start([file], { cwd: folder }).ended,
    );
    assertEquals([status, stderr], [7, ""]);
    assertEquals(readFileSync(join(folder, "exit"), "utf8"), "7");
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("a process saves Node's cache of compiled code at its end", async (t) => {
  if (runtime !== "node") return skip(t, "only Node has this cache");
  const folder = mkdtempSync(join(tmpdir(), "speedlimit-exit-"));
  try {
    const env = { NODE_COMPILE_CACHE: folder };
    await within("its end", 20_000, start(["server.ts", "--help"], { env }).ended);
    const files = readdirSync(folder, { recursive: true });
    assert(files.length > 20, `${files.length} files`);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
