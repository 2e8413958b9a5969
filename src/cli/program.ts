/**
 * Runs a command as a process: exit statuses, signals, and a standard output that may be closed early.
 *
 * Exit statuses: 0 success, 1 failure, 2 invalid command line, 130 interrupted.
 */
import process from "node:process";
import { HelpRequest, UsageError } from "./command_line.ts";

/** A command: takes its arguments, returns its exit status (nothing: 0). */
export type Main = (args: string[]) => number | void | Promise<number | void>;

/**
 * The longest wait for output to be written after an error. If the error is the output's own, the wait
 * may never end: when the disk is full, Deno 2.9.6 throws from write and never calls back.
 */
const FLUSH_TIMEOUT_MS = 1000;

const stop = new AbortController();
let signalsHandled = false;
/** Output streams that have failed, mostly because nobody reads them any more. Nothing is written. */
const closedOutputs = new Set<NodeJS.WriteStream>();
/** The exit status of the first error. Only the first is printed: others may be caused by it. */
let failureStatus: number | undefined;

/**
 * A signal that is aborted by the first SIGINT or SIGTERM, so that the program can finish its work and
 * exit with 130; the second one ends the process at once. Also aborted when standard output is closed.
 * Handles signals from the first call on; returns the same signal every time.
 */
export function interrupted(): AbortSignal {
  if (signalsHandled) return stop.signal;
  signalsHandled = true;
  const onSignal = () => {
    if (stop.signal.aborted) process.exit(130);
    stop.abort();
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  return stop.signal;
}

/** Writes one line to standard output: results. Does nothing once standard output is closed. */
export function printLine(line: string): void {
  write(process.stdout, `${line}\n`);
}

/** Writes one line to standard error: progress and errors. Does nothing once it is closed. */
export function logLine(line: string): void {
  write(process.stderr, `${line}\n`);
}

function write(stream: NodeJS.WriteStream, text: string): void {
  if (!closedOutputs.has(stream)) stream.write(text);
}

/**
 * Runs a command and ends the process with its exit status. Errors are printed as one line, `name:
 * message`, on standard error: a UsageError exits with 2, any other error with 1. With
 * SPEEDLIMIT_DEBUG=1 in the environment the stack follows. A HelpRequest is printed and exits with 0.
 */
export async function runMain(name: string, main: Main): Promise<never> {
  const onUncaught = (error: unknown) => void exit(fail(name, error), FLUSH_TIMEOUT_MS);
  process.stdout.on("error", (error) => onOutputError(name, error));
  process.stderr.on("error", () => closedOutputs.add(process.stderr));
  process.on("uncaughtException", onUncaught);
  process.on("unhandledRejection", onUncaught);
  let status: number;
  try {
    status = await main(process.argv.slice(2)) ?? 0;
  } catch (error) {
    return await exit(fail(name, error), FLUSH_TIMEOUT_MS);
  }
  return await exit(status);
}

function onOutputError(name: string, error: NodeJS.ErrnoException): void {
  if (closedOutputs.has(process.stdout)) return;
  closedOutputs.add(process.stdout);
  stop.abort();
  // A reader such as `head -1` that closes the pipe is not an error.
  if (error.code === "EPIPE") return;
  fail(name, new Error(`cannot write to standard output: ${error.message}`));
}

/** Prints an error, or a requested help text. Returns the exit status. */
function fail(name: string, error: unknown): number {
  if (error instanceof HelpRequest) {
    write(process.stdout, error.message);
    return 0;
  }
  // The program was interrupted. Node and Bun wrap the signal's reason in their own AbortError.
  if (stop.signal.aborted && (error as Error | undefined)?.name === "AbortError") return 130;
  // A user's handler may throw from several timers before the process has ended.
  if (failureStatus !== undefined) return failureStatus;
  const usage = error instanceof UsageError;
  failureStatus = usage ? 2 : 1;
  const text = error instanceof Error ? error.message || error.name : String(error);
  logLine(`${name}: ${oneLine(text)}${usage ? " (see --help)" : ""}`);
  if (debugging() && error instanceof Error) logLine(error.stack ?? "");
  return failureStatus;
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

/** Ends the process once its output has been written, or after `timeoutMs`. */
async function exit(status: number, timeoutMs?: number): Promise<never> {
  if (timeoutMs !== undefined) setTimeout(() => process.exit(status), timeoutMs);
  await flushed(process.stdout);
  // After standard output, because an error of that is printed here.
  await flushed(process.stderr);
  process.exit(failureStatus ?? (closedOutputs.has(process.stdout) && status === 130 ? 0 : status));
}

/** Settles when all output is written. Bun 1.4.5 calls back write("", callback) too early for this. */
function flushed(stream: NodeJS.WriteStream): Promise<void> {
  // A stream that has failed never calls back.
  if (closedOutputs.has(stream)) return Promise.resolve();
  return new Promise((resolve) => {
    stream.once("error", () => resolve());
    stream.end(() => resolve());
  });
}
