/** What a relay passes on: another server's stream, a file, standard input; and what a disk gives back. */
import { describe, test } from "node:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { assert, assertEquals, assertGreater, assertMatch } from "#std/assert";
import { FileSource } from "../src/source/file_source.ts";
import type { Connection } from "../src/net/net.ts";
import type { Queue } from "../src/queue/queue.ts";
import type { ServeOptions } from "../src/relay/serve_options.ts";
import { TcpSource } from "../src/source/tcp_source.ts";
import { send, withServer } from "./peer.ts";
import { run, SERVE_PERMISSIONS, start } from "./process.ts";
import { setTimeout as sleep } from "node:timers/promises";
import {
  net,
  NOTHING,
  numbered,
  Reader,
  relaying,
  SIZE,
  StoredFor,
  withQueues,
} from "./relaying.ts";
import { until, within } from "./within.ts";

/** Passes bytes on both ways, until the test breaks it. */
class Proxy {
  readonly #port: () => number;
  readonly #pairs: Connection[] = [];
  /** How many came. */
  connections = 0;

  constructor(port: () => number) {
    this.#port = port;
  }

  readonly serve = async (near: Connection): Promise<void> => {
    this.connections++;
    const far = await net.connect({ host: "127.0.0.1", port: this.#port() });
    this.#pairs.push(near, far);
    void pass(near, far);
    void pass(far, near);
  };

  break(): void {
    for (const connection of this.#pairs.splice(0)) connection.reset();
  }
}

async function pass(from: Connection, to: Connection): Promise<void> {
  for (let chunk; (chunk = await from.read(65_536)) !== null;) await send(to, chunk.slice());
  await to.closeWrite();
}

describe("another server as the source", () => {
  test("acknowledged, its connection broken again and again: no gap, no double, and it finishes", () =>
    withQueues(async (open) => {
      const [near, far] = [await open(undefined, "near.db"), await open(undefined, "far.db")];
      const rate = 50_000;
      const upstream: Partial<ServeOptions> = {
        overflow: "spill",
        queue: far,
        ack: "reader",
        rate,
        durationMs: 1500,
      };
      await relaying(upstream, async ({ server: first }) => {
        const proxy = new Proxy(() => first.address.port);
        await withServer(proxy.serve, async ({ host, port }) => {
          const frame = { kind: "fixed", size: SIZE } as const;
          const source = new TcpSource({ host, port, frame, acknowledged: true });
          const relay: Partial<ServeOptions> = { source, overflow: "spill", queue: near };
          await relaying({ ...relay, ack: "tcp" }, async ({ connect, all }) => {
            const breaking = (async () => {
              for (let i = 1; i <= 4; i++) {
                await until("connected", 5000, () => proxy.connections >= i);
                await sleep(100);
                proxy.break();
              }
            })();
            await sleep(200);
            const reader = await connect();
            await reader.take(1.5 * rate * SIZE);
            await breaking;
            reader.assertUnbroken();
            // All that it sent is safe here, and it has no reason to wait any longer.
            const done = await within("the upstream's end", 10_000, first.done);
            assertEquals(done.dropped, 0);
            const { bytes, delivered } = new StoredFor(far, "reader");
            assertEquals([bytes, delivered], [0, 1.5 * rate * SIZE]);
            const whats = all("source").map(({ what }) => what.event);
            assertGreater(whats.filter((what) => what === "disconnected").length, 3);
          });
        });
      });
    }));

  test("a plain one: what it sends while we are not connected is gone, the rest is whole", async () => {
    const second = numbered(1000, 2000);
    let connections = 0;
    await withServer(async (connection) => {
      connections++;
      // The first one breaks off inside a message.
      const bytes = connections === 1 ? numbered(0, 500).subarray(0, 400 * SIZE + 10) : second;
      await send(connection, bytes);
      if (connections === 1) await connection.closeWrite();
    }, async ({ host, port }) => {
      const source = new TcpSource({ host, port, frame: { kind: "fixed", size: SIZE } });
      await relaying({ source, overflow: "block" }, async ({ connect, all }) => {
        const reader = await connect();
        await reader.take(1400 * SIZE);
        const { missing, duplicates, damaged, outOfOrder } = reader.verifier;
        assertEquals([missing, duplicates, damaged, outOfOrder], [600, 0, 0, 0]);
        const discarded = all("source").flatMap(({ what }) =>
          what.event === "disconnected" ? [what.discarded] : []
        );
        assertEquals(discarded[0], 10);
      });
    });
  });
});

describe("a file as the source", () => {
  const line = (i: number) => `line ${i} ${"x".repeat(i % 97)}\n`;
  const count = 200_000;

  test("a reader that comes back gets a line's start first, and no line is missing", () =>
    withQueues(async (open, folder) => {
      const file = join(folder, "lines.txt");
      const lines = Array.from({ length: count }, (_, i) => line(i));
      writeFileSync(file, lines.join(""));
      const queue = await open();
      const source = new FileSource({ path: file, frame: { kind: "line" } });
      const options: Partial<ServeOptions> = { source, overflow: "spill", queue, ack: "tcp" };
      await relaying({ ...options, frame: { kind: "line" } }, async ({ server }) => {
        let next = 0;
        for (let visit = 1; next < count; visit++) {
          const to = { host: "127.0.0.1", port: server.address.port };
          const reader = await within("connect", 5000, net.connect(to));
          let text = "";
          let chunk: Uint8Array | null;
          while ((chunk = await within("bytes", 5000, reader.read(65_536))) !== null) {
            text += new TextDecoder().decode(chunk);
            if (visit < 4 && text.length > visit * 300_000) break;
          }
          if (chunk === null) reader.close();
          else reader.reset();
          // Nothing between what it got, and what it gets now, but what its kernel had for it.
          const [, first] = /^line (\d+) x*\n/.exec(text) ?? [];
          assert(first !== undefined, `begins with ${JSON.stringify(text.slice(0, 80))}`);
          if (visit === 1) assertEquals(first, "0");
          const whole = text.slice(0, text.lastIndexOf("\n") + 1);
          const got = whole.split("\n").length - 1;
          assertEquals(whole, lines.slice(Number(first), Number(first) + got).join(""));
          next = Number(first) + got;
          await sleep(20);
        }
        await within("done", 5000, server.done);
      });
    }));
});

test("a file, numbered, whose server is killed again and again: no gap, no double", () =>
  withQueues(async (_, folder) => {
    const feed = join(folder, "feed");
    const count = 300_000;
    writeFileSync(feed, numbered(0, count));
    const spill = ["--overflow", "spill", "--spill", join(folder, "queue.db"), "--ack", "reader"];
    const source = ["--source", feed, "--frame", `fixed:${SIZE}`, "--rate", "20MB/s"];
    let offset = 0;
    let stream: string | undefined;
    let lives = 0;
    for (let over = false; !over; lives++) {
      const server = start(["server.ts", "--port", "0", "--backlog", "64k", ...source, ...spill], {
        permissions: SERVE_PERMISSIONS,
      });
      try {
        const [, port] = await within("start", 10_000, server.saw(/listening on \S+?:(\d+)/));
        // Now and then nobody comes before the end.
        if (lives % 3 !== 1) {
          const to = { host: "127.0.0.1", port: Number(port) };
          const reader = new Reader(await within("connect", 5000, net.connect(to)), offset / SIZE);
          const place = await reader.resume(stream);
          assertEquals(place, { offset, stream: stream ?? place.stream });
          stream = place.stream;
          const killing = lives < 8 ? setTimeout(() => server.kill("SIGKILL"), 120) : undefined;
          try {
            while (await reader.read()) await reader.ack();
            over = killing === undefined;
          } catch (error) {
            // An acknowledgement that nobody takes any more.
            if (killing === undefined) throw error;
          }
          clearTimeout(killing);
          reader.connection.close();
          reader.assertUnbroken();
          offset = reader.offset;
        } else {
          await within("on disk", 5000, server.saw(/storing to disk from now on/));
          await sleep(100);
        }
        if (over) assertEquals((await within("its end", 5000, server.ended)).status, 0);
      } finally {
        server.kill("SIGKILL");
        await within("its end", 5000, server.ended);
      }
    }
    assertEquals(offset, count * SIZE);
    assertGreater(lives, 8);
  }));

describe("standard input as the source", () => {
  test("a process passes it on, and ends when its reader has it all", () =>
    withQueues(async (_, folder) => {
      const input = Array.from({ length: 5000 }, (_, i) => `${i}\n`).join("");
      const spill = ["--overflow", "spill", "--spill", join(folder, "stdin.db")];
      const args = ["server.ts", "--port", "0", "--source", "-", "--frame", "line", ...spill];
      const server = start(args, { input });
      try {
        const [, port] = await within("start", 10_000, server.saw(/listening on \S+:(\d+)/));
        await within("its end", 10_000, server.saw(/^standard input: ended$/m));
        const to = ["client.ts", `127.0.0.1:${port}`, "--handler", join(folder, "keep.ts")];
        const handler = 'import { appendFileSync } from "node:fs";\n' +
          `export default (c: Uint8Array) => appendFileSync(${
            JSON.stringify(folder)
          } + "/got", c);`;
        writeFileSync(join(folder, "keep.ts"), handler);
        const read = await run(to);
        assertEquals([read.status, read.stderr.split("\n").length], [0, 2], read.stderr);
        assertEquals(readFileSync(join(folder, "got"), "utf8"), input);
        const { status, stderr } = await within("the server's end", 10_000, server.ended);
        assertEquals([status, stderr], [0, ""]);
        assertMatch(server.stdout, /done: 1 readers, 5000 messages\n$/);
      } finally {
        server.kill("SIGKILL");
        await within("its end", 5000, server.ended);
      }
    }));
});

/** 4 MiB of numbered messages on disk, of which one byte in the middle is changed. */
async function damaged(
  open: () => Promise<Queue>,
  folder: string,
): Promise<{ stream: string; total: number }> {
  const queue = await open();
  const options: Partial<ServeOptions> = { overflow: "spill", queue, rate: 200_000 };
  await relaying({ ...options, durationMs: 500 }, async ({ server }) => {
    const reader = new StoredFor(queue, "reader");
    await until("on disk", 5000, () => reader.messages === 100_000);
    await within("stop", 5000, server.stop());
  });
  const { messages, log: { stream } } = new StoredFor(queue, "reader");
  await queue.close();
  const [segment] = readdirSync(join(folder, "queue", stream)).filter((name) => name !== "key");
  const file = join(folder, "queue", stream, segment!);
  const content = readFileSync(file);
  const number = new Uint8Array(8);
  new DataView(number.buffer).setBigUint64(0, 50_000n);
  const at = content.indexOf(number);
  assert(at > 0, "message 50000 is nowhere in the file");
  content[at + 30]! ^= 0xff;
  writeFileSync(file, content);
  return { stream, total: messages };
}

describe("a batch that was damaged on the disk", () => {
  test("ack tcp: is told of as a gap, and all else is delivered", () =>
    withQueues(async (open, folder) => {
      const { total } = await damaged(() => open(), folder);
      const queue = await open();
      const options: Partial<ServeOptions> = { overflow: "spill", queue, source: NOTHING };
      await relaying({ ...options, ack: "tcp" }, async ({ connect, saw, server }) => {
        const reader = await connect();
        assertEquals(await reader.rest(), { reason: "eof" });
        const { from, to, name, why } = await saw("gap");
        assertEquals([name, why], ["reader", "damage"]);
        assert(from <= 50_000 * SIZE && to > 50_000 * SIZE, `from ${from} to ${to}`);
        const { missing, duplicates, outOfOrder, damaged, messages } = reader.verifier;
        assertEquals([duplicates, outOfOrder, damaged], [0, 0, 0]);
        assertEquals([missing, messages + missing], [(to - from) / SIZE, total]);
        await within("done", 5000, server.done);
      });
    }));

  test("ack reader: it is disconnected there, and reported by the next `at`", () =>
    withQueues(async (open, folder) => {
      const { stream, total } = await damaged(() => open(), folder);
      const queue = await open();
      const options: Partial<ServeOptions> = { overflow: "spill", queue, source: NOTHING };
      await relaying({ ...options, ack: "reader" }, async ({ connect, saw, all, server }) => {
        const reader = await connect();
        assertEquals(await reader.resume(), { offset: 0, stream });
        // With acknowledgements on their way, too, it gets all that is before the damage.
        while (await reader.read(8192)) await reader.ack();
        reader.connection.close();
        assertEquals((await within("closed", 5000, reader.connection.closed)).reason, "eof");
        reader.assertUnbroken();
        assertGreater(reader.bytes, 1 << 20);
        assertEquals(all("gap"), []);
        const next = await connect(reader.bytes / SIZE);
        const at = await next.resume(stream);
        const { from, to } = await saw("gap");
        assertEquals([from, at], [reader.bytes, { offset: to, stream }]);
        while (await next.read()) await next.say(`ack ${to + next.bytes}\n`);
        next.connection.close();
        assertEquals([next.verifier.missing, next.verifier.damaged], [(to - from) / SIZE, 0]);
        assertEquals((to + next.bytes) / SIZE, total);
        await within("done", 5000, server.done);
      });
    }));
});
