/**
 * serve() with a queue, a source, a handler of events or a reader that fails: that reader ends with
 * an event, or the server does through `done`; nothing is left unhandled, and `stop` always settles.
 */
import { after, before, describe, test } from "node:test";
import process from "node:process";
import { assert, assertEquals, assertMatch, assertRejects } from "#std/assert";
import { formatResume } from "../src/message/protocol.ts";
import type { Queue } from "../src/queue/queue.ts";
import { serve, type Server } from "../src/relay/serve.ts";
import type { ServeEvent } from "../src/relay/serve_event.ts";
import type { ServeOptions } from "../src/relay/serve_options.ts";
import type { Sink, Source } from "../src/source/source.ts";
import { net, numbered, SIZE, SMALL, withoutKernel, withQueues } from "./relaying.ts";
import { until, within } from "./within.ts";

const unhandled: string[] = [];
const note = (error: unknown) => void unhandled.push(String(error));
before(() => {
  process.on("unhandledRejection", note);
  process.on("uncaughtException", note);
});
after(() => {
  process.off("unhandledRejection", note);
  process.off("uncaughtException", note);
});

interface Failing {
  server: Server;
  events: ServeEvent[];
  /** How `done` has settled: `resolved`, or the error's message. */
  settled(): Promise<string>;
  /** Connects, sends a line if there is one, and reads on. Settles when the connection has ended. */
  read(line?: string): Promise<{ bytes: number }>;
}

/** Runs a server for one test, and ends it by `stop`, which must settle as `done` does. */
async function failing(
  options: Partial<ServeOptions>,
  use: (failing: Failing) => Promise<void>,
): Promise<void> {
  const events: ServeEvent[] = [];
  const { onEvent, ...rest } = options;
  const server = await within(
    "the server's start",
    5000,
    serve({
      port: 0,
      message: { numbered: true, size: SIZE },
      rate: 20_000,
      ...rest,
      onEvent(event) {
        events.push(event);
        return onEvent?.(event);
      },
    }),
  );
  const settling = server.done.then(() => "resolved", (error: Error) => error.message);
  const open = new Set<{ close(): void }>();
  try {
    await use({
      server,
      events,
      settled: () => within("done", 5000, settling),
      async read(line) {
        const { host, port } = server.address;
        const connection = await within("connect", 5000, net.connect({ host, port }));
        open.add(connection);
        if (line !== undefined) await connection.write(new TextEncoder().encode(line));
        let bytes = 0;
        for (let chunk; (chunk = await connection.read(65_536)) !== null;) bytes += chunk.length;
        connection.close();
        return { bytes };
      },
    });
  } finally {
    for (const each of open) each.close();
    const stopped = server.stop().then(() => "resolved", (error: Error) => error.message);
    assertEquals(await within("stop()", 5000, stopped), await settling);
    // A rejection is told of in a later turn of the event loop.
    await new Promise((resolve) => setTimeout(resolve, 5));
    assertEquals(unhandled.splice(0), []);
  }
}

const closedOf = (events: readonly ServeEvent[], nth = 1) =>
  events.filter((event) => event.event === "closed")[nth - 1];

const sawClosed = (events: readonly ServeEvent[], nth = 1) =>
  until(`closed ${nth}`, 5000, () => closedOf(events, nth) !== undefined);

/** Calls of a log or of its cursors that fail. */
type Faults = Partial<Record<"append" | "read" | "reserve" | "settled" | "release", unknown>>;

