/** The work that readers still do once their socket is empty, against what they say of it themselves. */
import { describe, test, type TestContext } from "node:test";
import { execFileSync } from "node:child_process";
import net from "node:net";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { assert, assertAlmostEquals, assertEquals, assertGreater, assertLess } from "#std/assert";
import type { Address } from "../src/kernel/address.ts";
import { connectionState } from "../src/kernel/kernel.ts";
import { ProcessActivity, type ReaderProcesses } from "../src/kernel/process_activity.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { ReaderWork, type RestOfWork, type WorkInterval } from "../src/measure/reader_work.ts";
import { Program, ROOT } from "./process.ts";
import { command } from "./limiting.ts";
import { skip } from "./skip.ts";
import { until, within } from "./within.ts";

/** Python 3, or undefined, and said so. */
function python(t: TestContext): string | undefined {
  try {
    execFileSync("python3", ["--version"], { stdio: "ignore" });
    return "python3";
  } catch {
    skip(t, "no python3");
    return undefined;
  }
}

/** Whether processes can be looked at here; else says that they cannot. */
function seesProcesses(t: TestContext): boolean {
  const found = ProcessActivity.find({ group: process.pid });
  found?.close();
  if (found === undefined) skip(t, "no figures of processes here");
  return found !== undefined;
}

interface Feed {
  reader: Program;
  socket: net.Socket;
  /** When the reader said for the last time that it had nothing to do, in ms of performance.now(). */
  idleMs(): number;
}

/** A reader that is connected and has nothing to do. */
async function feeding(
  words: readonly string[],
  kind: string,
  cost: number,
  use: (feed: Feed) => Promise<void>,
): Promise<void> {
  const server = net.createServer();
  const connected = new Promise<net.Socket>((resolve) => server.once("connection", resolve));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as net.AddressInfo;
  // A session of its own, as the readers under test have.
  const reader = new Program("setsid", [...words, "127.0.0.1", `${port}`, kind, `${cost}`], {});
  try {
    const socket = await within("connection", 10_000, connected);
    socket.on("error", () => {});
    await within("idle", 10_000, reader.saw(/^idle /m));
    const idleMs = () => {
      const last = [...reader.stderr.matchAll(/^idle ([\d.]+)\n/gm)].at(-1)!;
      return Number(last[1]) - performance.timeOrigin;
    };
    await use({ reader, socket, idleMs });
    socket.destroy();
    await within("its end", 5000, reader.ended);
  } finally {
    reader.kill("SIGKILL");
    server.close();
  }
}

const started = ({ reader }: Feed): ReaderProcesses => ({ group: reader.pid });

const attached = ({ socket }: Feed) => ({
  local: { host: socket.localAddress!, port: socket.localPort! },
  remote: { host: socket.remoteAddress!, port: socket.remotePort! },
});

/** All of it has been taken by the reader's program. */
function taken({ local, remote }: { local: Address; remote: Address }): boolean {
  const { near, far } = connectionState(local, remote);
  return near?.sendQueue === 0 && (far?.receiveQueue ?? 0) === 0;
}

interface Watched {
  rest: RestOfWork;
  /** How long it worked on according to itself; seconds. */
  itself: number;
  interval: WorkInterval;
}

/** Sends messages at a rate (a second) for `ms`, and watches the reader until it has done them. */
async function watch(
  feed: Feed,
  where: ReaderProcesses,
  rate: number,
  ms: number,
): Promise<Watched> {
  const { socket, idleMs } = feed;
  const work = await ReaderWork.open(where, { idleSeconds: 0.6 });
  assert(work !== undefined, "its processes were not found");
  try {
    const since = work.begin();
    const startMs = performance.now();
    let sent = 0;
    for (let now = startMs; now < startMs + ms; now = performance.now()) {
      const due = Math.floor(rate * Math.min(ms, now - startMs) / 1000);
      if (due > sent) socket.write(new Uint8Array(due - sent));
      sent = due;
      work.sample();
      await sleep(5);
    }
    const interval = work.interval(since);
    await until("all is taken", 20_000, () => {
      work.sample();
      return taken(attached(feed));
    });
    const fromMs = performance.now();
    const rest = await within("quiet", 30_000, work.untilQuiet({ fromMs, longestSeconds: 20 }));
    return { rest, itself: Math.max(0, idleMs() - fromMs) / 1000, interval };
  } finally {
    work.close();
  }
}

/** Of 1 s at twice what the reader can do, one more second is left to do. */
const MS = 1000;
/** Others may keep the watching test from the core, or the reader; seconds. */
const NEAR = 0.15;

/** Nothing was seen of its work yet, and others may keep it from the core for a while; seconds. */
const PATIENT = 2;

function assertTold({ rest, itself, interval }: Watched, hoards: boolean): void {
  const what = JSON.stringify({ rest, itself, interval });
  assert(rest.quiet, what);
  assertEquals(rest.background, undefined, what);
  assertAlmostEquals(rest.seconds, itself, NEAR, what);
  assertEquals(itself > 0.5, hoards, what);
}

