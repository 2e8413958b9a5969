/**
 * The sessions (setsid(2)) that this process has started. None of them outlives it: what is left when
 * it ends is killed (process_end.ts tells in which ways it may end).
 */
import process from "node:process";
import { onProcessEnd } from "./process_end.ts";
import { type ProcessStat, readProcesses } from "./proc_stat.ts";

/** All that have been started, and of which a process may still run. */
const sessions = new Set<ProcessSession>();
let stopWatching: (() => void) | undefined;

function killAll(): void {
  for (const session of [...sessions]) session.signal("SIGKILL");
}

/** One reading of /proc serves all sessions that are signalled at about the same time. */
const FRESH_MS = 10;
let read: { atMs: number; processes: ProcessStat[] } | undefined;

function processes(): ProcessStat[] {
  const atMs = performance.now();
  if (read === undefined || atMs - read.atMs > FRESH_MS) {
    read = { atMs, processes: readProcesses() };
  }
  return read.processes;
}

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
  /** Pids and times of start; undefined while the leader has not been reaped. */
  #seen: Map<number, string> | undefined;

  /** `leader`: the pid of a process that was just started in a session of its own. */
  constructor(leader: number) {
    this.#number = leader;
    sessions.add(this);
    stopWatching ??= onProcessEnd(killAll);
  }

  /**
   * To be called as soon as the runtime tells that it has reaped the leader. The runtimes tell in
   * the turn of the event loop in which they reap, and the kernel gives numbers out in turn, so by
   * then the number cannot have been given out again.
   */
  leaderReaped(): void {
    if (this.#seen !== undefined) return;
    this.#seen = new Map();
    let members = this.#members();
    if (members.length === 0 && send(-this.#number, 0)) {
      read = undefined;
      members = this.#members();
    }
    this.#note(members);
  }

  /** Whether one of its processes still runs. Reads /proc once the leader has been reaped. */
  get runs(): boolean {
    return sessions.has(this) && (this.#seen === undefined || this.#known().length > 0);
  }

  /** Sends a signal to each of its processes, if there are any. */
  signal(signal: Signal): void {
    if (!sessions.has(this)) return;
    const leads = this.#seen === undefined;
    const members = leads ? this.#members() : this.#known();
    if (leads) send(-this.#number, signal);
    // A group is within one session: none of these contains a stranger's process.
    const groups = new Set(members.map(({ group }) => group));
    if (leads) groups.delete(this.#number);
    for (const group of groups) send(-group, signal);
  }

  /** Those that run, once the leader has been reaped: none unless the session is still ours. */
  #known(): ProcessStat[] {
    const members = this.#members();
    const ours = members.some(({ pid, start }) => this.#seen!.get(pid) === start);
    this.#note(ours ? members : []);
    return ours ? members : [];
  }

  #note(members: readonly ProcessStat[]): void {
    this.#seen = new Map(members.map(({ pid, start }) => [pid, start]));
    if (members.length > 0) return;
    sessions.delete(this);
    if (sessions.size > 0) return;
    stopWatching?.();
    stopWatching = undefined;
  }

  #members(): ProcessStat[] {
    return processes().filter(({ session, state }) =>
      session === this.#number && !/[ZX]/.test(state)
    );
  }
}

/** Whether there was anybody to send it to. */
function send(to: number, signal: Signal | 0): boolean {
  try {
    process.kill(to, signal);
    return true;
  } catch {
    return false;
  }
}
