/** The contract of src/net/net.ts, over every adapter that this runtime can load. */
import { describe, test } from "node:test";
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { assert, assertEquals, assertGreater, assertLess } from "#std/assert";
import { type Adapter, type Connection, NetError } from "../src/net/net.ts";
import { loadAdapter } from "../src/net/load.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { connectionState, kernelSource } from "../src/kernel/kernel.ts";
import { setBufferSize } from "../src/kernel/socket_calls.ts";
import { skip } from "./skip.ts";
import { until, within } from "./within.ts";

const MIB = 1 << 20;
const adapters = runtime === "node" ? ["node"] as const : [runtime, "node"] as const;

interface Pair {
  client: Connection;
  server: Connection;
  end(): Promise<void>;
}

async function openPair(net: Adapter): Promise<Pair> {
  const accepted = Promise.withResolvers<Connection>();
  const listener = await net.listen({ host: "127.0.0.1", port: 0, onConnection: accepted.resolve });
  const client = await net.connect({ host: "127.0.0.1", port: listener.address.port });
  const server = await within("accept", 2000, accepted.promise);
  return {
    client,
    server,
    async end() {
      client.close();
      server.close();
      await within("closed", 2000, Promise.all([client.closed, server.closed]));
      await within("listener closed", 2000, listener.close());
    },
  };
}

/** Byte i of the test stream; its period, a prime, fits no buffer size. */
const PERIOD = 65_521;
const PATTERN = Uint8Array.from({ length: PERIOD + MIB }, (_, i) => (i % PERIOD) * 31 >> 3);
const patternAt = (offset: number, length: number) =>
  PATTERN.subarray(offset % PERIOD, offset % PERIOD + length);

async function writeAll(connection: Connection, bytes: Uint8Array): Promise<void> {
  while (bytes.length > 0) {
    const taken = await connection.write(bytes);
    assertGreater(taken, 0, "the connection ended while writing");
    bytes = bytes.subarray(taken);
  }
}

async function sendPattern(connection: Connection, total: number, sizes: number[]): Promise<void> {
  for (let offset = 0, i = 0; offset < total; i++) {
    const length = Math.min(sizes[i % sizes.length]!, total - offset);
    await writeAll(connection, patternAt(offset, length));
    offset += length;
  }
  await connection.closeWrite();
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Reads to the end; the number of bytes, which must all be as they were sent. */
async function receivePattern(connection: Connection, sizes: number[], from = 0): Promise<number> {
  let offset = from;
  for (let i = 0;; i++) {
    const limit = sizes[i % sizes.length]!;
    const chunk = await connection.read(limit);
    if (chunk === null) return offset;
    assert(chunk.length > 0 && chunk.length <= limit, `a read of ${limit} gave ${chunk.length}`);
    assert(sameBytes(chunk, patternAt(offset, chunk.length)), `damage after byte ${offset}`);
    offset += chunk.length;
  }
}

/** Writes until the kernel takes no more; how many bytes it took, and the write that still waits. */
async function fill(
  connection: Connection,
): Promise<{ accepted: number; waiting: Promise<number> }> {
  let accepted = 0;
  while (true) {
    const write = Promise.resolve(connection.write(patternAt(accepted, MIB)));
    const taken = await Promise.race([
      write,
      new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), 300)),
    ]);
    if (taken === undefined) return { accepted, waiting: write };
    accepted += taken;
    assertLess(accepted, 512 * MIB, "nothing stops this write");
  }
}

const openDescriptors = () => readdirSync("/proc/self/fd").length;

