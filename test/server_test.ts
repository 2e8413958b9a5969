/** server.ts as a process: its record of what happened, and its end. */
import { describe, test } from "node:test";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import {
  assert,
  assertEquals,
  assertGreater,
  assertGreaterOrEqual,
  assertLess,
  assertLessOrEqual,
  assertMatch,
} from "#std/assert";
import type { ServeEvent } from "../src/relay/serve_event.ts";
import { connect, eventsOf, json, serving, withFolder } from "./serving.ts";
import { until, within } from "./within.ts";

describe("--json", () => {
  test("each line is an object: listening, reader, overflow, closed, done", async () => {
    // Nobody reads, so it comes to an overflow whatever the buffers.
    await serving([...json, "--rate", "50MB/s", "--duration", "1s"], async (program, port) => {
      const reader = await connect(port);
      const { status, stdout, stderr } = await within("done", 15_000, program.ended);
      reader.destroy();
      assertEquals([status, stderr], [0, ""]);
      const events = eventsOf(stdout);
      assertEquals(
        events.map(({ event }) => event),
        ["listening", "reader", "overflow", "closed", "done"],
      );
      const times = events.map(({ time }) => time);
      assertEquals(times, times.toSorted((a, b) => a - b));
      const [listening, connected, overflow, closed, done] = events as [
        ServeEvent & { event: "listening" },
        ServeEvent & { event: "reader" },
        ServeEvent & { event: "overflow" },
        ServeEvent & { event: "closed" },
        ServeEvent & { event: "done" },
      ];
      assertEquals([listening.host, listening.port], ["127.0.0.1", port]);
      assertEquals([connected.reader, connected.host], [1, "127.0.0.1"]);
      assertEquals([overflow.reader, overflow.policy], [1, "close"]);
      assertGreater(overflow.messages, 1000);
      assertGreater(overflow.backlog, 0);
      assertEquals([closed.reader, closed.reason, closed.dropped, closed.overflows], [
        1,
        "local",
        0,
        1,
      ]);
      assertEquals(closed.messages, Math.floor(closed.bytes / 13));
      assertGreaterOrEqual(closed.messages, overflow.messages);
      assertEquals([done.readers, done.messages, done.bytes, done.overflows], [
        1,
        closed.messages,
        closed.bytes,
        1,
      ]);
    });
  });

  test("a reader that leaves by itself, and one that is refused", async () => {
    await serving([...json, "--rate", "100/s", "--max-readers", "1"], async (program, port) => {
      const reader = await connect(port);
      await within("the reader", 5000, program.saw(/"event":"reader"/));
      const second = await connect(port);
      await within("the refusal", 5000, program.saw(/"event":"refused".*"readers":1/));
      second.destroy();
      reader.resume();
      reader.destroy();
      await within("its end", 5000, program.saw(/"event":"closed"/));
      const closed = eventsOf(program.stdout).find(({ event }) => event === "closed");
      assertEquals((closed as { overflows: number }).overflows, 0);
    });
  });
});

describe("for people", () => {
  test("each step is a line", async () => {
    const args = ["--rate", "50MB/s", "--duration", "500ms"];
    await serving(args, async (program, port) => {
      const reader = await connect(port);
      const { status, stdout } = await within("done", 15_000, program.ended);
      reader.destroy();
      assertEquals(status, 0);
      assertMatch(
        stdout,
        new RegExp(
          `^listening on 127\\.0\\.0\\.1:${port} \\(\\w+\\): 13 B messages at 3\\.85 M/s ` +
            `\\(50\\.0 MB/s\\) to each reader, on overflow close\\n` +
            `reader 1 connected from 127\\.0\\.0\\.1:\\d+\\n` +
            `reader 1: send buffer full, closing after \\d+ messages, backlog [\\d.]+ \\w?B\\n` +
            `reader 1: closed by the server after [\\d.]+ m?s: \\d+ messages, [\\d.]+ MB\\n` +
            `done: 1 readers, \\d+ messages\\n$`,
        ),
      );
    });
  });
});

