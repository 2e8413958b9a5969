/** The drain client against servers of this same process. */
import { describe, test } from "node:test";
import {
  assert,
  assertEquals,
  assertGreater,
  assertLess,
  assertLessOrEqual,
  assertRejects,
} from "#std/assert";
import { ProtocolError } from "../src/message/protocol.ts";
import { OtherStreamError } from "../src/read/acknowledger.ts";
import { type Connection, NetError } from "../src/net/net.ts";
import { loadAdapter } from "../src/net/load.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { drain, type DrainOptions, type DrainResult, NAIVE_REPLY } from "../src/read/drain.ts";
import { bufferSize } from "../src/kernel/socket_calls.ts";
import { connectionState } from "../src/kernel/kernel.ts";
import { fillNumbered } from "../src/message/numbered.ts";
import { AckPeer, type AckPeerOptions, STREAM } from "./ack_peer.ts";
import { flood, PATTERN, readAll, send, sendAndFinish, withServer } from "./peer.ts";
import { skip } from "./skip.ts";
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
    if (!net.canReset) return skip(t, "this runtime has no way to send RST without libc");
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
      [{ hello: "" }, 'hello must be 1 to 64 of A-Z a-z 0-9 . _ -, is ""'],
      [{ hello: "a\nb" }, "hello must be"],
      [{ verify: { size: 19 } }, "must be a whole number of at least 20, is 19"],
      [{ ack: { offset: 5 } }, "must be given together"],
      [{ ack: { stream: STREAM } }, "must be given together"],
      [{ ack: { offset: -1, stream: STREAM } }, "ack.offset must be a whole number"],
      [{ ack: { offset: 0.5, stream: STREAM } }, "ack.offset must be"],
      [{ ack: { offset: 0, stream: "x" } }, 'ack.stream must be 16 hex digits, is "x"'],
      [{ ack: {}, mode: "naive" }, "ack excludes replies"],
      [{ ack: {}, reply: "hi" }, "ack excludes replies"],
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

describe(`drain that verifies, on ${runtime}`, () => {
  const good = { missing: 0, duplicates: 0, outOfOrder: 0, damaged: 0 };
  const numbered = (first: number, count: number, size: number): Uint8Array => {
    const bytes = new Uint8Array(count * size);
    fillNumbered(bytes, { first, count, size, plannedMs: Date.now(), everyMs: 0 });
    return bytes;
  };
  const sendNumbered = async (connection: Connection, ...parts: Uint8Array[]) => {
    for (const part of parts) await send(connection, part);
    await connection.closeWrite();
  };

  test("finds nothing wrong, in reads of any size, and shows the handler all", async () => {
    for (const [size, readSize] of [[64, undefined], [20, 10], [1000, 777]] as const) {
      let seen = 0;
      const handler = (chunk: Uint8Array) => {
        seen += chunk.length;
        chunk.fill(0);
      };
      const { verified, bytes, ended } = await withServer(
        (connection) => sendNumbered(connection, numbered(0, 5000, size)),
        (address) => drainWithin({ ...address, readSize, handler, verify: { size } }),
      );
      assertEquals(verified, { messages: 5000, ...good });
      assertEquals([ended, bytes, seen], ["eof", 5000 * size, 5000 * size]);
    }
  });

  test("finds what is wrong, and what is cut off", async () => {
    const damaged = numbered(14, 1, 64);
    damaged[40]! ^= 4;
    const { verified } = await withServer(
      (connection) =>
        sendNumbered(
          connection,
          numbered(0, 10, 64),
          numbered(9, 1, 64),
          numbered(12, 2, 64),
          damaged,
          numbered(11, 1, 64),
          numbered(15, 1, 64).subarray(0, 63),
        ),
      (address) => drainWithin({ ...address, verify: { size: 64 } }),
    );
    const wrong = { missing: 1, duplicates: 1, outOfOrder: 1, damaged: 1 };
    assertEquals(verified, { messages: 15, ...wrong, partial: 63 });
  });

  test("what it forwards is what it read", async () => {
    const bytes = numbered(0, 2000, 64);
    const received = Promise.withResolvers<Uint8Array>();
    const { verified, forwarded } = await withServer(
      (far) => received.resolve(readAll(far).finally(() => far.close())),
      (forward) =>
        withServer(
          (connection) => sendNumbered(connection, bytes),
          (address) => drainWithin({ ...address, forward, verify: { size: 64 } }),
        ),
    );
    assertEquals([verified, forwarded], [{ messages: 2000, ...good }, bytes.length]);
    assertEquals(await within("the far end", 5000, received.promise), bytes);
  });
});

