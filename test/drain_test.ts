/** The drain client against servers of this same process. */
import { describe, test } from "node:test";
import { assert, assertEquals, assertGreater, assertLess, assertRejects } from "#std/assert";
import { type Connection, loadAdapter, NetError, runtime } from "../src/net.ts";
import { drain, type DrainOptions, type DrainResult, NAIVE_REPLY } from "../src/drain.ts";
import { bufferSize, connectionState } from "../src/kernel.ts";
import { flood, PATTERN, readAll, send, sendAndFinish, withServer } from "./peer.ts";
import { until, within } from "./within.ts";

const net = await loadAdapter();
const MIB = 1 << 20;
/** Of an outgoing connection that is asked for 64 KiB a read. */
const READ_AHEAD = { deno: 0, bun: 524_288, node: 65_536 };

const drainWithin = (options: DrainOptions): Promise<DrainResult> =>
  within("the drain", 20_000, drain(options));

/** How many of the bytes are as they were sent, from the first on. */
function intact(bytes: Uint8Array): number {
  const damaged = bytes.findIndex((byte, i) => byte !== PATTERN[i]);
  return damaged < 0 ? bytes.length : damaged;
}

describe(`drain on ${runtime}`, () => {
  test("takes all there is, does not reply, and sees the end", async () => {
    const result = await withServer(
      (connection) => sendAndFinish(connection, 3 * MIB + 1),
      (address) => drainWithin(address),
    );
    assertEquals([result.ended, result.errno, result.mode], ["eof", undefined, "drain"]);
    assertEquals([result.bytes, result.replies, result.readSize], [3 * MIB + 1, 0, 65_536]);
    assertEquals([result.runtime, result.readAhead], [runtime, READ_AHEAD[runtime]]);
    assertEquals(result.forwarded, undefined);
    assert(result.reads >= 49 && result.seconds > 0, `${result.reads} in ${result.seconds} s`);
    assertEquals(result.bytesPerSecond, result.bytes / result.seconds);
  });

  test("the naive one reads 10 bytes at most, and replies to each read", async () => {
    const sizes = new Set<number>();
    const replies = Promise.withResolvers<Uint8Array>();
    const result = await withServer((connection) => {
      void sendAndFinish(connection, 10_001);
      replies.resolve(readAll(connection));
    }, async (address) => {
      const handler = (chunk: Uint8Array) => void sizes.add(chunk.length);
      const result = await drainWithin({ ...address, mode: "naive", handler });
      const text = new TextDecoder().decode(await within("replies", 5000, replies.promise));
      assertEquals(text, NAIVE_REPLY.repeat(result.replies));
      return result;
    });
    assertEquals([result.ended, result.bytes, result.readSize], ["eof", 10_001, 10]);
    assertEquals(result.reads, result.replies);
    assertGreater(result.reads, 1000);
    assertEquals(Math.max(...sizes), 10);
  });

  test("the handler sees every byte once, in order, and one chunk at a time", async () => {
    for (const pause of [false, true]) {
      let offset = 0;
      let inside = 0;
      const handler = async (chunk: Uint8Array) => {
        assertEquals(++inside, 1);
        const before = chunk.slice();
        if (pause) await new Promise((resolve) => setTimeout(resolve, 1));
        for (let i = 0; i < chunk.length; i++, offset++) {
          if (chunk[i] !== before[i] || chunk[i] !== PATTERN[offset]) {
            throw new Error(`damage at byte ${offset}`);
          }
        }
        inside--;
      };
      const result = await withServer(
        (connection) => sendAndFinish(connection, 2 * MIB),
        (address) => drainWithin({ ...address, handler, readSize: 40_000 }),
      );
      assertEquals([result.ended, result.bytes, offset], ["eof", 2 * MIB, 2 * MIB]);
    }
  });

  test("stops at the count, to the byte", async () => {
    for (const count of [1, 10, 65_537, 9 * MIB + 3]) {
      let seen = 0;
      const handler = (chunk: Uint8Array) => void (seen += chunk.length);
      const result = await withServer(
        flood,
        (address) => drainWithin({ ...address, count, handler }),
      );
      assertEquals([result.ended, result.bytes, seen], ["count", count, count]);
    }
  });

  test("stops when its time is up: idle, flooded, or busy", async () => {
    const cases: [serve: (connection: Connection) => unknown, options: DrainOptions][] = [
      [() => {}, {}],
      [flood, {}],
      [flood, { mode: "naive", reply: null }],
      [flood, { mode: "naive", reply: null, workMs: 0.5 }],
      [flood, { workMs: 30 }],
      [flood, { handler: () => new Promise(() => {}) }],
    ];
    for (const [serve, options] of cases) {
      const { ended, seconds } = await withServer(
        serve,
        (address) => drainWithin({ ...address, ...options, durationMs: 150 }),
      );
      assertEquals(ended, "time");
      assert(seconds >= 0.145 && seconds < 1.5, `${seconds} s`);
    }
  });

  test("works as long as it is told after each read", async () => {
    const { reads, seconds, ended } = await withServer(
      (connection) => sendAndFinish(connection, 100),
      (address) => drainWithin({ ...address, readSize: 5, workMs: 4 }),
    );
    assertEquals([reads, ended], [20, "eof"]);
    assert(seconds >= 0.08 && seconds < 2, `${seconds} s`);
  });

  test("a server that resets is told by its errno", async (t) => {
    if (!net.canReset) return t.skip("this runtime has no way to send RST without libc");
    const result = await withServer(async (connection) => {
      await send(connection, PATTERN.subarray(0, 1000));
      const state = () => connectionState(connection.local, connection.remote);
      // The reset discards what the reader has not taken.
      await until("taken", 5000, () => (state().far?.receiveQueue ?? 0) === 0);
      connection.reset();
    }, (address) => drainWithin(address));
    assertEquals([result.ended, result.errno], ["reset", "ECONNRESET"]);
    assert(result.bytes <= 1000);
  });

  test("a naive reader whose replies nobody reads blocks, and stops reading", async () => {
    const result = await withServer(
      flood,
      (address) =>
        drainWithin({ ...address, mode: "naive", reply: "x".repeat(MIB), durationMs: 1500 }),
    );
    assertEquals(result.ended, "time");
    // Each reply is 1 MiB: both socket buffers are full of them after a few.
    assertLess(result.replies, 100);
    assertLess(result.reads, 101);
  });

  test("a signal interrupts it: already given, while connected, and while it blocks", async () => {
    const given = await withServer(flood, (address) => {
      return drainWithin({ ...address, signal: AbortSignal.abort() });
    });
    assertEquals([given.ended, given.bytes, given.bytesPerSecond], ["interrupted", 0, 0]);
    for (const options of [{}, { mode: "naive", reply: "x".repeat(MIB) }] as const) {
      const stop = new AbortController();
      const onConnected = () => void setTimeout(() => stop.abort(), 100);
      const result = await withServer(flood, (address) => {
        return drainWithin({ ...address, ...options, signal: stop.signal, onConnected });
      });
      assertEquals(result.ended, "interrupted");
      assertGreater(result.bytes, 0);
    }
  });

  test("a handler that throws, at once or later, ends it with its message", async () => {
    const handlers: [DrainOptions["handler"], string][] = [
      [() => {
        throw new Error("out of cheese");
      }, "out of cheese"],
      [() => Promise.reject(new Error("no more cheese")), "no more cheese"],
      [() => {
        throw "only a text";
      }, "only a text"],
    ];
    for (const [handler, message] of handlers) {
      await withServer(flood, async (address) => {
        const draining = within("the drain", 5000, drain({ ...address, handler, readSize: 10 }));
        const error = await assertRejects(() => draining, Error);
        assertEquals(error.message, `the handler failed after 10 B: ${message}`);
      });
    }
  });

  test("what cannot be connected to is a NetError", async () => {
    const { port } = await withServer(() => {}, (address) => Promise.resolve(address));
    const error = await assertRejects(() => drainWithin({ port }), NetError);
    assertEquals(error.code, "ECONNREFUSED");
  });

  test("options that cannot be are refused by name", async () => {
    const wrong: [DrainOptions, string][] = [
      [{ readSize: 0 }, "readSize must be a whole number above zero, is 0"],
      [{ readSize: 1.5 }, "readSize must be"],
      [{ count: -1 }, "count must be"],
      [{ receiveBuffer: NaN }, "receiveBuffer must be"],
      [{ durationMs: 2 ** 31 }, "durationMs must be"],
      [{ workMs: -1 }, "workMs must be"],
    ];
    for (const [options, message] of wrong) {
      await assertRejects(() => drain(options), RangeError, message);
    }
  });

  test("the receive buffer is set, or it says why not", async () => {
    const canSet = await withServer(() => {}, async (address) => {
      const connection = await net.connect(address);
      const { fd } = connection;
      const known = fd !== undefined && bufferSize(fd, "receive") !== undefined;
      connection.close();
      return known;
    });
    const draining = withServer(
      (connection) => sendAndFinish(connection, MIB),
      (address) => drainWithin({ ...address, receiveBuffer: 65_536 }),
    );
    if (canSet) assertEquals((await draining).bytes, MIB);
    else await assertRejects(() => draining, Error, "cannot set the receive buffer to 64k: ");
  });
});

