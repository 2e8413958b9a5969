/**
 * What the processes of a reader do: CPU time, context switches and memory, thread by thread, from
 * /proc/PID/task/TID/schedstat, which everyone may read (fields: ns on a CPU, ns runnable but waiting
 * for one, times it was put on one; Documentation/scheduler/sched-stats.rst).
 *
 * The kernel adds a running thread's CPU time at its timer tick, each 1 to 10 ms. A reading costs 1 to
 * 2 µs a thread, and a look for new threads and processes 0.2 ms with 150 processes on the machine.
 */
import process from "node:process";
import type { Address } from "./address.ts";
import { connectionState } from "./kernel.ts";
import { procFiles } from "./proc_files.ts";

/** One thread since the first reading. Stays in the list after the thread has ended. */
export interface ThreadActivity {
  readonly pid: number;
  readonly tid: number;
  /** Its name when it was found (/proc/PID/task/TID/comm): at most 15 printable ASCII characters. */
  readonly name: string;
  cpuNs: number;
  /** Runnable, but without a CPU. */
  waitNs: number;
  /** How often it was put on a CPU: it had slept, or another thread had the CPU. */
  switches: number;
  ended: boolean;
}

/** Sums over all threads since the first reading; they never fall. */
export interface Activity {
  /** When it was read, in ms of `performance.now()`. */
  nowMs: number;
  cpuNs: number;
  waitNs: number;
  switches: number;
  /** Threads that live. */
  threads: number;
  /** Processes that live. */
  processes: number;
}

/** Where the processes of a reader are looked for. */
export type ReaderProcesses =
  /** A process that we started: it, its process group, its session, and all descendants. */
  | { group: number }
  /**
   * Those that hold the reader's socket on this host, their process groups (`nc HOST PORT | worker`)
   * and all descendants. The addresses are those of our end.
   */
  | { local: Address; remote: Address };

/** Time between two looks for new threads and processes, unless one takes over a fiftieth of that. */
const LOOK_EVERY_MS = 100;
const LOOK_SHARE = 50;
/** Each needs a descriptor of ours. What further threads do is not seen. */
const MAX_THREADS = 1000;
/** From linux/fs.h, /proc/PID/statm counts pages; from getconf PAGESIZE on x64 and most arm64. */
const PAGE_BYTES = 4096;

interface Thread extends ThreadActivity {
  fd: number;
  /** What was there before we looked. */
  readonly before: readonly [cpuNs: number, waitNs: number, switches: number];
}

interface Proc {
  pid: number;
  /** With the pid it is unique: /proc/PID/stat field 22, ticks since the machine started. */
  startTime: number;
  statm: number | undefined;
  threads: Map<number, Thread>;
}

const text = new Uint8Array(256);

/** Reads three numbers, separated by spaces, into `numbers`. */
const numbers: [number, number, number] = [0, 0, 0];
function readNumbers(fd: number): boolean {
  const length = procFiles.readAgain(fd, text);
  if (length === undefined || length === 0) return false;
  for (let field = 0, at = 0; field < 3; field++, at++) {
    let value = 0;
    for (let digit; at < length && (digit = text[at]! - 48) >= 0 && digit < 10; at++) {
      value = value * 10 + digit;
    }
    numbers[field] = value;
  }
  return true;
}

interface Stat {
  /** It has ended: its first thread has, and perhaps others have not. */
  zombie: boolean;
  parent: number;
  group: number;
  session: number;
  startTime: number;
}

/** Undefined where the process is gone. */
function readStat(pid: number): Stat | undefined {
  const stat = procFiles.read(`/proc/${pid}/stat`);
  if (stat === undefined) return undefined;
  // The name, in parentheses, may contain anything; what follows begins with field 3, the state.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  if (fields.length < 20) return undefined;
  const [, parent, group, session] = fields.map(Number);
  const zombie = fields[0] === "Z" || fields[0] === "X";
  const startTime = Number(fields[19]);
  return { zombie, parent: parent!, group: group!, session: session!, startTime };
}

const isPid = (name: string) => name.charCodeAt(0) <= 57;

/** The processes that hold the connection's socket and that we may look into; never this one. */
function findHolders(local: Address, remote: Address): number[] {
  const inode = connectionState(local, remote).near?.inode;
  if (inode === undefined || inode === 0) return [];
  const wanted = `socket:[${inode}]`;
  return procFiles.list("/proc").filter(isPid).map(Number).filter((pid) =>
    pid !== process.pid &&
    procFiles.list(`/proc/${pid}/fd`).some((fd) =>
      procFiles.link(`/proc/${pid}/fd/${fd}`) === wanted
    )
  );
}

/** Watches the processes of one reader. `close` it: it keeps a descriptor for each thread. */
export class ProcessActivity {
  /** All threads seen so far, in the order in which they were found; entries are updated in place. */
  readonly threads: readonly ThreadActivity[];
  readonly #threads: Thread[] = [];
  readonly #processes = new Map<number, Proc>();
  /** Process groups and sessions that are the reader's. */
  readonly #groups = new Set<number>();
  /** Pids that are known to be others'. */
  #others = new Set<number>();
  #nextLookMs = -Infinity;
  #first = true;

