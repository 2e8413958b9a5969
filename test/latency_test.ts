/** How late numbered messages come: against delays that are known, in one process and over two. */
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { assert, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "#std/assert";
import { drain, type DrainOptions } from "../src/read/drain.ts";
import { type Latency, LatencyMeter } from "../src/read/latency.ts";
import type { Connection } from "../src/net/net.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { fillNumbered } from "../src/message/numbered.ts";
import { formatHostPort } from "../src/text/units.ts";
import { send, withServer } from "./peer.ts";
import { run, type RunResult, start } from "./process.ts";
import { within } from "./within.ts";

const nowMs = () => performance.timeOrigin + performance.now();

/** One numbered message for each of these plans, in ms since 1970. */
function planned(plans: readonly number[], size: number, first = 0): Uint8Array {
  const bytes = new Uint8Array(plans.length * size);
  plans.forEach((plannedMs, i) => {
    const into = bytes.subarray(i * size, (i + 1) * size);
    fillNumbered(into, { first: first + i, count: 1, size, plannedMs, everyMs: 0 });
  });
  return bytes;
}

/** Within a share of it, and 2 us for what a double of ms since 1970 is off. */
function assertNear(seconds: number, expected: number, share: number, what: string): void {
  const off = Math.abs(seconds - expected);
  assert(off <= expected * share + 2e-6, `${what}: ${seconds} s, not ${expected} s`);
}

const range = (count: number) => Array.from({ length: count }, (_, i) => i);

describe("the latency meter", () => {
  const READ_MS = 1.8e12;

  test("finds the percentiles of delays from 100 us to 1 s, however it is cut", () => {
    // 10,000 delays: 0.1 ms, 0.2 ms, ... 1 s, in no order.
    const plans = range(10_000).map((i) => READ_MS - ((i * 7919) % 10_000 + 1) / 10);
    for (const size of [20, 64]) {
      const bytes = planned(plans, size);
      for (const cut of [1, 7, 16, 19, size, size + 1, 1000, bytes.length]) {
        const meter = new LatencyMeter({ size });
        for (let at = 0; at < bytes.length; at += cut) {
          meter.push(bytes.subarray(at, at + cut), READ_MS);
        }
        const { p50, p90, p99, p999, p9999, max, ...rest } = meter.result()!;
        const corrected = "planned send time" as const;
        assertEquals(rest, { unit: "seconds" as const, corrected, count: 10_000 });
        const expected = [0.5, 0.9, 0.99, 0.999, 0.9999, 1];
        [p50, p90, p99, p999, p9999, max].forEach((value, i) =>
          assertNear(value, expected[i]!, 0.0015, `${i} of ${size} by ${cut}`)
        );
        assert(p9999 <= max, `${p9999} is above ${max}`);
      }
    }
  });

  test("a message is read when its last byte is", () => {
    const bytes = planned([READ_MS, READ_MS], 64);
    const meter = new LatencyMeter({ size: 64 });
    meter.push(bytes.subarray(0, 60), READ_MS + 1);
    assertEquals(meter.result(), undefined);
    meter.push(bytes.subarray(60, 70), READ_MS + 5);
    meter.push(bytes.subarray(70), READ_MS + 9);
    const { count, p50, max } = meter.result()!;
    assertEquals(count, 2);
    assertNear(p50, 0.005, 0.0015, "p50");
    assertNear(max, 0.009, 0.0015, "max");
  });

  test("what was planned while it settles is left out, whenever it comes", () => {
    const meter = new LatencyMeter({ size: 20, settleMs: 100 });
    meter.push(planned([READ_MS - 50], 20), READ_MS);
    meter.push(planned([READ_MS + 99], 20), READ_MS + 500);
    assertEquals(meter.result(), undefined);
    meter.push(planned([READ_MS + 101], 20), READ_MS + 501);
    assertEquals(meter.result()!.count, 1);
    assertNear(meter.result()!.max, 0.4, 0.0015, "max");
  });

  test("a plan in the future is on time, one that is days off is no plan", () => {
    const meter = new LatencyMeter({ size: 20 });
    meter.push(planned([READ_MS + 3, 0, READ_MS * 2, READ_MS - 86_400_001], 20), READ_MS);
    const { count, implausible, p9999, max } = meter.result()!;
    assertEquals([count, implausible, max], [1, 3, 0]);
    assert(p9999 <= max);
    assertThrows(
      () => new LatencyMeter({ size: 19 }),
      RangeError,
      "must be a whole number of at least 20",
    );
  });
});

const drained = async (
  serve: (connection: Connection) => Promise<void>,
  options: DrainOptions,
): Promise<Latency> => {
  const { latency } = await within(
    "drain",
    10_000,
    withServer(
      async (connection) => {
        await serve(connection);
        await connection.closeWrite();
      },
      (address) => drain({ ...address, ...options }),
    ),
  );
  return latency!;
};

describe(`drain that measures latency, on ${runtime}`, () => {
  test("of messages planned so long ago", async () => {
    for (const [size, readSize] of [[64, undefined], [1000, 10], [200_000, 65_536]] as const) {
      // Of 100: 80 are 60 s late, 15 are 120 s, 5 are 600 s.
      const ago = range(100).map((i) => i < 80 ? 60e3 : i < 95 ? 120e3 : 600e3);
      const latency = await drained(
        (connection) => send(connection, planned(ago.map((ms) => nowMs() - ms), size)),
        { readSize, latency: { size } },
      );
      assertEquals(latency.count, 100);
      assertNear(latency.p50, 60, 0.02, "p50");
      assertNear(latency.p90, 120, 0.02, "p90");
      assertNear(latency.p99, 600, 0.02, "p99");
      assertNear(latency.max, 600, 0.02, "max");
    }
  });

  test("a sender that was kept waiting does not hide it", async () => {
    // A message a ms; those of the last 400 ms leave together at the end of the second. A timer may
    // end 2 ms early, so what is asked of them leaves 20 ms.
    const lateness: number[] = [];
    const latency = await drained(async (connection) => {
      const startMs = nowMs();
      const plan = (i: number) => startMs + i;
      for (let sent = 0; sent < 1000;) {
        await sleep(sent < 600 ? 5 : Math.max(0, plan(1000) - nowMs()));
        const due = Math.min(sent < 600 ? 600 : 1000, Math.floor(nowMs() - startMs));
        if (due <= sent) continue;
        const plans = range(due - sent).map((i) => plan(sent + i));
        lateness.push(...plans.map((planMs) => (nowMs() - planMs) / 1000));
        await send(connection, planned(plans, 64, sent));
        sent = due;
      }
    }, { latency: { size: 64 } });
    assertEquals(latency.count, 1000);
    // From the send, all of them would have come within a few ms.
    assert(latency.p90 > 0.28, `p90 ${latency.p90}`);
    assert(latency.max > 0.38, `max ${latency.max}`);
    // And it makes no more of it than there was: this process sends late when others have the core.
    const sorted = lateness.toSorted((a, b) => a - b);
    for (const [name, share] of [["p50", 0.5], ["p90", 0.9], ["max", 1]] as const) {
      const sent = sorted[Math.ceil(share * sorted.length) - 1]!;
      assert(latency[name] > 0.99 * sent - 0.002, `${name} ${latency[name]}, sent ${sent}`);
      assert(latency[name] < 1.01 * sent + 0.25, `${name} ${latency[name]}, sent ${sent}`);
    }
  });

  test("verifies as well, and the handler may change what it gets", async () => {
    const handler = (chunk: Uint8Array) => void chunk.fill(0);
    const options = { handler, verify: { size: 64 }, latency: { size: 64 } };
    const latency = await drained(
      (connection) => send(connection, planned(range(500).map(() => nowMs() - 60e3), 64)),
      options,
    );
    assertEquals([latency.count, latency.implausible], [500, undefined]);
  });

  test("options that cannot be are refused", async () => {
    for (const latency of [{ size: 19 }, { size: 64, settleMs: -1 }, { size: 64, settleMs: NaN }]) {
      const error = await drain({ port: 1, latency }).catch((error) => error);
      assert(error instanceof RangeError, String(error));
    }
  });
});

describe(`client.ts --latency on ${runtime}`, () => {
  const measured = (bytes: () => Uint8Array, args: readonly string[]): Promise<RunResult> =>
    withServer(
      async (connection) => {
        await send(connection, bytes());
        await connection.closeWrite();
      },
      (address) => run(["client.ts", formatHostPort(address), "--latency", ...args]),
    );

  test("a table for people, an object in the JSON", async () => {
    // When the client has connected: its start may take long.
    const minuteAgo = (size: number) => () => planned(range(1000).map(() => nowMs() - 60e3), size);
    const people = await measured(minuteAgo(64), []);
    assertEquals(people.status, 0, people.stderr);
    assertStringIncludes(
      people.stdout,
      "\nfrom the planned send to the read, of 1.00 k messages; corrected for coordinated omission\n",
    );
    assertMatch(people.stdout, /\np50 +p90 +p99 +p99\.9 +p99\.99 +max\n(6\d\.\d s *){6}\n$/);
    const { status, stdout } = await measured(minuteAgo(1024), ["--size", "1k", "--json"]);
    const { latency } = JSON.parse(stdout);
    assertEquals(status, 0);
    assertEquals([latency.unit, latency.corrected], ["seconds", "planned send time"]);
    assertEquals(latency.count, 1000);
    for (const name of ["p50", "p90", "p99", "p999", "p9999", "max"]) {
      assertNear(latency[name], 60, 0.05, name);
    }
  });

  test("messages that carry no time: one line, exit 1", async () => {
    for (const args of [[], ["--json"]]) {
      const { status, stderr } = await measured(() => new Uint8Array(6400).fill(65), args);
      assertEquals(status, 1);
      assertMatch(
        stderr,
        /client: nothing to measure: no message of 64 bytes carries a time[^\n]+\n$/,
      );
    }
  });

  test("what it needs", async () => {
    for (
      const [args, message] of [
        [["--size", "64"], "--size needs --verify or --latency"],
        [["--settle", "1s"], "--settle needs --latency"],
        [["--verify", "--settle", "1s"], "--settle needs --latency"],
        [["--latency", "--settle", "x"], "must be a duration"],
      ] as const
    ) {
      const { status, stdout, stderr } = await run(["client.ts", ...args]);
      assertEquals([status, stdout], [2, ""]);
      assertStringIncludes(stderr, message);
    }
  });

  test("over two processes, from our server, at a rate that is easy", async () => {
    const args = "--port 0 --message numbered --rate 10k/s --ack none --duration 500ms --json"
      .split(
        " ",
      );
    const server = start(["server.ts", ...args, "--overflow", "block"]);
    const [, port] = await within("server", 10_000, server.saw(/"port":(\d+)/));
    const client = await run(["client.ts", `127.0.0.1:${port}`, "--latency", "--json"]);
    assertEquals(client.status, 0, client.stderr);
    const { latency } = JSON.parse(client.stdout);
    assertEquals([latency.count, latency.implausible], [5000, undefined]);
    // Planned and read by the clocks of two processes: one that is off by much would show.
    assert(latency.p50 > 0 && latency.p50 < 0.5, `p50 ${latency.p50}`);
    assert(latency.max >= latency.p50 && latency.max < 20, `max ${latency.max}`);
    assertEquals((await within("server's end", 10_000, server.ended)).status, 0);
  });
});

describe(`bench/latency.ts with a reader on ${runtime}`, () => {
  test("a row for each rate, and none for what the sender cannot make", async () => {
    const args = ["bench/latency.ts", "--quick", "--runtime", runtime, "--size", "1k", "--json"];
    const bench = (limit: string) => run([...args, "--limit", limit], { timeoutMs: 40_000 });
    const { status, stdout, stderr } = await bench("20MB/s");
    assertEquals(status, 0, stderr);
    const { schema, corrected, rows, skipped } = JSON.parse(stdout);
    assertEquals([schema, corrected], ["speedlimit/latency@1", "planned send time"]);
    assertEquals(skipped, []);
    assertEquals(rows.map(({ rate }: { rate: number }) => rate), [10e6, 21e6]);
    for (const { rate, messages, ...times } of rows) {
      // The last 0.3 of 0.6 s, and what was planned while the reader was not there yet.
      // Never more; fewer where the sender was kept from making them.
      const most = rate / 1024 * 0.3;
      assert(messages > 0 && messages < 1.2 * most, `${messages} at ${rate}`);
      const { p50, p90, p99, p999, p9999, max } = times;
      const rising = [0, p50, p90, p99, p999, p9999, max];
      assertEquals(rising, rising.toSorted((a, b) => a - b));
      assert(p50 > 0 && max < 30, JSON.stringify(times));
    }
    const fast = await bench("1000GB/s");
    assertEquals([fast.status, JSON.parse(fast.stdout).rows.length], [0, 0], fast.stderr);
    assertMatch(fast.stderr, /500 GB\/s is left out: a server on deno can only send/);
  });
});
