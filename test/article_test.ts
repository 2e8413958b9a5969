/**
 * The article, reproduced: at one rate the naive reader is disconnected, and its fix is not.
 *
 * Nine pairs of runtimes; a suite runs the three whose server is the runtime that runs the suite, so
 * that the three suites together run all of them.
 */
import { describe, test } from "node:test";
import {
  assertEquals,
  assertGreater,
  assertGreaterOrEqual,
  assertLess,
  assertMatch,
} from "#std/assert";
import type { DrainResult } from "../src/read/drain.ts";
import { runtime } from "../src/kernel/runtime.ts";
import type { ServeEvent } from "../src/relay/serve_event.ts";
import { hasRuntime, type Program, type RunResult, type Runtime, start } from "./process.ts";
import { skip } from "./skip.ts";
import { within } from "./within.ts";

/**
 * Twenty times what a naive reader can do that works 20 µs for each 10 bytes, and what a draining
 * one does with a few percent of a core.
 */
const RATE = "10MB/s";
const NAIVE_WORK = "20us";
const NAIVE_MOST = 10 / 20e-6;
const DRAIN_SECONDS = 2.5;
/**
 * A runner that stops for a tenth of a second is not the article's slow reader: what was not sent
 * meanwhile may wait here, on top of the kernel's buffers.
 */
const BACKLOG = "2M";
/** Of the draining one, which nothing else may make slow: two seconds. */
const LARGE_BACKLOG = "20M";

interface Ran {
  result: DrainResult;
  client: RunResult;
  events: ServeEvent[];
}

/** A server of this runtime and one reader of another, to the reader's end. */
async function pair(
  client: Runtime,
  args: readonly string[],
  backlog: string = BACKLOG,
): Promise<Ran> {
  const server = start(
    ["server.ts", "--port", "0", "--json", "--rate", RATE, "--backlog", backlog],
    { timeoutMs: 40_000 },
  );
  let reader: Program | undefined;
  try {
    const [, port] = await within("listening", 10_000, server.saw(/"listening".*"port":(\d+)/));
    reader = start(["client.ts", `127.0.0.1:${port}`, "--json", ...args], {
      runtime: client,
      timeoutMs: 30_000,
    });
    const ended = await within("the reader's end", 20_000, reader.ended);
    await within("the server's record of it", 5000, server.saw(/"event":"closed"/));
    server.kill("SIGINT");
    const { stdout, status, stderr } = await within("the server's end", 5000, server.ended);
    assertEquals([status, stderr], [130, ""]);
    return {
      result: JSON.parse(ended.stdout),
      client: ended,
      events: stdout.trimEnd().split("\n").map((line) => JSON.parse(line)),
    };
  } finally {
    reader?.kill("SIGKILL");
    server.kill("SIGKILL");
    await within("both ends", 5000, Promise.all([server.ended, reader?.ended]));
  }
}

const title =
  `the article with a server on ${runtime} (each suite runs its own three of nine pairs)`;

describe(title, () => {
  for (const client of ["deno", "bun", "node"] as const) {
    test(`a naive reader on ${client} is reset, the server's buffer was full`, async (t) => {
      if (!hasRuntime(client)) return skip(t, `no ${client} here: run npm ci`);
      const { result, client: ended, events } = await pair(client, [
        "--mode",
        "naive",
        "--work",
        NAIVE_WORK,
      ]);
      assertEquals([result.ended, result.errno], ["reset", "ECONNRESET"]);
      assertEquals([ended.status, ended.stderr, result.runtime], [1, "", client]);
      assertLess(result.bytesPerSecond, NAIVE_MOST);
      assertGreater(result.replies, 0);
      assertEquals(
        events.map(({ event }) => event),
        ["listening", "reader", "overflow", "closed", "done"],
      );
      const [, , overflow, closed] = events as [
        ServeEvent,
        ServeEvent,
        ServeEvent & { event: "overflow" },
        ServeEvent & { event: "closed" },
      ];
      assertEquals([overflow.policy, closed.reason], ["close", "local"]);
      // The rest of what was sent is lost: the reader's errno is all that it ever hears of it.
      assertGreater(closed.bytes, result.bytes);
      assertGreater(overflow.messages, 1000);
    });

    test(`a draining reader on ${client} goes on to its time at that rate`, async (t) => {
      if (!hasRuntime(client)) return skip(t, `no ${client} here: run npm ci`);
      const { result, client: ended, events } = await pair(client, [
        "--mode",
        "drain",
        "--duration",
        `${DRAIN_SECONDS}s`,
      ], LARGE_BACKLOG);
      assertEquals([result.ended, result.errno], ["time", undefined], JSON.stringify(events));
      assertEquals([ended.status, ended.stderr, result.runtime], [0, "", client]);
      assertGreaterOrEqual(result.seconds, DRAIN_SECONDS * 0.99);
      // As much as is offered, less what a busy machine is late with: far above any naive reader.
      assertGreater(result.bytes, 10 * DRAIN_SECONDS * NAIVE_MOST);
      assertEquals(
        events.map(({ event }) => event),
        ["listening", "reader", "closed", "done"],
      );
      // It was the reader that left.
      assertMatch((events[2] as ServeEvent & { event: "closed" }).reason, /^(eof|reset)$/);
    });
  }
});
