/** Calls back when this process is about to end, in every way in which it can still do something. */
import { readFileSync } from "node:fs";
import process from "node:process";

/** Those whose default action ends the process, and that people and supervisors send to end it. */
const SIGNALS = { SIGHUP: 1, SIGINT: 2, SIGQUIT: 3, SIGTERM: 15 } as const;
export type EndingSignal = keyof typeof SIGNALS;

/**
 * Calls `act` when this process is about to end: by `process.exit`, because it has nothing left to
 * do, by an error that nobody catches, or by SIGHUP, SIGINT, SIGQUIT or SIGTERM. A program that
 * handles such a signal or such errors decides itself when it ends. SIGKILL gives no time for
 * anything. `act` must not wait for anything, and may be called more than once. Returns a function
 * that undoes this.
 */
export function onProcessEnd(act: () => void): () => void {
  const onSignal = (signal: NodeJS.Signals) => {
    // Another listener means that the program handles it, and goes on for as long as it likes.
    if (process.listenerCount(signal) > 1) return;
    act();
    stop();
    // The default action now: whoever started this program sees that the signal ended it.
    process.kill(process.pid, signal);
  };
  // Deno emits no `exit` for an uncaught error (2.9.6), but tells of the error first.
  const onError = () => {
    if (process.listenerCount("uncaughtException") === 0) act();
  };
  // Deno.exit emits only this one.
  const target = globalThis as
    & Partial<Pick<EventTarget, "addEventListener">>
    & Partial<Pick<EventTarget, "removeEventListener">>;
  // A signal that this process ignores remains ignored.
  const signals = (Object.keys(SIGNALS) as EndingSignal[]).filter((signal) => !isIgnored(signal));
  const stop = () => {
    process.removeListener("exit", act);
    process.removeListener("uncaughtExceptionMonitor", onError);
    target.removeEventListener?.("unload", act);
    for (const signal of signals) process.removeListener(signal, onSignal);
  };
  process.on("exit", act);
  process.on("uncaughtExceptionMonitor", onError);
  target.addEventListener?.("unload", act);
  for (const signal of signals) process.on(signal, onSignal);
  return stop;
}

let ignored: bigint | undefined;

/**
 * Whether this process was started to ignore the signal, as SIGHUP under nohup. To be called before the
 * first signal listener: Deno then ignores no signal any more (2.9.5). On Node always false, because
 * Node stops ignoring signals when it starts. On Bun a signal without a listener remains ignored.
 */
export function isIgnored(signal: EndingSignal): boolean {
  ignored ??= ignoredSignals();
  return (ignored >> BigInt(SIGNALS[signal] - 1) & 1n) === 1n;
}

/** A bit for each, from signal 1 on (proc_pid_status(5)). */
function ignoredSignals(): bigint {
  try {
    const status = readFileSync("/proc/self/status", "latin1");
    return BigInt(`0x${/^SigIgn:\s*([0-9a-f]+)$/m.exec(status)![1]}`);
  } catch {
    return 0n;
  }
}
