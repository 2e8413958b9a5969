/** client.ts as a process, against servers of the test's own process. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "#std/assert";
import type { Connection } from "../src/net/net.ts";
import { loadAdapter } from "../src/net/load.ts";
import { formatHostPort } from "../src/text/units.ts";
import { withServer } from "./peer.ts";
import { run, type RunOptions, type RunResult } from "./process.ts";

export const net = await loadAdapter();
/** Runs the client against a server of this process whose every connection goes to `serve`. */
export const served = <T>(
  serve: (connection: Connection) => unknown,
  use: (server: string) => Promise<T>,
  host?: string,
): Promise<T> => withServer(serve, (address) => use(formatHostPort(address)), host);

export const client = (args: readonly string[], options?: RunOptions): Promise<RunResult> =>
  run(["client.ts", ...args], options);

/** A port where nobody listens. */
export const freePort = (): Promise<string> =>
  served(() => {}, (server) => Promise.resolve(server));

export function assertOneLine(text: string): void {
  assertMatch(text, /^[^\n]+\n$/);
}

/** Exits with this status, nothing on stdout, and one line on stderr that says this. */
export function assertFails(result: RunResult, status: number, message: string): void {
  assertStringIncludes(result.stderr, message);
  assertEquals([result.status, result.stdout], [status, ""], result.stderr);
  assertOneLine(result.stderr.replace(/^connected to .*\n/, ""));
  assert(result.stderr.split("\n").some((line) => line.startsWith("client: ")), result.stderr);
}

/** Handlers, each a file in a folder that is there only while `use` runs. */
export async function withFiles<T>(
  files: Record<string, string>,
  use: (folder: string) => Promise<T>,
): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), "speedlimit-client-"));
  try {
    for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
    return await use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
