/**
 * Readers whose host vanishes while bytes wait for them, and readers that only do not read. The other
 * host is a network namespace that each test makes and removes.
 */
import { describe, test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { assert, assertEquals, assertGreaterOrEqual, assertLess, assertRejects } from "#std/assert";
import { SILENCE_MS, userTimeout } from "../src/kernel/keepalive.ts";
import { libc } from "../src/kernel/libc.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { drain } from "../src/read/drain.ts";
import { serve } from "../src/relay/serve.ts";
import { TcpSource } from "../src/source/tcp_source.ts";
import { loadAdapter } from "../src/net/load.ts";
import type { Connection } from "../src/net/net.ts";
import { type Host, makeHost } from "./namespace.ts";
import { withServer } from "./peer.ts";
import { type Program, start } from "./process.ts";
import { serving as servingHere } from "./serve_here.ts";
import { eventsOf, json, serving } from "./serving.ts";
import { skip } from "./skip.ts";
import { within } from "./within.ts";

/** A reader on another host of a server on this one, both with these options. */
async function withReader(
  t: TestContext,
  options: { server: readonly string[]; client?: readonly string[] },
  use: (server: Program, reader: Program, host: Host) => Promise<void>,
): Promise<void> {
  if (typeof libc === "string") return skip(t, libc);
  let host: Host;
  try {
    host = makeHost();
  } catch (error) {
    return skip(t, (error as Error).message.split("\n")[0]!);
  }
  try {
    await serving([...json, "--host", host.ours, ...options.server], async (server, port) => {
      const args = ["client.ts", `${host.ours}:${port}`];
      const reader = start([...args, ...options.client ?? []], { under: host.run });
      try {
        await within("the reader", 10_000, server.saw(/"event":"reader"/));
        await within("the reader", 10_000, reader.saw(/connected to/));
        await use(server, reader, host);
      } finally {
        reader.kill("SIGKILL");
        await within("its end", 5000, reader.ended);
      }
    });
  } finally {
    host.remove();
  }
}

const deadOf = (server: Program) =>
  eventsOf(server.stdout).filter((event) => event.event === "dead");

describe(`a reader whose host vanishes, on ${runtime}`, () => {
  const kinds: Record<string, readonly string[]> = {
    "of a plain flood": ["--overflow", "block", "--rate", "1k/s"],
    "of a relay": ["--overflow", "block", "--rate", "1k/s", "--message", "numbered"],
  };
  for (const [kind, args] of Object.entries(kinds)) {
    test(`${kind}: it is reset after --dead-peer-timeout`, async (t) => {
      const timeout = ["--dead-peer-timeout", "2s"];
      await withReader(t, { server: [...args, ...timeout] }, async (server, _, host) => {
        host.cut();
        await within("the verdict", 10_000, server.saw(/"event":"dead"/));
        const [dead] = deadOf(server);
        assert(dead !== undefined && dead.event === "dead");
        assertEquals([dead.reader, dead.why], [1, "silent"]);
        assertGreaterOrEqual(dead.seconds, 2);
        assertLess(dead.seconds, 6);
        await within("its end", 5000, server.saw(/"event":"closed".*"reason":"local"/));
      });
    });
  }
});

describe(`a reader that only does not read, on ${runtime}`, () => {
  test("is kept far beyond --dead-peer-timeout, until its host vanishes as well", async (t) => {
    const args = ["--overflow", "block", "--rate", "max", "--dead-peer-timeout", "1s"];
    await withReader(t, { server: args }, async (server, reader, host) => {
      reader.kill("SIGSTOP");
      await within("a full kernel", 10_000, server.saw(/"event":"overflow"/));
      // Its window is zero, and its kernel answers every probe.
      await sleep(5000);
      assertEquals(deadOf(server), []);
      assert(!server.stdout.includes(`"closed"`), server.stdout);
      host.cut();
      await within("the verdict", 10_000, server.saw(/"event":"dead".*"why":"silent"/));
      await within("its end", 5000, server.saw(/"event":"closed".*"reason":"local"/));
    });
  });

  test("nor by any time when it goes on: nothing is lost", async (t) => {
    if (typeof libc === "string") return skip(t, libc);
    const options = { overflow: "block", deadPeerTimeoutMs: 1000, rate: 1e6 } as const;
    await servingHere(options, async ({ connect, saw, all }) => {
      const reader = await connect();
      await saw("overflow");
      await sleep(3000);
      assertEquals([all("dead"), all("closed")], [[], []]);
      let bytes = 0;
      while (bytes < 32 << 20) {
        const chunk = await within("the next bytes", 5000, reader.read(65_536));
        assert(chunk !== null);
        bytes += chunk.length;
      }
      assertEquals(all("dead"), []);
    });
  });
});

describe(`the other connections, on ${runtime}`, () => {
  test("TCP_USER_TIMEOUT of a tcp source and of a client that sends no replies", async (t) => {
    if (typeof libc === "string") return skip(t, libc);
    const net = await loadAdapter();
    const ours: Connection[] = [];
    const adapter = {
      ...net,
      async connect(options: Parameters<typeof net.connect>[0]) {
        const connection = await net.connect(options);
        ours.push(connection);
        return connection;
      },
    };
    await withServer(() => {}, async (address) => {
      const source = new TcpSource({ ...address, frame: { kind: "none" }, adapter });
      const connected = Promise.withResolvers<void>();
      const running = source.run({ push() {}, note: () => connected.resolve() }, 0);
      await within("the source", 5000, connected.promise);
      assertEquals(userTimeout(ours.pop()!.fd!), SILENCE_MS);
      source.stop();
      await within("its end", 5000, running);
      for (const mode of ["drain", "naive"] as const) {
        const stop = new AbortController();
        const open = Promise.withResolvers<unknown>();
        const options = { mode, adapter, signal: stop.signal, onConnected: open.resolve };
        const draining = drain({ ...address, ...options });
        await within("the client", 5000, open.promise);
        // A server that ignores replies is not dead.
        assertEquals(userTimeout(ours.pop()!.fd!), mode === "drain" ? SILENCE_MS : 0);
        stop.abort();
        await within("its end", 5000, draining);
      }
    });
  });

  test("without libc a given --dead-peer-timeout is an error", async () => {
    if (typeof libc !== "string") return;
    await assertRejects(
      () => serve({ port: 0, deadPeerTimeoutMs: 10000 }),
      Error,
      "cannot tell whether the host of a reader still answers",
    );
  });
});
