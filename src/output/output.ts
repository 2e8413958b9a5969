/**
 * Room: what a reader puts out, as a measure of how far it has come.
 * In: where its output goes: its replies, its standard output, a file, a connection.
 * Out: how many messages have come out, and which are lost.
 */
import type { Address } from "../kernel/address.ts";
import { readReplies } from "../net/linger.ts";
import { type Adapter, type Connection, NetError } from "../net/net.ts";
import { formatHostPort, parseHostPort, UnitError } from "../text/units.ts";
import { FileTail } from "./file_tail.ts";
import { type CounterOptions, OutputCounter } from "./output_counter.ts";

/** Where the output of a reader goes. */
export type OutputPlace =
  /** What it says on the connection that it reads from; its standard output. */
  | { kind: "replies" | "stdout" }
  | { kind: "file"; path: string }
  /** It connects to us: `{out}` in its command is the address. */
  | { kind: "connect" }
  /** It listens there, and we connect to it. */
  | ({ kind: "listen" } & Address);

/** From the command line: `replies`, `stdout`, `file:PATH`, `connect:{out}`, `listen:HOST:PORT`. Throws a UnitError. */
export function parseOutputPlace(text: string): OutputPlace {
  if (text === "replies" || text === "stdout") return { kind: text };
  if (text === "connect:{out}") return { kind: "connect" };
  const [, kind, value] = /^(file|listen):(.+)$/s.exec(text) ?? [];
  if (kind === "file") return { kind, path: value! };
  if (kind === "listen") return { kind, ...parseHostPort(value!) };
  throw new UnitError("must be replies, stdout, file:PATH, connect:{out} or listen:HOST:PORT");
}

/** As `parseOutputPlace` reads it. */
export function formatOutputPlace(place: OutputPlace): string {
  switch (place.kind) {
    case "file":
      return `file:${place.path}`;
    case "connect":
      return "connect:{out}";
    case "listen":
      return `listen:${formatHostPort(place)}`;
    default:
      return place.kind;
  }
}

export interface OutputOptions extends CounterOptions {
  place: OutputPlace;
}

const AGAIN_MS = 20;

/** The output of one reader. */
export class Output {
  readonly counter: OutputCounter;
  readonly place: OutputPlace;
  /** What `{out}` in the reader's command is; undefined: nothing. */
  address: Address | undefined;
  #tail: FileTail | undefined;
  #close: () => Promise<void> = () => Promise.resolve();
  readonly #connections = new Set<Connection>();
  #closed = false;

  private constructor(options: OutputOptions) {
    this.counter = new OutputCounter(options);
    this.place = options.place;
  }

  /** `host`: where a reader is to connect to. Rejects with a NetError. */
  static async open(options: OutputOptions, net: Adapter, host: string): Promise<Output> {
    const output = new Output(options);
    const { place } = options;
    if (place.kind === "file") output.#tail = new FileTail(place.path);
    if (place.kind === "connect") {
      const listener = await net.listen({
        ...{ host, port: 0 },
        onConnection: (connection) => void output.#read(connection),
      });
      output.address = listener.address;
      output.#close = () => listener.close();
    }
    if (place.kind === "listen") void output.#dial(net, place);
    return output;
  }

  /** A reader begins anew: what comes from now on is its output. */
  begin(): void {
    for (const each of this.#connections) each.close();
    this.#connections.clear();
    this.#tail?.skip();
    this.counter.begin();
  }

  /** Looks for more, where nobody tells. Throws an Error where it cannot be read. */
  poll(): void {
    this.#tail?.read((chunk) => this.counter.push(chunk));
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const each of this.#connections) each.close();
    this.#tail?.close();
    await this.#close();
  }

  async #read(connection: Connection): Promise<void> {
    this.#connections.add(connection);
    await readReplies(connection, (chunk) => {
      // It may have been closed meanwhile: then this belongs to the reader before.
      if (this.#connections.has(connection)) this.counter.push(chunk);
    });
    this.#connections.delete(connection);
    connection.close();
  }

  /** Again and again: the reader may start later, and again. */
  async #dial(net: Adapter, { host, port }: Address): Promise<void> {
    while (!this.#closed) {
      try {
        await this.#read(await net.connect({ host, port }));
      } catch (error) {
        if (!(error instanceof NetError)) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  }
}