/** A watch that others have disturbed is repeated: an error of ours would come again. */
async function assertWatched(feed: Feed, rate: number, hoards: boolean): Promise<void> {
  let watched = await watch(feed, started(feed), rate, MS);
  const isNear = () => Math.abs(watched.rest.seconds - watched.itself) <= NEAR;
  for (let again = 0; again < 2 && !isNear(); again++) {
    watched = await watch(feed, started(feed), rate, MS);
  }
  assertTold(watched, hoards);
}

const scripts: { kind: string; cost: number; rate: number; hoards: boolean }[] = [
  { kind: "thread", cost: 500, rate: 4000, hoards: true },
  { kind: "thread", cost: 50_000, rate: 40, hoards: true },
  { kind: "child", cost: 500, rate: 4000, hoards: true },
  { kind: "asyncio", cost: 500, rate: 4000, hoards: true },
  { kind: "busy", cost: 200, rate: 10_000, hoards: true },
  { kind: "timer", cost: 500, rate: 4000, hoards: true },
  { kind: "holds", cost: 500, rate: 1500, hoards: false },
];
const own = [
  { kind: "flows", cost: 500, rate: 4000, hoards: true },
  { kind: "timer", cost: 500, rate: 4000, hoards: true },
  { kind: "holds", cost: 500, rate: 1500, hoards: false },
];

describe(`what a reader still works on, ${runtime}`, () => {
  for (const { kind, cost, rate, hoards } of scripts) {
    test(`Python, ${kind}, ${cost} us a message`, async (t) => {
      const program = python(t);
      if (program === undefined || !seesProcesses(t)) return;
      const words = [program, `${ROOT}/test/readers/hoards.py`];
      await feeding(words, kind, cost, (feed) => assertWatched(feed, rate, hoards));
    });
  }

  for (const { kind, cost, rate, hoards } of own) {
    test(`own runtime, ${kind}`, async (t) => {
      if (!seesProcesses(t)) return;
      const words = command("test/readers/hoards.ts");
      await feeding(words, kind, cost, (feed) => assertWatched(feed, rate, hoards));
    });
  }

  test("a reader that came by itself is found by its socket, and its worker by its group", async (t) => {
    const program = python(t);
    if (program === undefined || !seesProcesses(t)) return;
    const words = [program, `${ROOT}/test/readers/hoards.py`];
    await feeding(words, "child", 500, async (feed) => {
      assertTold(await watch(feed, attached(feed), 4000, MS), true);
    });
  });

  test("a reader that ends meanwhile has ended", async (t) => {
    if (!seesProcesses(t)) return;
    await feeding(command("test/readers/hoards.ts"), "flows", 10_000, async (feed) => {
      const work = await ReaderWork.open(started(feed), { idleSeconds: 0.5 });
      feed.socket.write(new Uint8Array(1000));
      const rest = work!.untilQuiet({ longestSeconds: 20, shortestQuietSeconds: PATIENT });
      await sleep(300);
      feed.reader.kill("SIGKILL");
      const { ended, quiet, seconds } = await within("its end", 2000, rest);
      assertEquals([ended, quiet], [true, true]);
      assertLess(seconds, 5);
      work!.close();
    });
  });

  test("work for longer than the watch is not quiet", async (t) => {
    if (!seesProcesses(t)) return;
    await feeding(command("test/readers/hoards.ts"), "flows", 10_000, async (feed) => {
      const work = await ReaderWork.open(started(feed), { idleSeconds: 0.5 });
      feed.socket.write(new Uint8Array(1000));
      await sleep(200);
      const { quiet, seconds } = await work!.untilQuiet({
        longestSeconds: 1,
        shortestQuietSeconds: PATIENT,
      });
      assertEquals(quiet, false);
      assertGreater(seconds, 0.5);
      work!.close();
    });
  });

  test("CPU time and memory of an interval", async (t) => {
    const program = python(t);
    if (program === undefined || !seesProcesses(t)) return;
    const words = [program, `${ROOT}/test/readers/hoards.py`];
    await feeding(words, "busy", 1000, async (feed) => {
      const { interval, rest, itself } = await watch(feed, started(feed), 500, 2000);
      const what = JSON.stringify({ interval, rest, itself });
      // Half of a core for the work; what the reading thread needs comes on top. On a busy machine it
      // waits for its core instead.
      assertGreater(interval.cpuShare + interval.waitShare, 0.4, what);
      assertLess(interval.cpuShare, 0.9, what);
      assertAlmostEquals(interval.seconds, 2, 0.5);
      assertGreater(interval.memoryBytes, 1e6);
    });
  });

  test("a process that is not there cannot be watched", async () => {
    assertEquals(ProcessActivity.find({ group: 2 ** 22 + 1 }), undefined);
    const nowhere = { host: "127.0.0.1", port: 1 };
    assertEquals(await ReaderWork.open({ local: nowhere, remote: nowhere }), undefined);
  });
});
