/**
 * Runs a command as a process: exit statuses, signals, and a standard output that may be closed early.
 *
 * Exit statuses: 0 success, 1 failure, 2 invalid command line, 130 interrupted.
 */
import process from "node:process";
import { exitWithoutWaiting } from "../kernel/node_exit.ts";
import { type EndingSignal, isIgnored } from "../kernel/process_end.ts";
import { HelpRequest, UsageError } from "./command_line.ts";
import { formatLines, type Level, type LineFormat } from "./line_format.ts";

/** A command: takes its arguments, returns its exit status (nothing: 0). */
export type Main = (args: string[]) => number | void | Promise<number | void>;

/**
 * The longest wait for output to be written after an error. If the error is the output's own, the wait
 * may never end: when the disk is full, Deno 2.9.6 throws from write and never calls back.
 */
const FLUSH_TIMEOUT_MS = 1000;
/** The same at the end of a service. */
const SERVICE_FLUSH_TIMEOUT_MS = 5000;

const stop = new AbortController();
let signalsHandled = false;
/** The signal that came first. */
let firstSignal: EndingSignal | undefined;
/** The program runs until it is told to end: see `service`. */
let isService = false;
/** For its messages. */
let programName = "";
let lineFormat: LineFormat = "plain";
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
  handleSignals(["SIGINT", "SIGTERM"]);
  return stop.signal;
}

/** How a service is told to end. */
export interface ServiceEnd {
  /** Aborted by the first signal that ends the service. */
  readonly signal: AbortSignal;
  /** The exit status: 130 after SIGINT, else 0. */
  status(): number;
}

/**
 * In place of `interrupted`, for a program that runs until it is told to end. Supervisors do that with
 * SIGTERM, a terminal that is closed with SIGHUP: both are an ordinary end, with the exit status 0. A
 * SIGHUP that the process was started to ignore, as by nohup, stays ignored (not on Node, which does
 * not know of it). The second signal ends the process at once with 130. The program goes on when
 * standard output or standard error is closed.
 */
export function service(): ServiceEnd {
  isService = true;
  handleSignals(["SIGINT", "SIGTERM", "SIGHUP"]);
  return { signal: stop.signal, status: endStatus };
}

/** The exit status of a program that ends as it was told to. */
function endStatus(): number {
  if (isService && firstSignal !== "SIGINT") return 0;
  return stop.signal.aborted ? 130 : 0;
}

function handleSignals(signals: readonly EndingSignal[]): void {
  if (signalsHandled) return;
  signalsHandled = true;
  // Deno no longer ignores a signal once there is a listener for any of them.
  const hangupIgnored = isIgnored("SIGHUP");
  for (const signal of signals) {
    process.on(signal, () => {
      if (signal === "SIGHUP" && hangupIgnored) return;
      if (stop.signal.aborted) process.exit(130);
      firstSignal = signal;
      stop.abort();
    });
  }
}

/** Writes one line to standard output: results. Does nothing once standard output is closed. */
export function printLine(line: string): void {
  write(process.stdout, `${line}\n`);
}

/** From now on lines for people, which `infoLine` and `logLine` write, begin in this way. */
export function setLineFormat(format: LineFormat): void {
  lineFormat = format;
}

/** Writes one line for people to standard output: what happens. Does nothing once it is closed. */
export function infoLine(line: string): void {
  printLine(formatLines(line, "info", lineFormat));
}

/** Writes one line to standard error: progress and errors. Does nothing once it is closed. */
export function logLine(line: string, level: Level = "warn"): void {
  write(process.stderr, `${formatLines(line, level, lineFormat)}\n`);
}

function write(stream: NodeJS.WriteStream, text: string): void {
  if (closedOutputs.has(stream)) return;
  try {
    stream.write(text);
  } catch (error) {
    // Deno throws when the disk is full (2.9.5).
    if (!isService) throw error;
    if (stream === process.stdout) onOutputError(error as Error);
    else closedOutputs.add(stream);
  }
}

/**
 * Runs a command and ends the process with its exit status. Errors are printed as one line, `name:
 * message`, on standard error: a UsageError exits with 2, any other error with 1. With
 * SPEEDLIMIT_DEBUG=1 in the environment the stack follows. A HelpRequest is printed and exits with 0.
 */
export async function runMain(name: string, main: Main): Promise<never> {
  programName = name;
  const onUncaught = (error: unknown) => void exit(fail(name, error), FLUSH_TIMEOUT_MS);
  process.stdout.on("error", onOutputError);
  process.stderr.on("error", () => closedOutputs.add(process.stderr));
  process.on("uncaughtException", onUncaught);
  process.on("unhandledRejection", onUncaught);
  let status: number;
  try {
    await exitWithoutWaiting();
    status = await main(process.argv.slice(2)) ?? 0;
  } catch (error) {
    return await exit(fail(name, error), FLUSH_TIMEOUT_MS);
  }
  // A service that is told to end does so, also where nobody empties the pipe that it prints to.
  return await exit(status, isService ? SERVICE_FLUSH_TIMEOUT_MS : undefined);
}

function onOutputError(error: NodeJS.ErrnoException): void {
  if (closedOutputs.has(process.stdout)) return;
  closedOutputs.add(process.stdout);
  if (isService) {
    const why = error.code === "EPIPE" ? "nobody reads it any more" : oneLine(error.message);
    return logLine(`${programName}: cannot write to standard output: ${why}; going on without it`);
  }
  stop.abort();
  // A reader such as `head -1` that closes the pipe is not an error.
  if (error.code === "EPIPE") return;
  fail(programName, new Error(`cannot write to standard output: ${error.message}`));
}

/** Prints an error, or a requested help text. Returns the exit status. */
function fail(name: string, error: unknown): number {
  if (error instanceof HelpRequest) {
    write(process.stdout, error.message);
    return 0;
  }
  // The program was interrupted. Node and Bun wrap the signal's reason in their own AbortError.
  if (stop.signal.aborted && (error as Error | undefined)?.name === "AbortError") {
    return endStatus();
  }
  // A user's handler may throw from several timers before the process has ended.
  if (failureStatus !== undefined) return failureStatus;
  const usage = error instanceof UsageError;
  failureStatus = usage ? 2 : 1;
  const text = error instanceof Error ? error.message || error.name : String(error);
  logLine(`${name}: ${oneLine(text)}${usage ? " (see --help)" : ""}`, "error");
  if (debugging() && error instanceof Error) logLine(error.stack ?? "", "error");
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
  // A reader such as `head -1` has interrupted the program: that is no failure.
  const endedByOutput = closedOutputs.has(process.stdout) && !isService && status === 130;
  process.exit(failureStatus ?? (endedByOutput ? 0 : status));
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