for (const name of adapters) {
  describe(`adapter ${name} on ${runtime}`, () => {
    for (const direction of ["client to server", "server to client"] as const) {
      test(`64 MiB in odd sizes, ${direction}`, async () => {
        const pair = await openPair(await loadAdapter(name));
        const [from, to] = direction === "client to server"
          ? [pair.client, pair.server]
          : [pair.server, pair.client];
        const total = 64 * MIB + 13;
        const [, received] = await within(
          "the transfer",
          60_000,
          Promise.all([
            sendPattern(from, total, [1, 13, 4097, 65_536, 99_991, 777_777]),
            receivePattern(to, [65_536, 7, 100_003, 1, 8191]),
          ]),
        );
        assertEquals(received, total);
        await pair.end();
      });
    }

    // Reads past the runtime (direct_reads.ts) begin and end in it.
    test("a fast stretch, a byte now and then, a fast stretch again, and a reset", async () => {
      const pair = await openPair(await loadAdapter(name));
      let sent = 0;
      const send = async (length: number) => {
        await writeAll(pair.server, patternAt(sent, length));
        sent += length;
      };
      let received = 0;
      const receive = async (length: number) => {
        const until = received + length;
        while (received < until) {
          const chunk = await pair.client.read(65_536);
          assert(chunk !== null, `ended after byte ${received}`);
          assert(sameBytes(chunk, patternAt(received, chunk.length)), `damage after ${received}`);
          received += chunk.length;
        }
      };
      const both = (length: number) =>
        within("the transfer", 10_000, Promise.all([send(length), receive(length)]));
      for (let round = 0; round < 3; round++) {
        for (let i = 0; i < 16; i++) await both(MIB);
        await both(1);
        await both(PERIOD);
      }
      const end = within("the end", 5000, pair.client.read(65_536));
      pair.server.reset();
      assertEquals(await end, null);
      assertEquals((await within("closed", 2000, pair.client.closed)).reason, "reset");
      await pair.end();
    });

    test("a reader that stops fills the kernel, and nothing is lost or doubled when it goes on", async () => {
      const net = await loadAdapter(name);
      const pair = await openPair(net);
      const { accepted, waiting } = await fill(pair.server);
      assertGreater(accepted, 0);
      assert(pair.server.blockedSince !== undefined, "blocked, but blockedSince is unknown");
      assertLess(pair.server.blockedSince, performance.now());
      // What the kernel holds, and what the peer's runtime may have read ahead, is all there is.
      const { near, far } = connectionState(pair.server.local, pair.server.remote);
      if (near !== undefined && far !== undefined) {
        const inKernel = near.sendQueue + far.receiveQueue;
        const { bufferedBytes: held } = pair.server;
        const most = accepted + (held === 0 ? 0 : MIB - (held ?? 0));
        const least = held === undefined ? accepted : most;
        assert(
          inKernel <= most && inKernel >= least - pair.client.readAhead,
          `accepted ${accepted}, ${held} held, the kernel has ${inKernel}`,
        );
      } else {
        console.log(`  not compared with the kernel's queues: source is ${kernelSource}`);
      }
      const reading = receivePattern(pair.client, [65_536, 999]);
      const resumed = await within("the waiting write", 5000, waiting);
      assertGreater(resumed, 0);
      await within(
        "the rest",
        20_000,
        writeAll(pair.server, patternAt(accepted + resumed, MIB - resumed)),
      );
      assertEquals(pair.server.blockedSince === undefined || resumed < MIB, true);
      await pair.server.closeWrite();
      assertEquals(await within("the end", 20_000, reading), accepted + MIB);
      await pair.end();
    });

    test("peers that leave before they are accepted are no errors of accept", async () => {
      const net = await loadAdapter(name);
      const errors: string[] = [];
      let accepted = 0;
      const last = Promise.withResolvers<void>();
      const listener = await net.listen({
        host: "127.0.0.1",
        port: 0,
        onConnection(connection) {
          accepted++;
          void Promise.resolve(connection.read(10)).then((chunk) => {
            if (chunk?.length === 4) last.resolve();
            connection.close();
          });
        },
        onAcceptError: (errno) => errors.push(errno),
      });
      const { address } = listener;
      for (let i = 0; i < 100; i++) (await within("connect", 5000, net.connect(address))).reset();
      const client = await within("connect", 5000, net.connect(address));
      await writeAll(client, new TextEncoder().encode("last"));
      await within("the last one", 5000, last.promise);
      assertEquals(errors, []);
      assert(accepted >= 1 && accepted <= 101, `${accepted}`);
      client.close();
      await within("listener closed", 2000, listener.close());
    });

    test("half-close: FIN one way, data the other", async () => {
      const pair = await openPair(await loadAdapter(name));
      await pair.client.closeWrite();
      assertEquals(await within("eof", 2000, pair.server.read(100)), null);
      await writeAll(pair.server, new TextEncoder().encode("still here"));
      const chunk = await within("the answer", 2000, pair.client.read(100));
      assertEquals(new TextDecoder().decode(chunk!), "still here");
      pair.server.close();
      assertEquals(await within("closed", 2000, pair.server.closed), { reason: "eof" });
      assertEquals(await within("eof", 2000, pair.client.read(100)), null);
      pair.client.close();
      assertEquals(await within("closed", 2000, pair.client.closed), { reason: "eof" });
      await pair.end();
    });

    test("close with nothing unread: the peer reads all of it, then the end", async () => {
      const pair = await openPair(await loadAdapter(name));
      await writeAll(pair.server, patternAt(0, 100_000));
      pair.server.close();
      assertEquals(await within("closed", 2000, pair.server.closed), { reason: "local" });
      assertEquals(await within("all", 5000, receivePattern(pair.client, [4096])), 100_000);
      pair.client.close();
      assertEquals(await within("closed", 2000, pair.client.closed), { reason: "eof" });
      await pair.end();
    });

    test("close with replies unread: the peer gets ECONNRESET", async () => {
      const net = await loadAdapter(name);
      const pair = await openPair(net);
      await writeAll(pair.server, patternAt(0, 10));
      await within("read", 2000, pair.client.read(10));
      // More than any adapter reads ahead, so that some of it lies in the kernel for certain.
      for (let sent = 0; sent <= pair.server.readAhead; sent += 65_536) {
        await within("reply", 2000, writeAll(pair.client, patternAt(0, 65_536)));
      }
      await until("replies arrive", 2000, () => {
        const { near } = connectionState(pair.server.local, pair.server.remote);
        return near === undefined || near.receiveQueue > 0;
      });
      pair.server.close();
      let chunk: Uint8Array | null;
      do chunk = await within("the reset", 2000, pair.client.read(65_536)); while (chunk !== null);
      const closed = await within("closed", 2000, pair.client.closed);
      assertEquals(closed, { reason: "reset", errno: "ECONNRESET" });
      await pair.end();
    });

    test("reset: the peer gets ECONNRESET", async (t) => {
      const net = await loadAdapter(name);
      if (!net.canReset) return skip(t, "this runtime has no way to send RST without libc");
      const pair = await openPair(net);
      const reading = pair.client.read(10);
      pair.server.reset();
      assertEquals(await within("closed", 2000, pair.server.closed), { reason: "local" });
      assertEquals(await within("read", 2000, reading), null);
      const closed = await within("closed", 2000, pair.client.closed);
      assertEquals(closed, { reason: "reset", errno: "ECONNRESET" });
      await pair.end();
    });

    test("a write after the peer's reset says so, though a chunk is still unread", async (t) => {
      const net = await loadAdapter(name);
      if (!net.canReset) return skip(t, "this runtime has no way to send RST without libc");
      const pair = await openPair(net);
      await writeAll(pair.server, patternAt(0, 100_000));
      assertEquals((await within("a byte", 2000, pair.client.read(1)))?.length, 1);
      pair.server.reset();
      // No event of the connection may have had its turn: what tells is the write itself.
      const until = performance.now() + 2000;
      let taken = 1;
      while (taken > 0) {
        assertLess(performance.now(), until, "writes go on and on");
        taken = await within("a write", 2000, pair.client.write(patternAt(0, 10)));
      }
      const closed = await within("closed", 2000, pair.client.closed);
      assertEquals(closed.reason, "reset");
      await pair.end();
    });

    test("a peer that vanishes ends a blocked write, and a later one is 0", async () => {
      const net = await loadAdapter(name);
      const pair = await openPair(net);
      const { waiting } = await fill(pair.server);
      // Its receive queue is not empty, so its close sends RST.
      pair.client.close();
      assertEquals(await within("the write", 5000, waiting), 0);
      const { reason } = await within("closed", 2000, pair.server.closed);
      assertEquals(reason, "reset");
      assertEquals(await pair.server.write(patternAt(0, 10)), 0);
      assertEquals(await pair.server.read(10), null);
      await pair.end();
    });

    test("our own close ends a waiting read and a blocked write", async () => {
      const pair = await openPair(await loadAdapter(name));
      const reading = pair.server.read(10);
      const { waiting } = await fill(pair.server);
      pair.server.close();
      assertEquals(await within("the read", 2000, reading), null);
      assertEquals(await within("the write", 2000, waiting), 0);
      assertEquals(await within("closed", 2000, pair.server.closed), { reason: "local" });
      await pair.end();
    });

    test("double close, close after reset, use after close", async () => {
      const pair = await openPair(await loadAdapter(name));
      pair.client.close();
      pair.client.close();
      pair.client.reset();
      assertEquals(await within("closed", 2000, pair.client.closed), { reason: "local" });
      assertEquals(await pair.client.write(patternAt(0, 10)), 0);
      assertEquals(await pair.client.read(10), null);
      await within("closeWrite", 2000, pair.client.closeWrite());
      pair.server.reset();
      pair.server.close();
      await pair.end();
    });

    test("addresses and descriptor", async () => {
      const pair = await openPair(await loadAdapter(name));
      assertEquals(pair.client.remote, pair.server.local);
      assertEquals(pair.client.local, pair.server.remote);
      assertEquals(pair.client.remote.host, "127.0.0.1");
      if (kernelSource === "sock_diag") {
        assert(pair.client.fd !== undefined && pair.server.fd !== undefined, "no descriptor");
        assert(pair.client.fd !== pair.server.fd);
        assert(setBufferSize(pair.server.fd, "send", 4608), "the descriptor takes no option");
        const { accepted, waiting } = await fill(pair.server);
        assertLess(accepted, 8 * MIB);
        pair.client.close();
        await within("the write", 5000, waiting);
      }
      await pair.end();
      assertEquals(pair.server.fd, undefined);
    });

    test("200 connections at once, and no descriptor left over", async () => {
      const net = await loadAdapter(name);
      await (await openPair(net)).end();
      const before = openDescriptors();
      const served: Connection[] = [];
      const listener = await net.listen({
        host: "127.0.0.1",
        port: 0,
        onConnection(connection) {
          served.push(connection);
          void sendPattern(connection, 100_000, [30_000]);
        },
      });
      const counts = await within(
        "all transfers",
        30_000,
        Promise.all(Array.from({ length: 200 }, async () => {
          const client = await net.connect({ host: "127.0.0.1", port: listener.address.port });
          const count = await receivePattern(client, [65_536]);
          client.close();
          return count;
        })),
      );
      assertEquals(counts.filter((count) => count !== 100_000), []);
      for (const connection of served) connection.close();
      await within("all closed", 5000, Promise.all(served.map((c) => c.closed)));
      await listener.close();
      await until("descriptors", 5000, () => openDescriptors() <= before);
    });

    test("as many connections may wait to be accepted as Linux allows", async (t) => {
      if (kernelSource !== "sock_diag") return skip(t, "Bun needs libc for that");
      if (runtime === "bun" && name === "node") return skip(t, "Bun's node:net allows 512");
      const net = await loadAdapter(name);
      const listener = await net.listen({ host: "127.0.0.1", port: 0, onConnection() {} });
      let text: string;
      let most: number;
      try {
        text = execFileSync("ss", ["-tlnH", `sport = :${listener.address.port}`], {
          encoding: "utf8",
        });
        most = Number(readFileSync("/proc/sys/net/core/somaxconn", "utf8"));
      } catch {
        return skip(t, "no ss here (Debian: iproute2)");
      } finally {
        await listener.close();
      }
      // Of a socket that listens, the column of the send queue is its backlog.
      assertEquals(Number(/^LISTEN\s+\d+\s+(\d+)/.exec(text)![1]), Math.min(65_535, most), text);
    });

    test("what cannot be opened says so in one line", async () => {
      const net = await loadAdapter(name);
      const listener = await net.listen({ host: "127.0.0.1", port: 0, onConnection() {} });
      const { port } = listener.address;
      const refused = async (what: string, code: string, promise: Promise<unknown>) => {
        const error = await within(what, 5000, promise.then(() => undefined, (e) => e));
        assert(error instanceof NetError, `${what}: ${error}`);
        assertEquals(error.code, code, error.message);
        assertEquals(error.message.split("\n").length, 1);
      };
      await refused(
        "port in use",
        "EADDRINUSE",
        net.listen({ host: "127.0.0.1", port, onConnection() {} }),
      );
      await refused(
        "not our address",
        runtime === "deno" && name === "node" ? "EINVAL" : "EADDRNOTAVAIL",
        net.listen({ host: "192.0.2.1", port: 0, onConnection() {} }),
      );
      await listener.close();
      await refused("nobody there", "ECONNREFUSED", net.connect({ host: "127.0.0.1", port }));
      await refused("no such name", "ENOTFOUND", net.connect({ host: "no.such.invalid", port }));
    });
  });
}
