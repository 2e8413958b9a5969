/** serve() as a library: several readers, its end, what it refuses, and the rate that it keeps. */
import { describe, test } from "node:test";
import { readdirSync } from "node:fs";
import { assert, assertEquals, assertGreater, assertLess, assertLessOrEqual } from "#std/assert";
import { connectionState, kernelSource } from "../src/kernel/kernel.ts";
import { libc } from "../src/kernel/libc.ts";
import { textMessage } from "../src/message/message.ts";
import { NetError } from "../src/net/net.ts";
import { serve, type Server } from "../src/relay/serve.ts";
import type { ServeEvent } from "../src/relay/serve_event.ts";
import type { ServeOptions } from "../src/relay/serve_options.ts";
import {
  type Event,
  MESSAGE,
  readAll,
  serving,
  SIZE,
  SMALL,
  withoutSmallBuffers,
} from "./serve_here.ts";
import { until, within } from "./within.ts";
import { setTimeout as sleep } from "node:timers/promises";

describe("several readers", () => {
  test("each has a flood of its own: one that stops takes nothing from the other", async (t) => {
    if (withoutSmallBuffers(t)) return;
    const rate = 20_000;
    // Half a second's worth: so long the one that reads may be kept from its core.
    const flood = { sendBuffer: SMALL, rate, durationMs: 1000, backlog: rate / 2 * SIZE };
    await serving({ ...flood, overflow: "drop" }, async ({ connect, saw, server }) => {
      const stopped = await connect();
      await saw("reader", 1);
      const reader = await connect();
      const read = await readAll(reader);
      const [first, second] = [await saw("reader", 1), await saw("reader", 2)];
      const closed = await saw("closed", 2);
      assertEquals(read.bytes, closed.bytes);
      // Its flood began when it came, and both end with the server's duration.
      const due = (1 - (second.time - first.time)) * rate;
      assertLess(Math.abs(closed.messages + closed.dropped - due), 0.05 * rate);
      assertLess(closed.dropped, 0.2 * rate);
      const rest = await readAll(stopped);
      const slow = await saw("closed", 1);
      assertEquals(rest.bytes, slow.bytes);
      assertGreater(slow.dropped, 0.3 * rate);
      const total = await within("done", 5000, server.done);
      assertEquals(total.readers, 2);
      for (const key of ["messages", "bytes", "dropped", "overflows"] as const) {
        assertEquals(total[key], closed[key] + slow[key]);
      }
    });
  });

  test("maxReaders: a further one is disconnected, until there is room", async () => {
    await serving({ rate: 10, maxReaders: 2 }, async ({ connect, saw, all }) => {
      const readers = [await connect(), await connect()];
      await saw("reader", 2);
      const third = await connect();
      assertEquals((await saw("refused")).readers, 2);
      assertEquals(await within("its end", 2000, third.read(10)), null);
      assertEquals(all("reader").length, 2);
      readers[0]!.close();
      await saw("closed", 1);
      const fourth = await connect();
      await saw("reader", 3);
      assertGreater((await within("a message", 5000, fourth.read(10)))!.length, 0);
    });
  });

  test("a reader that leaves is told of, and the others go on", async () => {
    await serving({ rate: 1000 }, async ({ connect, saw }) => {
      const [leaving, staying] = [await connect(), await connect()];
      await within("a message", 5000, leaving.read(10));
      leaving.reset();
      const closed = await saw("closed", 1);
      assertEquals([closed.reason, closed.overflows], ["reset", 0]);
      for (let i = 0; i < 10; i++) {
        assertGreater((await within("a message", 5000, staying.read(SIZE)))!.length, 0);
      }
    });
  });
});

function abortable(): { signal: AbortSignal; abort: () => void } {
  const controller = new AbortController();
  return { signal: controller.signal, abort: () => controller.abort() };
}

