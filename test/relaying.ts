/** A relay within a test's own process: serve() with a durable queue, and readers that check it all. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { assertEquals } from "#std/assert";
import { formatAck, formatResume, parseAt, type StreamOffset } from "../src/message/protocol.ts";
import { libc } from "../src/kernel/libc.ts";
import type { Adapter, Closed, Connection } from "../src/net/net.ts";
import { loadAdapter } from "../src/net/load.ts";
import type { Log, Queue } from "../src/queue/queue.ts";
import { fillNumbered, NumberedVerifier } from "../src/message/numbered.ts";
import { serve, type Server } from "../src/relay/serve.ts";
import type { ServeEvent } from "../src/relay/serve_event.ts";
import type { ServeOptions } from "../src/relay/serve_options.ts";
import type { Sink, Source, SourceEvent } from "../src/source/source.ts";
import { type DiskQueueOptions, openDiskQueue } from "../src/queue/disk_queue.ts";
import { setTimeout as sleep } from "node:timers/promises";
import { send } from "./peer.ts";
import { skip } from "./skip.ts";
import { until, within } from "./within.ts";

/** Of the numbered messages. */
export const SIZE = 64;
/**
 * What a server's kernel takes at once: so little that a reader that stops is seen soon, and enough
 * for some 20 MB/s when it catches up.
 */
export const SMALL = 65_536;

export const net: Adapter = await loadAdapter();

export type Event<Name extends ServeEvent["event"]> = ServeEvent & { event: Name };

/** Numbered messages, from one number to before another. */
export function numbered(from: number, to: number): Uint8Array {
  const bytes = new Uint8Array((to - from) * SIZE);
  const count = to - from;
  fillNumbered(bytes, { first: from, count, size: SIZE, plannedMs: Date.now(), everyMs: 0 });
  return bytes;
}

/** Without libc there are no small buffers, and nothing tells what was acknowledged. */
export function withoutKernel(t: TestContext): boolean {
  if (typeof libc !== "string") return false;
  skip(t, libc);
  return true;
}

export interface Relayed {
  server: Server;
  events: ServeEvent[];
  /** The events of that name so far. */
  all<Name extends ServeEvent["event"]>(name: Name): Event<Name>[];
  /** The one of that number (from 1) of that name, once it has come. */
  saw<Name extends ServeEvent["event"]>(name: Name, nth?: number): Promise<Event<Name>>;
  /** Connects a reader of numbered messages of which `first` is due. */
  connect(first?: number): Promise<Reader>;
}

/** Runs a relay for one test, with everything ended afterwards, but for the queue. */
export async function relaying(
  options: Partial<ServeOptions>,
  use: (relayed: Relayed) => Promise<void>,
): Promise<void> {
  const events: ServeEvent[] = [];
  const readers: Reader[] = [];
  const server = await serve({
    port: 0,
    message: { numbered: true, size: SIZE },
    rate: 20_000,
    frame: { kind: "fixed", size: SIZE },
    ...options,
    onEvent: (event) => events.push(event),
  });
  const failed = server.done.then(() => undefined, (error) => error as Error);
  const all = <Name extends ServeEvent["event"]>(name: Name) =>
    events.filter((event) => event.event === name) as Event<Name>[];
  try {
    await use({
      server,
      events,
      all,
      async saw<Name extends ServeEvent["event"]>(name: Name, nth = 1) {
        await until(`event ${name}, number ${nth}`, 10_000, () => all(name).length >= nth);
        return all(name)[nth - 1]!;
      },
      async connect(first = 0) {
        const to = { host: "127.0.0.1", port: server.address.port };
        const reader = new Reader(await within("connect", 5000, net.connect(to)), first);
        readers.push(reader);
        return reader;
      },
    });
  } finally {
    for (const { connection } of readers) connection.close();
    server.stop().catch(() => {});
    assertEquals(await within("the server's end", 10_000, failed), undefined);
  }
}

