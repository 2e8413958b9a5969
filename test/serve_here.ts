/** serve() within a test's own process, and readers that check every byte. */
import type { TestContext } from "node:test";
import { libc } from "../src/kernel/libc.ts";
import { fillerMessage } from "../src/message/message.ts";
import type { Adapter, Closed, Connection } from "../src/net/net.ts";
import { loadAdapter } from "../src/net/load.ts";
import { serve, type Server } from "../src/relay/serve.ts";
import type { ServeEvent } from "../src/relay/serve_event.ts";
import type { ServeOptions } from "../src/relay/serve_options.ts";
import { skip } from "./skip.ts";
import { until, within } from "./within.ts";

/** Of a size that fits no buffer, and a period that fits no other size. */
export const SIZE = 97;
export const MESSAGE = fillerMessage(SIZE);
export const ONE = MESSAGE.slice(0, SIZE);
/** 9 KB in the kernel: an overflow comes in milliseconds. */
export const SMALL = 4608;

export type Event<Name extends ServeEvent["event"]> = ServeEvent & { event: Name };

export interface Served {
  server: Server;
  net: Adapter;
  events: ServeEvent[];
  /** The events of that name so far. */
  all<Name extends ServeEvent["event"]>(name: Name): Event<Name>[];
  /** The first event of that name, once it has come. */
  saw<Name extends ServeEvent["event"]>(name: Name, reader?: number): Promise<Event<Name>>;
  connect(): Promise<Connection>;
}

/** Runs a server for one test, with everything ended afterwards. */
export async function serving(
  options: Partial<ServeOptions>,
  use: (served: Served) => Promise<void>,
): Promise<void> {
  const events: ServeEvent[] = [];
  const net = await loadAdapter();
  const readers: Connection[] = [];
  const server = await serve({
    port: 0,
    message: MESSAGE,
    rate: 100_000,
    ...options,
    onEvent: (event) => events.push(event),
  });
  const all = <Name extends ServeEvent["event"]>(name: Name) =>
    events.filter((event) => event.event === name) as Event<Name>[];
  const served: Served = {
    server,
    net,
    events,
    all,
    async saw<Name extends ServeEvent["event"]>(name: Name, reader?: number) {
      const found = () =>
        all(name).find((event) =>
          reader === undefined || (event as { reader?: number }).reader === reader
        );
      await until(`event ${name}`, 10_000, () => found() !== undefined);
      return found()!;
    },
    async connect() {
      const reader = await net.connect({ host: "127.0.0.1", port: server.address.port });
      readers.push(reader);
      return reader;
    },
  };
  try {
    await use(served);
  } finally {
    for (const reader of readers) reader.close();
    await within("the server's end", 5000, server.stop());
  }
}

export interface Read {
  bytes: number;
  /** How it ended, as the reader saw it. */
  closed: Closed;
}

/** What comes after `offset` bytes must go on with the same message, again and again. */
export function assertUnbroken(offset: number, chunk: Uint8Array): void {
  for (let i = 0; i < chunk.length; i++) {
    if (chunk[i] === ONE[(offset + i) % SIZE]) continue;
    throw new Error(`byte ${offset + i} is not that of an unbroken series of messages`);
  }
}

/** Reads to the end; all of it must be the one message again and again, as if nothing was missing. */
export async function readAll(reader: Connection): Promise<Read> {
  let bytes = 0;
  while (true) {
    const chunk = await within("the next bytes", 10_000, reader.read(65_536));
    if (chunk === null) break;
    assertUnbroken(bytes, chunk);
    bytes += chunk.length;
  }
  reader.close();
  return { bytes, closed: await within("closed", 2000, reader.closed) };
}

/** Without libc there are no small buffers, and an overflow takes the megabytes of the default. */
export function withoutSmallBuffers(t: TestContext): boolean {
  if (typeof libc !== "string") return false;
  skip(t, libc);
  return true;
}