describe("the end", () => {
  const ends = {
    "stop()": (server: Server) => void server.stop(),
    "the signal": (_: Server, abort: () => void) => abort(),
  };
  for (const [name, end] of Object.entries(ends)) {
    test(`${name} hangs up on all, frees the port, and is told of once`, async () => {
      const before = openDescriptors();
      const { signal, abort } = abortable();
      const options = { overflow: "block", signal } as const;
      await serving(options, async ({ connect, server, saw, all, events, net }) => {
        const readers = [await connect(), await connect(), await connect()];
        await saw("reader", 3);
        const reading = readers.map(readAll);
        end(server, abort);
        const result = await within("done", 2000, server.done);
        for (const { closed, bytes } of await Promise.all(reading)) {
          assertEquals(closed.reason, "eof");
          assertLessOrEqual(bytes, result.bytes);
        }
        assertEquals(result.readers, 3);
        assertEquals(all("closed").map(({ reason }) => reason), ["local", "local", "local"]);
        const error = await connect().then(() => undefined, (error) => error);
        assertEquals((error as NetError)?.code, "ECONNREFUSED");
        assertEquals(await within("a second stop", 2000, server.stop()), result);
        await sleep(50);
        assertEquals(all("done").length, 1);
        assertEquals(events.at(-1)!.event, "done");
        const again = await net.listen({ ...server.address, onConnection() {} });
        await again.close();
      });
      if (before !== undefined) {
        await until("descriptors", 5000, () => openDescriptors()! <= before);
      }
    });
  }

  for (const [name, end] of Object.entries(ends)) {
    test(`${name} ends it too while it delivers what is pending to a reader that stopped`, async (t) => {
      if (withoutSmallBuffers(t)) return;
      const { signal, abort } = abortable();
      const options = { sendBuffer: SMALL, overflow: "block", durationMs: 100, signal } as const;
      await serving(options, async ({ connect, server, saw, all }) => {
        await connect();
        await saw("overflow");
        await sleep(200);
        assertEquals(all("closed"), []);
        end(server, abort);
        await within("done", 2000, server.done);
        assertEquals((await saw("closed")).reason, "local");
      });
    });
  }

  test("a signal that is aborted already ends it at once", async () => {
    const events: ServeEvent[] = [];
    const server = await serve({
      port: 0,
      message: MESSAGE,
      rate: 1,
      signal: AbortSignal.abort(),
      onEvent: (event) => events.push(event),
    });
    const result = await within("done", 2000, server.done);
    assertEquals([result.readers, result.messages], [0, 0]);
    assertEquals(events.map(({ event }) => event), ["listening", "done"]);
  });

  test("a reader that is stopped for good does not keep stop() waiting", async (t) => {
    if (withoutSmallBuffers(t)) return;
    await serving({ sendBuffer: SMALL, overflow: "block" }, async ({ connect, saw, server }) => {
      await connect();
      await saw("overflow");
      await within("done", 2000, server.stop());
    });
  });

  test("events come in order: listening, reader, overflow, closed, done", async (t) => {
    if (withoutSmallBuffers(t)) return;
    await serving({ sendBuffer: SMALL, durationMs: 300 }, async ({ connect, server, events }) => {
      const reader = await connect();
      await within("done", 5000, server.done);
      assertEquals(
        events.map(({ event }) => event),
        ["listening", "reader", "overflow", "closed", "done"],
      );
      const times = events.map(({ time }) => time);
      assertEquals(times, times.toSorted((a, b) => a - b));
      const [listening, connected] = events as [Event<"listening">, Event<"reader">];
      assertEquals(listening.port, server.address.port);
      assertEquals({ host: connected.host, port: connected.port }, reader.local);
    });
  });
});

const openDescriptors = (): number | undefined => {
  try {
    return readdirSync("/proc/self/fd").length;
  } catch {
    return undefined;
  }
};

describe("what cannot be", () => {
  test("a port in use, a name that does not resolve: one line each", async () => {
    await serving({ rate: 1 }, async ({ server: { address } }) => {
      const refused = async (options: Partial<ServeOptions>): Promise<NetError> => {
        const serving = serve({ port: 0, message: MESSAGE, rate: 1, ...options });
        const error = await within("the refusal", 10_000, serving.then(() => undefined, (e) => e));
        assert(error instanceof NetError, `${JSON.stringify(options)}: ${error}`);
        assertEquals(error.message.split("\n").length, 1);
        return error;
      };
      assertEquals((await refused({ port: address.port })).code, "EADDRINUSE");
      assertEquals((await refused({ host: "no.such.invalid" })).code, "ENOTFOUND");
    });
  });

  test("a message of no bytes", () => {
    const error = (() => {
      try {
        return textMessage("");
      } catch (error) {
        return error;
      }
    })();
    assert(error instanceof RangeError, String(error));
  });

  test("a send buffer without libc says why, and with it the buffer is small", async () => {
    if (typeof libc === "string") {
      const serving = serve({ port: 0, message: MESSAGE, rate: 1, sendBuffer: SMALL });
      const error: unknown = await serving.then(() => undefined, (e) => e);
      assert(error instanceof Error && error.message.includes(libc), String(error));
      return;
    }
    await serving({ sendBuffer: SMALL, overflow: "drop" }, async ({ connect, saw }) => {
      const reader = await connect();
      await saw("overflow");
      if (kernelSource !== "sock_diag") return;
      await sleep(50);
      const { near } = connectionState(reader.remote, reader.local);
      // At least two segments of loopback's 64 KiB may wait in any; without the option it is 2.6 MB.
      assertLessOrEqual(near!.sendQueue, 200_000);
    });
  });
});

describe("the pacer keeps its rate within 0.1 %", () => {
  for (const rate of [1000, 30_000, 1_000_000]) {
    test(`${rate}/s`, async () => {
      const samples = await sentSamples(rate);
      const quarter = samples.length >> 2;
      // The least late of many: a neighbour on the same core makes some late, and not all.
      const early = Math.min(...samples.slice(0, quarter).map((sample) => sample.late));
      const late = Math.min(...samples.slice(-quarter).map((sample) => sample.late));
      const seconds = samples.at(-1)!.time - samples[0]!.time;
      // What is due is a whole number of messages.
      const most = 0.001 * seconds + 1 / rate;
      assert(Math.abs(late - early) <= most, `${early} s late at first, then ${late} s`);
    });
  }
});

/** How late the schedule of a draining reader is, every few ms over 1.2 s. Seconds. */
async function sentSamples(rate: number): Promise<{ time: number; late: number }[]> {
  const samples: { time: number; late: number }[] = [];
  const options = { message: textMessage("Hello World!\0"), rate, overflow: "block" } as const;
  await serving({ ...options, sentEveryMs: 5 }, async ({ connect, saw, all }) => {
    const reader = await connect();
    const { time: start } = await saw("reader");
    let bytes = 0;
    while ((all("sent").at(-1)?.time ?? 0) < start + 1.3) {
      const chunk = await within("the next bytes", 5000, reader.read(65_536));
      bytes += chunk!.length;
    }
    const sent = all("sent").filter(({ time }) => time > start + 0.1);
    for (const { time, messages } of sent) {
      assertLessOrEqual(messages, (time - start) * rate + 1, "more than is due");
      samples.push({ time, late: time - start - messages / rate });
    }
    assertLessOrEqual(bytes, (sent.at(-1)!.messages + rate) * 13);
  });
  return samples;
}
