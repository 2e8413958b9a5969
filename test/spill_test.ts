/**
 * The article's system, with what it lacked: a fast sender that disconnects on overflow, a naive reader
 * that is slower than the sender's spikes and faster than their average, and our server in between.
 */
import { describe, test } from "node:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, assertEquals, assertGreater, assertGreaterOrEqual, assertLess } from "#std/assert";
import type { DrainResult } from "../src/read/drain.ts";
import { setBufferSize } from "../src/kernel/socket_calls.ts";
import { tcpInfo } from "../src/kernel/tcp_info.ts";
import type { Connection } from "../src/net/net.ts";
import { NumberedVerifier } from "../src/message/numbered.ts";
import type { ServeEvent } from "../src/relay/serve_event.ts";
import { withServer } from "./peer.ts";
import { type Program, start } from "./process.ts";
import { setTimeout as sleep } from "node:timers/promises";
import { numbered, SIZE, withoutKernel } from "./relaying.ts";
import { skip } from "./skip.ts";
import { until, within } from "./within.ts";

/** It works 1 ms on each 1000 bytes: a million bytes a second at most. */
const NAIVE = ["--mode", "naive", "--read-size", "1000", "--work", "1ms", "--rcvbuf", "64k"];
/** A reply that is on its way when our server ends is answered with RST, as any sender's end does. */
const SILENT = ["--reply", "none"];
const LIMIT = 1e6;
/** The sender's spikes: four times that, 0.4 s long; two thirds of it on average. */
const SPIKE = 4 * LIMIT;
const SPIKE_MS = 400;
const EVERY_MS = 2400;
const SPIKES = 3;
const TOTAL = SPIKES * SPIKE * SPIKE_MS / 1000 / SIZE;
/** SO_SNDBUF, and what may wait beyond it before the sender disconnects. */
const BUFFER = 64 << 10;
const BOUND = 384 << 10;
/** While this process is kept from the core, the sender's clock stops: its lateness is no overflow. */
const LONGEST_STEP_MS = 20;
/** The most messages of one write. */
const PIECE = 256;

/** Messages due after so many ms. */
type Plan = (ms: number) => number;

const spikes: Plan = (ms) => {
  const before = Math.min(SPIKES, Math.floor(ms / EVERY_MS));
  const part = before < SPIKES ? Math.min(SPIKE_MS, ms - before * EVERY_MS) : 0;
  return Math.floor((before * SPIKE_MS + part) / 1000 * SPIKE / SIZE);
};

/** The article's server A, to one reader: by its plan, whether that reads or not; it reads nothing. */
class Sender {
  connection: Connection | undefined;
  /** Messages that its kernel took. */
  sent = 0;
  overflowed = false;
  /** It has sent all, or has disconnected. */
  over = false;
  readonly #plan: Plan;
  readonly #total: number;

  constructor(plan: Plan, total: number) {
    this.#plan = plan;
    this.#total = total;
  }

  readonly serve = async (connection: Connection): Promise<void> => {
    if (this.connection !== undefined) return connection.close();
    this.connection = connection;
    if (connection.fd !== undefined) setBufferSize(connection.fd, "send", BUFFER);
    let clock = 0;
    let last = performance.now();
    const due = () => Math.min(this.#total, this.#plan(clock));
    const watch = setInterval(() => {
      const now = performance.now();
      clock += Math.min(now - last, LONGEST_STEP_MS);
      last = now;
      const owed = (due() - this.sent) * SIZE;
      if (connection.blockedSince === undefined || owed <= BOUND) return;
      this.overflowed = true;
      connection.close();
    }, 5);
    while (this.sent < this.#total && !this.overflowed) {
      const piece = numbered(this.sent, Math.min(due(), this.sent + PIECE));
      let rest = piece;
      while (rest.length > 0 && !this.overflowed) {
        const taken = await connection.write(rest);
        if (taken === 0) break;
        rest = rest.subarray(taken);
      }
      if (rest.length > 0) break;
      this.sent += piece.length / SIZE;
      await sleep(1);
    }
    clearInterval(watch);
    this.over = true;
  };
}

/** Where the reader sends what it has read: there it is checked. */
class Sink {
  readonly verifier: NumberedVerifier = new NumberedVerifier(SIZE);

  readonly serve = async (connection: Connection): Promise<void> => {
    for (let chunk; (chunk = await connection.read(65_536)) !== null;) this.verifier.push(chunk);
    connection.close();
  };

