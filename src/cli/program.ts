/**
 * A command as a process: exit statuses, signals, and a standard output that may go away.
 *
 * 0: done. 1: it could not be done. 2: the command line is wrong. 130: interrupted.
 */
import process from "node:process";
import { HelpRequest, UsageError } from "./command_line.ts";

/** What a command gets, and the status that it ends with (0 when it returns nothing). */
export type Main = (args: string[]) => number | void | Promise<number | void>;

/**
 * How long what is written may take to leave after an error, which may have been the output's own:
 * Deno 2.9.6 throws a full disk from write, and then never calls back.
 */
const LOST_MS = 1000;

const stop = new AbortController();
let listening = false;
/** Those of our outputs that nobody reads any more; what is written to them is lost. */
const gone = new Set<NodeJS.WriteStream>();
/** The status of the first error: that one is told, what follows from it is not. */
let failure: number | undefined;

/**
 * A signal that the first SIGINT or SIGTERM aborts, so that the program can end in order and exit
 * 130; the second one ends it at once. It aborts too when nobody reads standard output any more.
 * From the first call on; the same signal each time.
 */
export function interrupted(): AbortSignal {
  if (listening) return stop.signal;
  listening = true;
  const onSignal = () => {
    if (stop.signal.aborted) process.exit(130);
    stop.abort();
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  return stop.signal;
}

/** Writes one line to standard output. Nothing happens once its reader has gone. */
export function print(line: string): void {
  say(process.stdout, `${line}\n`);
}

/** Writes one line of progress to standard error. */
export function report(line: string): void {
  say(process.stderr, `${line}\n`);
}

function say(stream: NodeJS.WriteStream, text: string): void {
  if (!gone.has(stream)) stream.write(text);
}

/**
 * Runs a command and ends the process: the one place where errors become exit statuses. A
 * UsageError exits 2, any other error 1, each with one line `name: message` on standard error;
 * SPEEDLIMIT_DEBUG=1 in the environment adds the stack. A HelpRequest is printed and exits 0.
 */
export async function runMain(name: string, main: Main): Promise<never> {
  const onLost = (error: unknown) => void exit(fail(name, error), LOST_MS);
  process.stdout.on("error", (error) => onOutputError(name, error));
  process.stderr.on("error", () => gone.add(process.stderr));
  process.on("uncaughtException", onLost);
  process.on("unhandledRejection", onLost);
  let status: number;
  try {
    status = await main(process.argv.slice(2)) ?? 0;
  } catch (error) {
    return await exit(fail(name, error), LOST_MS);
  }
  return await exit(status);
}

function onOutputError(name: string, error: NodeJS.ErrnoException): void {
  if (gone.has(process.stdout)) return;
  gone.add(process.stdout);
  stop.abort();
  // `| head -1` is no error: what is left to say has nobody to say it to.
  if (error.code === "EPIPE") return;
  fail(name, new Error(`cannot write to standard output: ${error.message}`));
}

/** Says what went wrong; the exit status for it. */
function fail(name: string, error: unknown): number {
  if (error instanceof HelpRequest) {
    say(process.stdout, error.message);
    return 0;
  }
  // Node and Bun wrap the signal's reason in an AbortError of their own.
  if (stop.signal.aborted && (error as Error | undefined)?.name === "AbortError") return 130;
  // A handler of the user's may throw from many timers before the first has ended it.
  if (failure !== undefined) return failure;
  const usage = error instanceof UsageError;
  failure = usage ? 2 : 1;
  const text = error instanceof Error ? error.message || error.name : String(error);
  report(`${name}: ${oneLine(text)}${usage ? " (see --help)" : ""}`);
  if (debugging() && error instanceof Error) report(error.stack ?? "");
  return failure;
}

const oneLine = (text: string) => text.trim().replace(/\s*[\r\n]+\s*/g, " ");

function debugging(): boolean {
  try {
    return process.env.SPEEDLIMIT_DEBUG === "1";
  } catch {
    // Deno without --allow-env.
    return false;
  }
}

/** Ends the process once its output has left, or after so many ms. */
async function exit(status: number, longest?: number): Promise<never> {
  if (longest !== undefined) setTimeout(() => process.exit(status), longest);
  await flushed(process.stdout);
  // Second, for what the first may have to say.
  await flushed(process.stderr);
  process.exit(failure ?? (gone.has(process.stdout) && status === 130 ? 0 : status));
}

/** When all that was written has left. Not write("", callback): Bun 1.4.5 calls that back at once. */
function flushed(stream: NodeJS.WriteStream): Promise<void> {
  // A stream that has failed never calls back.
  if (gone.has(stream)) return Promise.resolve();
  return new Promise((resolve) => {
    stream.once("error", () => resolve());
    stream.end(() => resolve());
  });
}