/** A folder for the test, with queues that are closed with it. */
export async function withQueues(
  use: (open: (options?: DiskQueueOptions, name?: string) => Promise<Queue>, folder: string) =>
    | Promise<void>
    | void,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "speedlimit-relay-"));
  const queues: Queue[] = [];
  try {
    await use(async (options = { sync: "off" }, name = "queue") => {
      const queue = await within("the queue", 10_000, openDiskQueue(join(folder, name), options));
      queues.push(queue);
      return queue;
    }, folder);
  } finally {
    for (const queue of queues) await within("its end", 10_000, queue.close());
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The test's end of a connection: it reads when it is told to. */
export class Reader {
  readonly connection: Connection;
  readonly verifier: NumberedVerifier;
  bytes = 0;
  /** The first bytes that it read: a message's. */
  readonly head: Uint8Array = new Uint8Array(SIZE);

  readonly #first: number;

  constructor(connection: Connection, first: number) {
    this.connection = connection;
    this.verifier = new NumberedVerifier(SIZE, first);
    this.#first = first;
  }

  /** The offset up to which it has whole messages. */
  get offset(): number {
    return this.#first * SIZE + this.bytes - this.bytes % SIZE;
  }

  /** Asks to go on at its first message; where the server goes on. */
  async resume(stream?: string): Promise<StreamOffset> {
    const offset = this.#first * SIZE;
    await this.say(formatResume(stream === undefined ? undefined : { offset, stream }));
    return parseAt((await this.line()).trimEnd());
  }

  /** Acknowledges the whole messages that it has. */
  ack(): Promise<void> {
    return this.say(formatAck(this.offset));
  }

  say(text: string): Promise<void> {
    return send(this.connection, new TextEncoder().encode(text));
  }

  /** The server's answer: up to a line feed, and no byte more. */
  async line(): Promise<string> {
    let line = "";
    while (!line.endsWith("\n")) {
      const byte = await within("a line", 5000, this.connection.read(1));
      if (byte === null) break;
      line += String.fromCharCode(byte[0]!);
    }
    return line;
  }

  /** One read; false: the end. */
  async read(most = 65_536): Promise<boolean> {
    const chunk = await within("the next bytes", 10_000, this.connection.read(most));
    if (chunk === null) return false;
    if (this.bytes < SIZE) this.head.set(chunk.subarray(0, SIZE - this.bytes), this.bytes);
    this.bytes += chunk.length;
    this.verifier.push(chunk);
    return true;
  }

  /** So many bytes, and not one more. */
  async take(bytes: number): Promise<void> {
    const end = this.bytes + bytes;
    while (this.bytes < end) {
      if (!await this.read(Math.min(65_536, end - this.bytes))) {
        throw new Error(`ended ${end - this.bytes} bytes too soon`);
      }
    }
  }

  /** To the end, which it tells. */
  async rest(): Promise<Closed> {
    while (await this.read());
    this.connection.close();
    return await within("closed", 2000, this.connection.closed);
  }

  /** What came is from the first message on, in order, and none is missing. */
  assertUnbroken(): void {
    const { missing, duplicates, outOfOrder, damaged } = this.verifier;
    const sound = { missing: 0, duplicates: 0, outOfOrder: 0, damaged: 0 };
    assertEquals({ missing, duplicates, outOfOrder, damaged }, sound);
  }

  /** The same, and these are all. */
  assertWhole(messages: number): void {
    this.assertUnbroken();
    assertEquals([this.verifier.messages, this.verifier.end()], [messages, 0]);
  }
}

/** The number in the first message of these bytes. */
export function numberIn(bytes: Uint8Array): number {
  return Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0));
}

/** A source that a test pushes, and that ends when the test says so. */
export class TestSource implements Source {
  readonly replayable = false;
  /** It is running. */
  readonly started: Promise<Sink>;
  stopped = false;
  /** Numbered messages so far. */
  messages = 0;
  readonly #start: (sink: Sink) => void;
  readonly #over = Promise.withResolvers<void>();

  constructor() {
    const { promise, resolve } = Promise.withResolvers<Sink>();
    this.started = promise;
    this.#start = resolve;
  }

  async run(sink: Sink): Promise<void> {
    this.#start(sink);
    await this.#over.promise;
  }

  /** Pushes the next numbered messages; a promise: the source has to wait. */
  async push(count: number): Promise<{ waiting: Promise<void> | undefined }> {
    const sink = await this.started;
    const bytes = numbered(this.messages, this.messages + count);
    this.messages += count;
    return { waiting: sink.push(bytes, count, 0) ?? undefined };
  }

  /** Pushes so many messages a second, until its end. It does not make up for time that it was kept from a core. */
  async flood(rate: number): Promise<void> {
    const every = 5;
    while (!this.stopped) {
      const { waiting } = await this.push(rate * every / 1000);
      await waiting;
      await sleep(every);
    }
  }

  note(event: SourceEvent): void {
    void this.started.then((sink) => sink.note(event));
  }

  end(): void {
    this.stopped = true;
    this.#over.resolve();
  }

  stop(): void {
    this.end();
  }
}

/** A source that has nothing new: what is on disk is all there is. */
export { EMPTY_SOURCE as NOTHING } from "../src/source/empty_source.ts";

/** What a queue stores for a reader, at any time. */
export class StoredFor {
  readonly #queue: Queue;
  readonly #name: string;

  constructor(queue: Queue, name: string) {
    this.#queue = queue;
    this.#name = name;
  }

  get log(): Log {
    const { logs } = this.#queue;
    return logs.find(({ key }) => key === this.#name) ?? logs.find(({ key }) => key === "")!;
  }

  get delivered(): number {
    return this.log.cursors.find(({ name }) => name === this.#name)!.offset;
  }

  /** Not delivered. */
  get bytes(): number {
    const { start, end } = this.log;
    return Math.max(0, end - Math.max(start, this.delivered));
  }

  get messages(): number {
    return this.bytes / SIZE;
  }
}
