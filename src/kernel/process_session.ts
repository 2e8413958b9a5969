/**
 * The sessions (setsid(2)) that this process has started. None of them outlives it: what is left when
 * it ends is killed (process_end.ts tells in which ways it may end).
 */
import process from "node:process";
import { onProcessEnd } from "./process_end.ts";
import { type ProcessStat, readProcesses, stillRuns } from "./proc_stat.ts";

/** All that have been started, and of which a process may still run. */
const sessions = new Set<ProcessSession>();
let stopWatching: (() => void) | undefined;

function killAll(): void {
  for (const session of [...sessions]) session.signal("SIGKILL");
}

/**
 * One reading of /proc serves all sessions that are signalled at about the same time. It is fresh for
 * at least 10 ms, and for four times as long as it took, so that readings take a fifth of the time at
 * most: with a thousand readers one takes 50 ms. The kernel does not give a number out again so soon.
 */
const FRESH_MS = 10;
const FRESH_SHARE = 4;
let read: { startMs: number; untilMs: number; processes: ProcessStat[] } | undefined;

/** `sinceMs`: they must have been read since then. */
function processes(sinceMs = -Infinity): ProcessStat[] {
  const startMs = performance.now();
  if (read === undefined || startMs > read.untilMs || read.startMs < sinceMs) {
    const processes = readProcesses();
    const endMs = performance.now();
    const untilMs = endMs + Math.max(FRESH_MS, FRESH_SHARE * (endMs - startMs));
    read = { startMs, untilMs, processes };
  }
  return read.processes;
}

/** After a leader has been reaped. Milliseconds. */
const LOOK_AFTER_MS = 10;

type Signal = "SIGTERM" | "SIGCONT" | "SIGKILL";

/**
 * A session, which one process leads: the leader's process group, and those that its processes have
 * made for others, as shells with job control and timeout(1) do.
 *
 * The number of a session and of its first group is that of its leader. While the leader runs, or
 * has ended and has not been reaped (waitpid(2)), or while any process of the session is left, the
 * kernel gives that number to nobody else. Once the leader has been reaped, the last process may end
 * at any time, and the number may then lead a stranger's session. So from then on a signal is sent
 * only while the session contains a process that was seen in it before, with the same time of start.
 */
export class ProcessSession {
  readonly #number: number;
  /** When we were told that the leader has been reaped; ms of `performance.now()`. */
  #reapedMs: number | undefined;
  /** Pids and times of start of the others, soon after that. */
  #seen: Map<number, string> | undefined;

  /** `leader`: the pid of a process that was just started in a session of its own. */
  constructor(leader: number) {
    this.#number = leader;
    sessions.add(this);
    stopWatching ??= onProcessEnd(killAll);
  }

  /**
   * To be called as soon as the runtime tells that it has reaped the leader. The runtimes tell in
   * the turn of the event loop in which they reap, and the kernel gives numbers out in turn, so the
   * number is not given out again before we have looked who is left of the session.
   */
  leaderReaped(): void {
    if (this.#reapedMs !== undefined) return;
    this.#reapedMs = performance.now();
    // Not at once: one look is enough for all that end at about the same time.
    setTimeout(() => this.runs, LOOK_AFTER_MS).unref?.();
  }

  /** Whether one of its processes still runs. Reads /proc once the leader has been reaped. */
  get runs(): boolean {
    if (!sessions.has(this)) return false;
    return this.#reapedMs === undefined || this.#others(this.#reapedMs).length > 0;
  }

  /** Sends a signal to each of its processes, if there are any. */
  signal(signal: Signal): void {
    if (!sessions.has(this)) return;
    const members = this.#reapedMs === undefined ? this.#members() : this.#others(this.#reapedMs);
    // A group is within one session: none of these contains a stranger's process.
    const groups = new Set(members.map(({ group }) => group));
    if (this.#reapedMs === undefined) groups.add(this.#number);
    for (const group of groups) send(-group, signal);
  }

  /** Those that run, once the leader has been reaped: none unless the session is still ours. */
  #others(reapedMs: number): ProcessStat[] {
    const others = this.#members(reapedMs).filter(({ pid }) => pid !== this.#number);
    const seen = this.#seen;
    const ours = seen === undefined ||
      others.some((each) => seen.get(each.pid) === each.start && stillRuns(each));
    const left = ours ? others : [];
    this.#seen = new Map(left.map(({ pid, start }) => [pid, start]));
    if (left.length === 0) this.#forget();
    return left;
  }

  #forget(): void {
    sessions.delete(this);
    if (sessions.size > 0) return;
    stopWatching?.();
    stopWatching = undefined;
  }

  #members(sinceMs?: number): ProcessStat[] {
    return processes(sinceMs).filter(({ session, state }) =>
      session === this.#number && !/[ZX]/.test(state)
    );
  }
}

function send(to: number, signal: Signal): void {
  try {
    process.kill(to, signal);
  } catch {
    // It has just ended.
  }
}