describe(`drain that acknowledges, on ${runtime}`, () => {
  const SIZE = 100;
  const good = { missing: 0, duplicates: 0, outOfOrder: 0, damaged: 0 };
  const withPeer = async <T>(
    options: Omit<AckPeerOptions, "size">,
    use: (address: { host: string; port: number }, peer: AckPeer) => Promise<T>,
  ): Promise<T> => {
    const peer = new AckPeer({ size: SIZE, ...options });
    return await withServer(peer.serve, async (address) => {
      const result = await use(address, peer);
      await within("the server's end", 5000, peer.ended);
      return result;
    });
  };

  test("says its name, and no more", async () => {
    const name = Promise.withResolvers<string>();
    const { ended, stored, missed } = await withServer(
      async (connection) => {
        const line = await connection.read(100);
        name.resolve(new TextDecoder().decode(line ?? undefined));
        await sendAndFinish(connection, 1000);
      },
      (address) => drainWithin({ ...address, hello: "worker-1" }),
    );
    assertEquals([ended, stored, missed], ["eof", undefined, undefined]);
    assertEquals(await name.promise, "worker-1\n");
  });

  test("all is acknowledged, each offset after it was stored", async () => {
    const end = 300_000 * SIZE;
    const stores: number[] = [];
    await withPeer({ end, hello: true }, async (address, peer) => {
      let storing = false;
      const onStore = async (offset: number, stream: string) => {
        assertEquals([stream, storing], [STREAM, false]);
        assertLess(peer.acked, offset);
        storing = true;
        await new Promise((resolve) => setTimeout(resolve, 1));
        assertLess(peer.acked, offset);
        storing = false;
        stores.push(offset);
      };
      const options = { ...address, hello: "me", ack: { onStore }, verify: { size: SIZE } };
      const result = await drainWithin(options);
      await within("the server's end", 5000, peer.ended);
      assertEquals([result.ended, result.bytes, result.missed], ["eof", end, 0]);
      assertEquals(result.stored, { offset: end, stream: STREAM });
      assertEquals(result.verified, { messages: end / SIZE, ...good });
      assertEquals([peer.names, peer.asked, peer.acked], [["me"], [undefined], end]);
      assertEquals(stores.at(-1), end);
      assertEquals(
        stores.filter((offset, i) => offset % SIZE !== 0 || offset <= (stores[i - 1] ?? 0)),
        [],
      );
      // One every MiB or every 10 ms, whatever comes first, and the last one.
      const most = Math.ceil(end / 2 ** 20) + Math.ceil(result.seconds * 100) + 2;
      assertLess(stores.length, most + 1);
      assertGreater(stores.length, 1);
    });
  });

  test("a quiet stream is acknowledged before it ends", async () => {
    const acks: string[] = [];
    await withServer(async (connection) => {
      await connection.read(100);
      await send(connection, new TextEncoder().encode(`at 0 ${STREAM}\nabc`));
      acks.push(new TextDecoder().decode(await connection.read(100) ?? undefined));
      await connection.closeWrite();
    }, (address) => drainWithin({ ...address, ack: {} }));
    assertEquals(acks, ["ack 3\n"]);
  });

  test("goes on where it was, in the middle of a message without verify", async () => {
    const end = 5000 * SIZE;
    for (const offset of [0, 1234 * SIZE, end]) {
      await withPeer({ end }, async (address, peer) => {
        const ack = { offset, stream: STREAM };
        const result = await drainWithin({ ...address, ack, verify: { size: SIZE } });
        assertEquals(peer.asked, [ack]);
        assertEquals([result.bytes, result.missed], [end - offset, 0]);
        assertEquals(result.stored, { offset: end, stream: STREAM });
        assertEquals(result.verified, { messages: (end - offset) / SIZE, ...good });
      });
    }
    await withServer(async (connection) => {
      await connection.read(100);
      await send(connection, new TextEncoder().encode(`at 7 ${STREAM}\nabc`));
      await connection.closeWrite();
    }, async (address) => {
      const { stored } = await drainWithin({ ...address, ack: { offset: 7, stream: STREAM } });
      assertEquals(stored, { offset: 10, stream: STREAM });
    });
  });

  test("what the server no longer has is a gap: in messages, or in bytes", async () => {
    const end = 50 * SIZE;
    const answer = () => `at ${30 * SIZE} ${STREAM}\n`;
    const ack = { offset: 20 * SIZE, stream: STREAM };
    const [verifying, plain, fresh] = await Promise.all([
      withPeer({ end, answer }, (at) => drainWithin({ ...at, ack, verify: { size: SIZE } })),
      withPeer({ end, answer }, (at) => drainWithin({ ...at, ack })),
      withPeer({ end, answer }, (at) => drainWithin({ ...at, ack: {}, verify: { size: SIZE } })),
    ]);
    assertEquals(verifying.verified, { messages: 20, ...good, missing: 10 });
    assertEquals([plain.missed, plain.verified], [10 * SIZE, undefined]);
    // Who knows nothing misses nothing.
    assertEquals([fresh.missed, fresh.verified], [0, { messages: 20, ...good }]);
  });

  test("another stream, an offset that cannot be, no answer, or nonsense: nothing is stored", async () => {
    const other = "f".repeat(16);
    const stores: number[] = [];
    const onStore = (offset: number) => void stores.push(offset);
    const refused = async (
      answer: string,
      message: string,
      type: new (...args: never[]) => Error,
    ) => {
      const ack = { offset: 500, stream: STREAM, onStore };
      const draining = withServer(async (connection) => {
        await connection.read(100);
        await send(connection, new TextEncoder().encode(answer));
        await connection.closeWrite();
      }, (address) => drainWithin({ ...address, ack, verify: { size: SIZE } }));
      const error = await assertRejects(() => draining, type, message);
      assertEquals(error.message.includes("\n"), false);
    };
    const means =
      `the server's stream is ${other}, not ${STREAM}: the offset 500 is not valid in it`;
    await refused(`at 500 ${other}\nabc`, means, OtherStreamError);
    await refused(
      `at 499 ${STREAM}\nabc`,
      "begins at offset 499, but the reader requested 500",
      ProtocolError,
    );
    await refused(
      `at 510 ${STREAM}\nabc`,
      "cannot verify messages of 100 bytes from offset 510",
      Error,
    );
    await refused("", "the server closed the connection before it sent the stream's offset", Error);
    await refused("at 500", "the server closed the connection before it sent", Error);
    await refused("no such reader\n", '"no such reader" must be "at OFFSET STREAM"', ProtocolError);
    await refused("Hello World!\0".repeat(100), "is longer than 256 bytes", ProtocolError);
    assertEquals(stores, []);
  });

  test("stops while it waits for the answer", async () => {
    const { ended } = await withServer(
      () => {},
      (address) => drainWithin({ ...address, ack: {}, durationMs: 100 }),
    );
    assertEquals(ended, "time");
    const stop = new AbortController();
    const interrupted = await withServer((connection) => {
      // Not before it has asked.
      void Promise.resolve(connection.read(100)).then(() => stop.abort());
    }, (address) => drainWithin({ ...address, ack: {}, signal: stop.signal }));
    assertEquals(interrupted.ended, "interrupted");
  });

  test("an interrupt stores what was handled, and not what is in the handler's hands", async () => {
    for (const pending of [false, true]) {
      const stop = new AbortController();
      let handled = 0;
      const handler = async (chunk: Uint8Array) => {
        if (handled > 20_000 * SIZE) {
          stop.abort();
          if (pending) await new Promise(() => {});
        }
        await null;
        handled += chunk.length;
      };
      const stores: number[] = [];
      await withPeer({}, async (address, peer) => {
        const onStore = async (offset: number) => {
          await new Promise((resolve) => setTimeout(resolve, 5));
          stores.push(offset);
        };
        const options = { ...address, handler, ack: { onStore }, signal: stop.signal };
        const { ended, stored } = await drainWithin({ ...options, verify: { size: SIZE } });
        assertEquals([ended, stored?.offset], ["interrupted", stores.at(-1)]);
        if (pending) assertEquals(stored?.offset, handled - handled % SIZE);
        assertLessOrEqual(stored!.offset, handled);
        assertLessOrEqual(peer.acked, stored!.offset);
      });
    }
  });

  test("with a forward, what its kernel has taken", async () => {
    const gate = Promise.withResolvers<void>();
    const received = Promise.withResolvers<Uint8Array>();
    await withServer(
      (far) => received.resolve(gate.promise.then(() => readAll(far)).finally(() => far.close())),
      (forward) =>
        withPeer({}, async (address, peer) => {
          const draining = drainWithin({ ...address, forward, ack: {}, durationMs: 700 });
          const { stored, forwarded } = await draining;
          gate.resolve();
          assertGreater(stored!.offset, 0);
          assertLessOrEqual(stored!.offset, forwarded!);
          assertLessOrEqual(peer.acked, stored!.offset);
          const bytes = await within("the far end", 5000, received.promise);
          assertLessOrEqual(stored!.offset, bytes.length);
        }),
    );
  });

  test("a handler that throws: what was handled before is stored", async () => {
    let calls = 0;
    let handled = 0;
    const handler = (chunk: Uint8Array) => {
      if (++calls === 20) throw new Error("out of cheese");
      handled += chunk.length;
    };
    const stores: number[] = [];
    await withPeer({}, async (address) => {
      const ack = { onStore: (offset: number) => void stores.push(offset) };
      const draining = drainWithin({ ...address, handler, ack });
      await assertRejects(() => draining, Error, "out of cheese");
    });
    assertEquals(stores.at(-1), handled);
  });

  test("what cannot be stored is not acknowledged, and ends it", async () => {
    for (const end of [undefined, 2 * SIZE]) {
      await withPeer(end === undefined ? {} : { end }, async (address, peer) => {
        const onStore = () => Promise.reject(new Error("disk full"));
        const draining = drainWithin({ ...address, ack: { onStore } });
        await assertRejects(() => draining, Error, "disk full");
        assertEquals(peer.acks, []);
      });
    }
  });

  test("storing that is far behind stops the reading", async () => {
    const gate = Promise.withResolvers<void>();
    let read = 0;
    await withPeer({}, async (address) => {
      const handler = (chunk: Uint8Array) => void (read += chunk.length);
      const ack = { onStore: () => gate.promise };
      const draining = drainWithin({ ...address, handler, ack, count: 300 * MIB });
      await until("64 MiB", 10_000, () => read > 64 * MIB);
      for (let before = -1; before !== read;) {
        before = read;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      assertLess(read, 100 * MIB);
      gate.resolve();
      assertEquals((await draining).stored?.offset, 300 * MIB);
    });
  });

  test("a server that takes no acknowledgements keeps it neither from reading nor from ending", async () => {
    const result = await withServer(
      async (connection) => {
        await connection.read(100);
        await send(connection, new TextEncoder().encode(`at 0 ${STREAM}\n`));
        await flood(connection);
      },
      (address) => drainWithin({ ...address, ack: {}, count: 64 * MIB }),
    );
    assertEquals([result.ended, result.stored?.offset], ["count", 64 * MIB]);
  });
});