  /**
   * Finds the reader's processes. Undefined: there are none here, or we may not see them (a reader on
   * another host or of another user, no Linux, no permission).
   */
  static find(reader: ReaderProcesses): ProcessActivity | undefined {
    const roots = "group" in reader ? [reader.group] : findHolders(reader.remote, reader.local);
    if (roots.length === 0) return undefined;
    const found = new ProcessActivity(roots);
    if (found.#threads.length > 0) return found;
    found.close();
    return undefined;
  }

  private constructor(roots: readonly number[]) {
    this.threads = this.#threads;
    const own = readStat(process.pid)?.group;
    for (const pid of roots) {
      const stat = readStat(pid);
      // The first process of a group that we started may have ended: the group has its number.
      if (stat === undefined) this.#groups.add(pid);
      else if (stat.group !== own) this.#groups.add(stat.group);
      if (stat !== undefined && !stat.zombie) this.#add(pid, stat.startTime);
    }
    this.read();
    this.#first = false;
  }

  /** Reads all threads; looks for new ones each 100 ms. */
  read(): Activity {
    const nowMs = performance.now();
    if (nowMs >= this.#nextLookMs) {
      this.look();
      const tookMs = performance.now() - nowMs;
      this.#nextLookMs = nowMs + Math.max(LOOK_EVERY_MS, LOOK_SHARE * tookMs);
    }
    const sum: Activity = { nowMs, cpuNs: 0, waitNs: 0, switches: 0, threads: 0, processes: 0 };
    for (const thread of this.#threads) {
      if (!thread.ended) this.#readThread(thread);
      if (!thread.ended) sum.threads++;
      sum.cpuNs += thread.cpuNs;
      sum.waitNs += thread.waitNs;
      sum.switches += thread.switches;
    }
    sum.processes = this.#processes.size;
    return sum;
  }

  /** Resident memory of all processes (/proc/PID/statm field 2, pages shared by two count twice). */
  residentBytes(): number {
    let pages = 0;
    for (const { statm } of this.#processes.values()) {
      if (statm !== undefined && readNumbers(statm)) pages += numbers[1];
    }
    return pages * PAGE_BYTES;
  }

  /** Looks for new threads and processes now. */
  look(): void {
    this.#findProcesses();
    for (const proc of this.#processes.values()) this.#findThreads(proc);
  }

  close(): void {
    for (const thread of this.#threads) end(thread);
    for (const { statm } of this.#processes.values()) {
      if (statm !== undefined) procFiles.close(statm);
    }
    this.#processes.clear();
  }

  #readThread(thread: Thread): void {
    if (!readNumbers(thread.fd)) return end(thread);
    const [cpuNs, waitNs, switches] = thread.before;
    thread.cpuNs = numbers[0] - cpuNs;
    thread.waitNs = numbers[1] - waitNs;
    thread.switches = numbers[2] - switches;
  }

  #findProcesses(): void {
    const pids = procFiles.list("/proc").filter(isPid).map(Number);
    const candidates = new Map<number, Stat>();
    const others = new Set<number>();
    for (const pid of pids) {
      if (this.#processes.has(pid)) continue;
      if (this.#others.has(pid)) others.add(pid);
      else {
        const stat = readStat(pid);
        if (stat !== undefined && !stat.zombie) candidates.set(pid, stat);
      }
    }
    // A child may be listed before its parent: until no more are found.
    for (let before = -1; before !== candidates.size;) {
      before = candidates.size;
      for (const [pid, stat] of candidates) {
        if (!this.#isOurs(stat)) continue;
        this.#add(pid, stat.startTime);
        candidates.delete(pid);
      }
    }
    for (const pid of candidates.keys()) others.add(pid);
    this.#others = others;
  }

  #isOurs({ parent, group, session }: Stat): boolean {
    return this.#processes.has(parent) || this.#groups.has(group) || this.#groups.has(session);
  }

  #add(pid: number, startTime: number): void {
    const statm = procFiles.open(`/proc/${pid}/statm`);
    this.#processes.set(pid, { pid, startTime, statm, threads: new Map() });
  }

  #findThreads(proc: Proc): void {
    const { pid, startTime, statm, threads } = proc;
    // What was once ours stays so, whoever its parent is now, until another process has its pid.
    const stat = readStat(pid);
    const tids = procFiles.list(`/proc/${pid}/task`);
    if (stat?.startTime !== startTime || (stat.zombie && tids.length < 2)) {
      for (const thread of threads.values()) end(thread);
      if (statm !== undefined) procFiles.close(statm);
      this.#processes.delete(pid);
      return;
    }
    for (const name of tids) {
      const tid = Number(name);
      const known = threads.get(tid);
      if (known !== undefined && !known.ended) {
        // Another thread may have its number: the old descriptor cannot be read then.
        this.#readThread(known);
        if (!known.ended) continue;
      }
      const thread = this.#openThread(pid, tid);
      if (thread === undefined) continue;
      threads.set(tid, thread);
      this.#threads.push(thread);
    }
  }

  #openThread(pid: number, tid: number): Thread | undefined {
    if (this.#threads.length >= MAX_THREADS && this.#countLiving() >= MAX_THREADS) return undefined;
    const fd = procFiles.open(`/proc/${pid}/task/${tid}/schedstat`);
    if (fd === undefined) return undefined;
    const comm = procFiles.read(`/proc/${pid}/task/${tid}/comm`)?.trim() ?? "";
    const name = comm.replace(/[^ -~]/g, "?");
    // What a thread did before the first look is not counted; of a new one all is.
    const known = this.#first && readNumbers(fd);
    const before = known ? [...numbers] as const : [0, 0, 0] as const;
    return { pid, tid, name, fd, before, cpuNs: 0, waitNs: 0, switches: 0, ended: false };
  }

  #countLiving(): number {
    return this.#threads.filter(({ ended }) => !ended).length;
  }
}

function end(thread: Thread): void {
  if (!thread.ended) procFiles.close(thread.fd);
  thread.ended = true;
}