describe("--log", () => {
  const stamp = String.raw`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`;
  const linesOf = (file: string) =>
    readFileSync(file, "utf8").trimEnd().split("\n").map((line) => {
      assertMatch(line, new RegExp(`^${stamp} `));
      return line.replace(/^\S+ /, "");
    });

  test("names each message at a low rate, and the reader's end", async () => {
    await withFolder(async (folder) => {
      const log = join(folder, "server.log");
      const args = [...json, "--rate", "200/s", "--duration", "1s", "--log", log];
      await serving(args, async (program, port) => {
        const reader = await connect(port);
        let bytes = 0;
        reader.on("data", (chunk) => bytes += chunk.length).on("end", () => reader.end());
        assertEquals((await within("done", 10_000, program.ended)).status, 0);
        const [first, ...rest] = linesOf(log);
        assertMatch(first!, /200\/s: each is logged$/);
        const end = rest.pop()!;
        assertEquals(
          rest,
          Array.from({ length: bytes / 13 }, (_, i) => `reader 1: sent message ${i + 1}`),
        );
        assertMatch(
          end,
          new RegExp(`^reader 1: closed by the reader after ${bytes / 13} messages$`),
        );
        assertLessOrEqual(Math.abs(rest.length - 200), 1);
        // The log is no part of what is told.
        assert(!program.stdout.includes('"sent"'), program.stdout);
      });
    });
  });

  test("names no rate for a source, which has its own", async () => {
    await withFolder(async (folder) => {
      const log = join(folder, "server.log");
      const args = [...json, "--source", "tcp://127.0.0.1:9", "--log", log];
      await serving(args, () => {
        const [first] = linesOf(log);
        assertEquals(first, "messages as the source sends them: one is logged every 100 ms");
        return Promise.resolve();
      });
    });
  });

  test("samples at a high rate and says so, and ends with the count", async () => {
    await withFolder(async (folder) => {
      const log = join(folder, "server.log");
      writeFileSync(log, "2014-01-01T00:00:00.000Z what was there stays\n");
      const args = [...json, "--rate", "8MB/s", "--log", log];
      await serving(args, async (program, port) => {
        const reader = await connect(port);
        await within("the overflow", 20_000, program.saw(/"event":"closed"/));
        reader.destroy();
        const overflow = eventsOf(program.stdout).find(({ event }) => event === "overflow") as
          & ServeEvent
          & { event: "overflow" };
        await until("the log", 5000, () => /closed by the server/.test(readFileSync(log, "utf8")));
        const lines = linesOf(log);
        assertEquals(lines[0], "what was there stays");
        assertMatch(lines[1]!, /615 k\/s: one is logged every 100 ms$/);
        const full = lines.findIndex((line) => line.includes("send buffer full"));
        assertMatch(
          lines[full]!,
          new RegExp(`^reader 1: send buffer full, closing after ${overflow.messages} messages`),
        );
        const numbers = lines.flatMap((line) => /sent message (\d+)$/.exec(line)?.[1] ?? [])
          .map(Number);
        assertGreater(numbers.length, 0);
        assertLess(numbers.length, 100);
        assertEquals(numbers, numbers.toSorted((a, b) => a - b));
        assertMatch(lines.at(-1)!, /^reader 1: closed by the server after \d+ messages$/);
        // The article's log ends so: messages, then what stopped them.
        const late = lines.slice(full + 1).filter((line) => line.includes("sent message"));
        assertEquals(late, [], "messages logged after the overflow that ended them");
      });
    });
  });
});

describe("its end", () => {
  for (const [signal, expected] of [["SIGINT", 130], ["SIGTERM", 0], ["SIGHUP", 0]] as const) {
    test(`${signal} exits ${expected} at once, hangs up, and frees the port`, async () => {
      await serving([...json, "--overflow", "block", "--rate", "max"], async (program, port) => {
        const stopped = await connect(port);
        const reader = await connect(port);
        reader.resume();
        const gone = new Promise((done) => reader.once("close", done));
        await within("two readers", 5000, program.saw(/"reader":2/));
        const before = performance.now();
        program.kill(signal);
        const { status, stderr, stdout } = await within("its end", 5000, program.ended);
        assertLess(performance.now() - before, 2000);
        assertEquals([status, stderr], [expected, ""]);
        await within("the reader's end", 5000, gone);
        stopped.destroy();
        const names = eventsOf(stdout).map(({ event }) => event).filter((e) => e !== "overflow");
        assertEquals(names, ["listening", "reader", "reader", "closed", "closed", "done"]);
        const again = createServer();
        await new Promise<void>((done, failed) => {
          again.once("error", failed).listen(port, "127.0.0.1", done);
        });
        await new Promise((done) => again.close(done));
      });
    });
  }

  test("SIGINT without a reader", async () => {
    await serving([], async (program) => {
      program.kill("SIGINT");
      const { status, stderr } = await within("its end", 5000, program.ended);
      assertEquals([status, stderr], [130, ""]);
    });
  });
});