  assertWhole(messages: number): void {
    const { missing, duplicates, outOfOrder, damaged } = this.verifier;
    const sound = { missing: 0, duplicates: 0, outOfOrder: 0, damaged: 0 };
    assertEquals({ missing, duplicates, outOfOrder, damaged }, sound);
    assertEquals([this.verifier.messages, this.verifier.end()], [messages, 0]);
  }
}

interface Stage {
  sender: Sender;
  sink: Sink;
  /** Of the sender. */
  port: number;
  /** Starts our server, which takes from the sender; its port. */
  between(...args: string[]): Promise<{ server: Program; port: number }>;
  /** Starts the naive reader. */
  read(port: number, ...options: string[]): Program;
}

/** A sender and a sink in this process, and programs that end with the test. */
async function staged(sender: Sender, use: (stage: Stage) => Promise<void>): Promise<void> {
  const sink = new Sink();
  const folder = mkdtempSync(join(tmpdir(), "speedlimit-spill-"));
  const programs: Program[] = [];
  const begin = (args: readonly string[]) => {
    const program = start(args, { timeoutMs: 30_000 });
    programs.push(program);
    return program;
  };
  try {
    await withServer(sink.serve, (to) =>
      withServer(sender.serve, ({ port }) =>
        use({
          sender,
          sink,
          port,
          async between(...args) {
            const server = begin([
              ...["server.ts", "--port", "0", "--json", "--source", `tcp://127.0.0.1:${port}`],
              ...["--frame", `fixed:${SIZE}`, "--overflow", "spill", "--backlog", "64k"],
              ...["--spill", join(folder, "queue.db"), "--sndbuf", "64k", ...args],
            ]);
            const listening = server.saw(/"listening".*"port":(\d+)/);
            const [, own] = await within("listening", 10_000, listening);
            return { server, port: Number(own) };
          },
          read: (from, ...options) =>
            begin([
              ...["client.ts", `127.0.0.1:${from}`, "--json", ...NAIVE, ...options],
              ...["--forward", `127.0.0.1:${to.port}`],
            ]),
        })));
  } finally {
    for (const program of programs) program.kill("SIGKILL");
    await within("all ends", 5000, Promise.all(programs.map(({ ended }) => ended)));
    rmSync(folder, { recursive: true, force: true });
  }
}

const eventsOf = ({ stdout }: Program): ServeEvent[] =>
  stdout.trimEnd().split("\n").map((line) => JSON.parse(line));

describe("a reader slower than the spikes, and faster than their average", () => {
  test("alone: disconnected at the first spike, ECONNRESET, the rest is lost", async (t) => {
    if (withoutKernel(t)) return;
    await staged(new Sender(spikes, TOTAL), async ({ sender, sink, port, read }) => {
      const ended = await within("the reader's end", 15_000, read(port).ended);
      const result: DrainResult = JSON.parse(ended.stdout);
      assertEquals([result.ended, result.errno, ended.status], ["reset", "ECONNRESET", 1]);
      assertEquals(sender.overflowed, true);
      assertLess(sender.sent, TOTAL / SPIKES);
      assertLess(sink.verifier.messages, sender.sent);
    });
  });

  test("with the server in between: no reset, all of it, in order", async (t) => {
    if (withoutKernel(t)) return;
    await staged(new Sender(spikes, TOTAL), async ({ sender, sink, between, read }) => {
      const { server, port } = await between();
      const reader = read(port, ...SILENT);
      await until("all messages", 30_000, () => sink.verifier.messages === TOTAL);
      server.kill("SIGTERM");
      const ended = await within("the reader's end", 20_000, reader.ended);
      const result: DrainResult = JSON.parse(ended.stdout);
      assertEquals([result.ended, result.errno, ended.status], ["eof", undefined, 0]);
      assertEquals([sender.sent, sender.overflowed], [TOTAL, false]);
      assertLess(result.bytesPerSecond, LIMIT);
      sink.assertWhole(TOTAL);
      assertEquals((await within("the server's end", 5000, server.ended)).status, 0);
      const events = eventsOf(server);
      const names = events.map(({ event }) => event);
      // Once for each spike, where nobody else has the core.
      const spilling = names.filter((name) => name === "spilling").length;
      const caughtUp = names.filter((name) => name === "caught-up").length;
      assertGreaterOrEqual(spilling, 1);
      assert(caughtUp === spilling || caughtUp === spilling - 1, `${spilling}, ${caughtUp}`);
      const done = events.at(-1) as ServeEvent & { event: "done" };
      assertEquals([done.event, done.messages, done.dropped], ["done", TOTAL, 0]);
    });
  });
});

test("a reader that is stopped for 3 s: the sender never sees a window of zero", async (t) => {
  if (withoutKernel(t)) return;
  // Half a second of it fits into the server's receive buffer, should that be kept from its core.
  const rate = LIMIT / 4;
  const steady: Plan = (ms) => Math.floor(ms / 1000 * rate / SIZE);
  const total = steady(3500);
  await staged(new Sender(steady, total), async ({ sender, sink, between, read }) => {
    const { server, port } = await between();
    const reader = read(port);
    await until("a stream", 10_000, () => sink.verifier.messages > 1000);
    const info = () => tcpInfo(sender.connection!.fd!);
    if (info()?.sendWindow === undefined) return skip(t, "the kernel does not tell the window");
    reader.kill("SIGSTOP");
    const before = info()!;
    const windows: number[] = [];
    const end = performance.now() + 3000;
    while (performance.now() < end) {
      windows.push(info()!.sendWindow!);
      await sleep(10);
    }
    const after = info()!;
    reader.kill("SIGCONT");
    assertGreater(windows.length, 100);
    assertGreater(Math.min(...windows), 0);
    assertEquals(after.receiveWindowLimitedUs - before.receiveWindowLimitedUs, 0);
    assertGreater(after.bytesAcked - before.bytesAcked, 0.5 * 3 * rate);
    assertEquals(sender.overflowed, false);
    await until("all messages", 20_000, () => sink.verifier.messages === total);
    assertEquals([sender.sent, sender.overflowed], [total, false]);
    server.kill("SIGTERM");
    await within("the reader's end", 20_000, reader.ended);
    sink.assertWhole(total);
    assertEquals((await within("the server's end", 5000, server.ended)).status, 0);
  });
});
