/** What the commands that start readers, or wait for them, have in common. */
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import process from "node:process";
import type { Address } from "../kernel/address.ts";
import { type ReaderPoolOptions, STOP_TIMEOUT_SECONDS } from "../measure/reader_pool.ts";
import { parseScript, type Script, ScriptError } from "../send/script.ts";
import { parseDuration, parseHostPort, UnitError } from "../text/units.ts";
import { option, UsageError } from "./command_line.ts";

const LISTEN_OPTION = option({
  value: "HOST:PORT",
  help: "address for readers to connect to; port 0: any free port (default 127.0.0.1:0)",
  parse: (text) => parseHostPort(text, { least: 0 }),
});

const CONNECT_OPTION = option({
  value: "HOST:PORT",
  help: "connects to a reader that listens there, instead of waiting for one to connect; port 0: " +
    "a free port, which {port} in its command stands for",
  parse: (text) => parseHostPort(text, { least: 0 }),
});

const SCRIPT_OPTION = option({
  value: "FILE",
  help: "what to say to the reader, and what it must say, before the first message and between " +
    "messages",
  parse: readScript,
});

/** How a connection with the reader comes about. Pass the values to `chooseConnection`. */
export const CONNECTION_OPTIONS = {
  listen: LISTEN_OPTION,
  connect: CONNECT_OPTION,
  script: SCRIPT_OPTION,
};

interface ConnectionChoice {
  listen?: Address | undefined;
  connect?: Address | undefined;
  script?: Script | undefined;
}

/** Throws a UsageError. */
export function chooseConnection(
  { listen, connect, script }: ConnectionChoice,
): Partial<Pick<ReaderPoolOptions, "host" | "port" | "connect" | "script">> {
  if (connect !== undefined && listen !== undefined) throw new UsageError(excludes("--listen"));
  return {
    ...listen,
    ...(connect === undefined ? {} : { connect }),
    ...(script === undefined ? {} : { script }),
  };
}

/** Why `--connect` excludes that option. */
export const excludes = (other: string): string =>
  `--connect and ${other} exclude each other: either we connect to the reader, or it to us`;

/** Throws a UnitError. */
function readScript(path: string): Script {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new UnitError(`cannot be read: ${(error as Error).message}`);
  }
  try {
    return parseScript(text);
  } catch (error) {
    if (error instanceof ScriptError) throw new UnitError(error.message);
    throw error;
  }
}

export const STOP_TIMEOUT_OPTION = option({
  value: "TIME",
  help: "time between SIGTERM and SIGKILL for a reader that was started",
  default: `${STOP_TIMEOUT_SECONDS}s`,
  parse: (text) => parseDuration(text, { least: 0 }),
});

/**
 * `npm run` and `deno task` run in the checkout, from whichever folder they were called: a relative
 * path in the reader's command means the caller's folder, which both name in INIT_CWD.
 */
export function callersFolder(): { folder?: string } {
  try {
    const folder = process.env.INIT_CWD;
    const checkout = resolve(import.meta.dirname!, "../..");
    return folder !== undefined && process.cwd() === checkout ? { folder } : {};
  } catch {
    // Deno without --allow-env.
    return {};
  }
}
