/**
 * Runs a benchmark of this folder on the runtime of the package manager that called it: on Bun for
 * `bun run NAME`, on Node for `npm run NAME`. Both read the same script of package.json.
 *
 *     node --no-warnings bench/as_called.ts micro.ts --quick
 *
 * Bun sets `npm_config_user_agent` to `bun/...` for the scripts that it runs, unless npm has called
 * it. Users would have to know `bun run --bun`, and naming a file instead of a script does not
 * help: Bun prefers the script of that name, and npm only runs scripts.
 */
import { spawn } from "node:child_process";
import process from "node:process";
import { commandOn } from "./programs.ts";

const called = process.env.npm_config_user_agent?.startsWith("bun/") ? "bun" : "node";
const [file, ...args] = process.argv.slice(2);
const [program, ...words] = commandOn(called, `bench/${file}`, ...args);
const child = spawn(program!, words, { stdio: "inherit" });
// Ctrl-C reaches both processes: the child ends in an orderly way, and this process after it.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => child.kill(signal));
child.on("error", (error) => {
  process.stderr.write(`${file}: cannot start ${program}: ${error.message}\n`);
  process.exitCode = 1;
});
child.on("close", (status) => process.exitCode = status ?? 1);
