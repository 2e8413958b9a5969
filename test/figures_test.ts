/** The figures of a running server: they are those of what its readers have read. */
import { describe, test } from "node:test";
import { join } from "node:path";
import { assert, assertEquals, assertGreater, assertLessOrEqual } from "#std/assert";
import type { ReaderFigures } from "../src/relay/figures.ts";
import type { Server } from "../src/relay/serve.ts";
import { openDiskQueue } from "../src/queue/disk_queue.ts";
import { TcpSource } from "../src/source/tcp_source.ts";
import { withServer } from "./peer.ts";
import { MESSAGE, serving, SIZE, SMALL, withoutSmallBuffers } from "./serve_here.ts";
import { withFolder } from "./serving.ts";
import { until, within } from "./within.ts";

const only = ({ figures }: Server): ReaderFigures => {
  const { readers } = figures!();
  assertEquals(readers.length, 1);
  return readers[0]!;
};

describe("the figures", () => {
  test("of a flood without a reader are none", async () => {
    await serving({}, ({ server }) => {
      assertEquals(server.figures!(), { readers: [], logs: [], memoryBytes: 0 });
      return Promise.resolve();
    });
  });

  test("of a flood are those of its connections", async () => {
    await serving({ durationMs: 300, overflow: "block" }, async ({ server, connect }) => {
      const reader = await connect();
      let bytes = 0;
      for (let chunk; (chunk = await within("bytes", 5000, reader.read(65_536))) !== null;) {
        bytes += chunk.length;
      }
      const { name, connected, acceptedBytes, lagBytes, lagSeconds, dropped } = only(server);
      assertEquals({ name, connected, acceptedBytes, lagBytes, lagSeconds, dropped }, {
        ...{ name: "1", connected: true, acceptedBytes: bytes },
        ...{ lagBytes: 0, lagSeconds: 0, dropped: 0 },
      });
      reader.close();
      await within("the server's end", 5000, server.done);
      assertEquals(server.figures!().readers, []);
    });
  });

  test("of a flood whose reader is too slow show how far it is behind", async (t) => {
    if (withoutSmallBuffers(t)) return;
    const options = { overflow: "block", sendBuffer: SMALL, rate: 100_000 } as const;
    await serving(options, async ({ server, connect }) => {
      await connect();
      await until("a lag", 10_000, () => (server.figures!().readers[0]?.lagSeconds ?? 0) > 0.2);
      const { lagBytes, lagMessages, lagSeconds } = only(server);
      assertEquals(lagBytes, lagMessages * SIZE);
      assertEquals(lagSeconds, lagMessages / 100_000);
    });
  });

  test("of a relay go on while its reader is away", async () => {
    await withFolder(async (folder) => {
      const queue = await openDiskQueue(join(folder, "queue"), { sync: "off" });
      try {
        const options = { overflow: "spill", queue, ack: "tcp", durationMs: 500 } as const;
        await serving({ ...options, message: MESSAGE }, async ({ server, connect, saw }) => {
          await saw("source");
          const { name, connected, acceptedBytes, deliveredOffset, ...rest } = only(server);
          assertEquals(
            { name, connected, acceptedBytes, deliveredOffset },
            { name: "reader", connected: false, acceptedBytes: 0, deliveredOffset: 0 },
          );
          assertEquals(rest.lagBytes, 50_000 * SIZE);
          assertEquals(rest.lagMessages, 50_000);
          const reader = await connect();
          let bytes = 0;
          for (let chunk; (chunk = await within("bytes", 5000, reader.read(65_536))) !== null;) {
            bytes += chunk.length;
          }
          reader.close();
          await within("the server's end", 5000, server.done);
          const after = only(server);
          assertEquals(
            [after.acceptedBytes, after.deliveredOffset, after.lagBytes, after.lagSeconds],
            [bytes, bytes, 0, 0],
          );
        });
      } finally {
        await queue.close();
      }
    });
  });

  test("of a relay have the age of the oldest message in memory", async (t) => {
    if (withoutSmallBuffers(t)) return;
    const options = { overflow: "block", ack: "none", sendBuffer: SMALL } as const;
    await serving(options, async ({ server, connect }) => {
      const startMs = performance.now();
      await connect();
      await until("a lag", 10_000, () => (server.figures!().readers[0]?.lagSeconds ?? 0) > 0.2);
      const { lagSeconds, lagMessages, lagBytes } = only(server);
      assertLessOrEqual(lagSeconds, (performance.now() - startMs) / 1000);
      assertGreater(lagMessages, 1000);
      assertLessOrEqual(Math.abs(lagMessages * SIZE - lagBytes), SIZE);
      assertGreater(server.figures!().memoryBytes, lagBytes - 1);
    });
  });

  test("tell whether a TCP source is connected", async () => {
    let feed: { close(): void } | undefined;
    await withServer((connection) => feed = connection, async (address) => {
      const source = new TcpSource({ ...address, frame: { kind: "line" } });
      await serving({ source, frame: { kind: "line" } }, async ({ server, connect, all }) => {
        assert(!("sourceConnected" in server.figures!()), "it is not opened before a reader comes");
        await connect();
        const connected = () => server.figures!().sourceConnected;
        await until("the source", 10_000, () => connected() === true);
        feed!.close();
        await until("its end", 10_000, () => all("source").length > 1);
        await until("the next connection", 10_000, () => connected() === true);
      });
    });
  });
});
