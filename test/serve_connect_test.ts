/** serve() with `connect`: a receiver that listens, that is not there yet, and that goes away. */
import { describe, test } from "node:test";
import { assertEquals, assertGreater } from "#std/assert";
import { runtime } from "../src/kernel/runtime.ts";
import { loadAdapter } from "../src/net/load.ts";
import type { Connection, Listener } from "../src/net/net.ts";
import { NumberedVerifier } from "../src/message/numbered.ts";
import { serve, type Server } from "../src/relay/serve.ts";
import type { ServeEvent } from "../src/relay/serve_event.ts";
import type { ServeOptions } from "../src/relay/serve_options.ts";
import { withQueues } from "./relaying.ts";
import { run } from "./process.ts";
import { until, within } from "./within.ts";

const net = await loadAdapter();
const SIZE = 64;

/** A receiver, and the connections that have come. */
class Receiver {
  readonly connections: Connection[] = [];
  listener: Listener | undefined;

  async listen(port = 0): Promise<number> {
    this.listener = await net.listen({
      host: "127.0.0.1",
      port,
      onConnection: (connection) => void this.connections.push(connection),
    });
    return this.listener.address.port;
  }

  async next(nth: number): Promise<Connection> {
    await until(`connection ${nth}`, 8000, () => this.connections.length >= nth);
    return this.connections[nth - 1]!;
  }
}

async function serving(
  port: number,
  options: Partial<ServeOptions>,
  use: (server: Server, events: ServeEvent[]) => Promise<void>,
): Promise<void> {
  const events: ServeEvent[] = [];
  const server = await serve({
    connect: { host: "127.0.0.1", port },
    message: { numbered: true, size: SIZE },
    rate: 2000,
    ...options,
    onEvent: (event) => events.push(event),
  });
  try {
    await use(server, events);
  } finally {
    await within("its end", 10_000, server.stop());
  }
}

async function readMessages(connection: Connection, messages: number): Promise<NumberedVerifier> {
  const verifier = new NumberedVerifier(SIZE);
  while (verifier.messages < messages) {
    const chunk = await within("bytes", 10_000, connection.read(65_536));
    if (chunk === null) break;
    verifier.push(chunk);
  }
  return verifier;
}

describe(`serve to a receiver that listens, on ${runtime}`, () => {
  test("connects, and connects again when the connection has ended", async () => {
    const receiver = new Receiver();
    const port = await receiver.listen();
    await serving(port, { overflow: "block" }, async (server, events) => {
      assertEquals(server.address, { host: "127.0.0.1", port });
      assertEquals(events[0]!.event, "connecting");
      for (const nth of [1, 2]) {
        const connection = await receiver.next(nth);
        const { messages, damaged, duplicates } = await readMessages(connection, 100);
        assertGreater(messages, 99);
        assertEquals([damaged, duplicates], [0, 0]);
        connection.close();
      }
      await until("two ends", 5000, () => events.filter((e) => e.event === "closed").length === 2);
    });
    await receiver.listener!.close();
  });

  test("what comes before the receiver is there is kept for it", () =>
    withQueues(async (open) => {
      const receiver = new Receiver();
      const port = await receiver.listen();
      await receiver.listener!.close();
      const queue = await open();
      await serving(port, { overflow: "spill", queue }, async (_server, events) => {
        await until("a failure", 5000, () => events.some((e) => e.event === "unreachable"));
        const failed = events.find((e) => e.event === "unreachable")!;
        assertEquals([failed.error, failed.inMs, failed.port], ["ECONNREFUSED", 100, port]);
        await receiver.listen(port);
        const { messages, missing } = await readMessages(await receiver.next(1), 3000);
        assertGreater(messages, 2999);
        assertEquals(missing, 0);
      });
      for (const each of receiver.connections) each.close();
      await receiver.listener!.close();
    }));

  test("--connect excludes what is for several readers", async () => {
    const refused = async (...args: string[]) => {
      const { status, stderr } = await run(["server.ts", "--connect", "127.0.0.1:1", ...args]);
      return [status, stderr];
    };
    const why = (option: string) =>
      `server: --connect and ${option} exclude each other: there is one reader (see --help)\n`;
    assertEquals(await refused("--allow", "10.0.0.0/8"), [2, why("--allow")]);
    assertEquals(await refused("--max-readers", "2"), [2, why("--max-readers")]);
  });
});