/** A queue on disk, of which some calls do as told; `open` is called for each reader that is opened. */
function withFaults(
  queue: Queue,
  faults: Faults,
  open: (name: string) => void | Promise<void> = () => {},
): Queue {
  const proxy = <T extends object>(of: T, also: Record<string, unknown> = {}): T =>
    new Proxy(of, {
      get(target, key) {
        const fault = { ...faults, ...also }[key as string];
        if (fault !== undefined) return fault;
        const value: unknown = Reflect.get(target, key, target);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
  return {
    get logs() {
      return queue.logs;
    },
    get diskFree() {
      return queue.diskFree;
    },
    get syncs() {
      return queue.syncs;
    },
    async openLog(key) {
      const log = await queue.openLog(key);
      return proxy(log, {
        async openCursor(name: string, offset: number) {
          await open(name);
          return proxy(await log.openCursor(name, offset));
        },
      });
    },
    close: () => queue.close(),
  };
}

const broken = () => Promise.reject(new Error("the disk is broken"));
const throwing = () => {
  throw new Error("the disk is broken");
};

describe("a queue that fails", () => {
  test("when it is opened for the only reader: serve() rejects, and the port is free", async () => {
    await withQueues(async (open) => {
      const queue = withFaults(await open(), {}, () => {
        throw new Error("disk is full");
      });
      const port = await freePort();
      await assertRejects(
        () => within("serve()", 5000, serve({ port, overflow: "spill", queue })),
        Error,
        "disk is full",
      );
      const next = await within("the port", 5000, serve({ port }));
      await within("stop()", 5000, next.stop());
      assertEquals(unhandled.splice(0), []);
    });
  });

  test("when it is opened for one of several: that one is told why, and may come again", async () => {
    await withQueues(async (open) => {
      let full = true;
      const queue = withFaults(await open(), {}, (name) => {
        if (name === "anna" && full) throw new Error("disk is full");
      });
      const options = { overflow: "spill", queue, readerId: "hello", ack: "none" } as const;
      await failing(options, async ({ read, events }) => {
        assertEquals((await within("its end", 5000, read("anna\n"))).bytes, 0);
        await sawClosed(events);
        const closed = closedOf(events)!;
        assert("refused" in closed && !("error" in closed));
        assertEquals(closed.refused, "the reader is not accepted: disk is full");
        assertEquals(closed.why, "queue");
        full = false;
        void read("anna\n");
        void read("bert\n");
        await until("both", 5000, () => queue.logs.flatMap(({ cursors }) => cursors).length === 2);
      });
    });
  });

  const faults: [call: keyof Faults, fault: () => never | Promise<never>, acks: boolean][] = [
    ["append", broken, false],
    ["read", broken, false],
    ["reserve", broken, true],
    ["settled", broken, false],
    ["release", throwing, false],
    ["read", throwing, false],
  ];
  for (const [call, fault, acks] of faults) {
    const how = fault === throwing ? "throws" : "rejects";
    test(`when ${call}() ${how}: done rejects, and a reader's end has the reason`, async () => {
      await withQueues(async (open) => {
        const queue = withFaults(await open(), { [call]: fault });
        const source = new Pushing(call === "append" || call === "read" ? 100_000 : 100);
        // Of others, offsets are reserved also without a reader.
        source.replayable = call === "reserve";
        const options = {
          overflow: "spill",
          queue,
          source,
          frame: { kind: "fixed", size: SIZE },
          ack: acks ? "reader" : "none",
        } as const;
        await failing(options, async ({ read, events, settled, server }) => {
          if (call === "read") {
            await within("stored", 10_000, source.pushed);
            // Then memory has none of it.
            await until("all on disk", 10_000, () => queue.logs[0]?.end === 100_000 * SIZE);
          }
          if (call !== "append") {
            void read(acks ? formatResume(undefined) : undefined).catch(() => {});
          }
          assertEquals(await settled(), "the disk is broken");
          if (call === "append") return;
          await sawClosed(events);
          const closed = closedOf(events)!;
          // What is recorded is not of this connection alone.
          const error = "error" in closed ? closed.error : undefined;
          if (call !== "release" && call !== "settled") assertEquals(error, "the disk is broken");
          assert(server.address.port > 0);
        });
      });
    });
  }
});

describe("a handler of events", () => {
  const names = ["listening", "reader", "sent", "overflow", "closed", "refused", "done"] as const;
  for (const how of ["throws", "rejects"] as const) {
    for (const name of names) {
      test(`that ${how} on ${name}`, async (t) => {
        if (name === "overflow" && withoutKernel(t)) return;
        const onEvent = ({ event }: ServeEvent): void => {
          if (event !== name) return;
          const error = new Error("a mistake in the handler");
          if (how === "throws") throw error;
          return Promise.reject(error) as unknown as void;
        };
        const options: Partial<ServeOptions> = {
          onEvent,
          sentEveryMs: 5,
          maxReaders: 1,
          ...(name === "overflow" ? { sendBuffer: SMALL, overflow: "drop", rate: 1e6 } : {}),
          ...(name === "done" ? { durationMs: 200 } : {}),
        };
        await failing(options, async ({ read, events, settled, server }) => {
          if (name === "listening") {
            return assertEquals(await settled(), "a mistake in the handler");
          }
          if (name === "done") {
            await within("its end", 5000, read());
            // Once it has settled, nothing can be told any more.
            const says = how === "throws" ? "a mistake in the handler" : "resolved";
            return assertEquals(await settled(), says);
          }
          const { host, port } = server.address;
          const slow = await within("connect", 5000, net.connect({ host, port }));
          try {
            if (name === "refused") {
              await until("connected", 5000, () => events.some((e) => e.event === "reader"));
              await within("its refusal", 5000, read());
            }
            if (name === "closed") slow.close();
            const ofReader = name === "reader" || name === "sent" || name === "overflow";
            if (ofReader) {
              await sawClosed(events);
              assertEquals(closedOf(events), {
                ...closedOf(events)!,
                error: "a mistake in the handler",
              });
            } else {
              assertEquals(await settled(), "a mistake in the handler");
            }
          } finally {
            slow.close();
          }
        });
      });
    }
  }

  test("that throws on an event of the source ends the server", async () => {
    const onEvent = ({ event }: ServeEvent) => {
      if (event === "source") throw new Error("a mistake in the handler");
    };
    const source: Source = {
      replayable: false,
      run: (sink) => {
        sink.note({ event: "ended", discarded: 0 });
        return new Promise(() => {});
      },
      stop() {},
    };
    await failing({ source, onEvent, ack: "none" }, async ({ read, settled }) => {
      void read();
      assertEquals(await settled(), "a mistake in the handler");
    });
  });
});

describe("a source that fails", () => {
  const sources: Record<string, Partial<Source>> = {
    "run() throws": {
      run() {
        throw new Error("no such feed");
      },
    },
    "run() rejects": { run: () => Promise.reject(new Error("no such feed")) },
    "acknowledge() throws": {
      replayable: true,
      acknowledge() {
        throw new Error("no such feed");
      },
    },
  };
  for (const [what, parts] of Object.entries(sources)) {
    test(`${what}: done rejects`, async () => {
      const source = Object.assign(new Pushing(1000), parts);
      const frame = { kind: "fixed", size: SIZE } as const;
      await failing({ source, frame, ack: "none" }, async ({ read, settled, events }) => {
        void read();
        assertEquals(await settled(), "no such feed");
        await sawClosed(events);
      });
    });
  }

  test("stop() throws: done rejects", async () => {
    const source = Object.assign(new Pushing(1000), {
      stop() {
        throw new Error("no way to stop");
      },
    });
    await failing({ source, ack: "none" }, async ({ read, settled, server, events }) => {
      void read();
      await until("connected", 5000, () => events.some((e) => e.event === "reader"));
      await within("the source", 5000, source.pushed);
      void server.stop().catch(() => {});
      assertEquals(await settled(), "no way to stop");
    });
  });
});

describe("a reader's greeting that fails", () => {
  const greetings: [line: string | undefined, refused: RegExp][] = [
    ["no name !\n", /name/],
    ["x".repeat(5000), /longer than/],
    ["anna\nack 5\n", /resume/],
    ["anna\nresume 5\n", /resume/],
    [undefined, /has not sent its name within/],
  ];
  for (const [line, refused] of greetings) {
    test(line === undefined ? "by silence" : JSON.stringify(line.slice(0, 20)), async () => {
      const options = { readerId: "hello", ack: "reader", handshakeTimeoutMs: 300 } as const;
      await failing(
        { ...options, source: new Pushing(0), queue: undefined! },
        async ({ read, events }) => {
          assertEquals((await within("its end", 5000, read(line))).bytes, 0);
          await sawClosed(events);
          const closed = closedOf(events)!;
          assertMatch("refused" in closed ? closed.refused! : "", refused);
        },
      );
    });
  }
});

/** A source that pushes numbered messages, and then runs until it is stopped. */
class Pushing implements Source {
  replayable = false;
  readonly pushed: Promise<void>;
  readonly #count: number;
  readonly #pushed = Promise.withResolvers<void>();
  #over = false;
  readonly #stopped = Promise.withResolvers<void>();

  constructor(count: number) {
    this.#count = count;
    this.pushed = this.#pushed.promise;
  }

  async run(sink: Sink): Promise<void> {
    for (let from = 0; from < this.#count && !this.#over; from += 100) {
      await sink.push(numbered(from, from + 100), 100, this.replayable ? from * SIZE : 0);
    }
    this.#pushed.resolve();
    await this.#stopped.promise;
  }

  stop(): void {
    this.#over = true;
    this.#stopped.resolve();
  }
}

async function freePort(): Promise<number> {
  const listener = await net.listen({ host: "127.0.0.1", port: 0, onConnection() {} });
  await listener.close();
  return listener.address.port;
}
