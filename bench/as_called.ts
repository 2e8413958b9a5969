/**
 * Runs a benchmark of this folder on the runtime that was called: `bun run NAME` and `npm run NAME`
 * read the same script of package.json, and who says the one wants Bun measured, and not Node.
 *
 *     node --no-warnings bench/as_called.ts micro.ts --quick
 *
 * Bun sets `npm_config_user_agent` to `bun/...` for what it runs, unless it was itself called by npm.
 * (Not `bun run --bun`, which would also need to be known of; nor a file instead of the script: Bun
 * prefers the script, and npm has nothing but scripts.)
 */
import { spawn } from "node:child_process";
import process from "node:process";
import { commandOn } from "./programs.ts";

const called = process.env.npm_config_user_agent?.startsWith("bun/") ? "bun" : "node";
const [file, ...args] = process.argv.slice(2);
const [program, ...words] = commandOn(called, `bench/${file}`, ...args);
const child = spawn(program!, words, { stdio: "inherit" });
// A Ctrl-C reaches both; the one that measures ends in order, and this one with it.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => child.kill(signal));
child.on("error", (error) => {
  process.stderr.write(`${file}: cannot start ${program}: ${error.message}\n`);
  process.exitCode = 1;
});
child.on("close", (status) => process.exitCode = status ?? 1);