describe(`drain that forwards, on ${runtime}`, () => {
  test("everything arrives in order, and what the far server replies does no harm", async () => {
    const received = Promise.withResolvers<Uint8Array>();
    const result = await withServer(
      (far) => {
        void flood(far);
        received.resolve(readAll(far).finally(() => far.close()));
      },
      (forward) =>
        withServer(
          (connection) => sendAndFinish(connection, 4 * MIB),
          (address) => drainWithin({ ...address, forward }),
        ),
    );
    assertEquals([result.ended, result.bytes, result.forwarded], ["eof", 4 * MIB, 4 * MIB]);
    const bytes = await within("the far end", 5000, received.promise);
    assertEquals([bytes.length, intact(bytes)], [4 * MIB, 4 * MIB]);
  });

  test("the handler's result is what goes on, and nothing where there is none", async () => {
    let calls = 0;
    const handler = (chunk: Uint8Array) => calls++ % 2 === 0 ? chunk.subarray(0, 1) : undefined;
    const received = Promise.withResolvers<Uint8Array>();
    const result = await withServer(
      (far) => received.resolve(readAll(far).finally(() => far.close())),
      (forward) =>
        withServer(
          (connection) => sendAndFinish(connection, 1000),
          (address) => drainWithin({ ...address, forward, handler, readSize: 10 }),
        ),
    );
    assertEquals([result.bytes, result.forwarded], [1000, Math.ceil(calls / 2)]);
    assertEquals((await within("the far end", 5000, received.promise)).length, result.forwarded);
  });

  test("a far server that does not read stops the reading", async () => {
    const gate = Promise.withResolvers<void>();
    const received = Promise.withResolvers<Uint8Array>();
    let read = 0;
    const result = await withServer(
      (far) => received.resolve(gate.promise.then(() => readAll(far)).finally(() => far.close())),
      (forward) =>
        withServer(flood, async (address) => {
          const handler = (chunk: Uint8Array) => (read += chunk.length, chunk);
          const draining = drainWithin({ ...address, forward, handler, count: 64 * MIB });
          // It stops when the buffers between here and there are full: then nothing moves.
          for (let before = -1; before !== read;) {
            before = read;
            await new Promise((resolve) => setTimeout(resolve, 300));
          }
          assertLess(read, 40 * MIB);
          gate.resolve();
          return await draining;
        }),
    );
    assertEquals([result.ended, result.bytes, result.forwarded], ["count", 64 * MIB, 64 * MIB]);
    assertEquals((await within("the far end", 20_000, received.promise)).length, 64 * MIB);
  });

  test("a far server that goes away, is not there, or a result of the wrong kind", async () => {
    const gone = (serve: (far: Connection) => unknown, more: DrainOptions = {}) =>
      withServer(
        serve,
        (forward) => withServer(flood, (address) => drainWithin({ ...address, forward, ...more })),
      );
    await assertRejects(() => gone((far) => far.close()), NetError, "cannot forward to 127.0.0.1:");
    const handler = (() => 7) as unknown as NonNullable<DrainOptions["handler"]>;
    const message = "must return a Uint8Array or nothing to forward, not a number";
    await assertRejects(() => gone(() => {}, { handler }), Error, message);
    const { port } = await withServer(() => {}, (address) => Promise.resolve(address));
    const nobody = { forward: { host: "127.0.0.1", port } };
    await assertRejects(() => gone(() => {}, nobody), NetError, "cannot connect to");
  });
});
