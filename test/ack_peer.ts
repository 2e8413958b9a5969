/** A server that speaks the acknowledgement protocol, for tests of its readers. */
import {
  AckParser,
  formatAt,
  LineReader,
  parseHello,
  parseResume,
  type StreamOffset,
} from "../src/message/protocol.ts";
import type { Connection } from "../src/net/net.ts";
import { nextTurn } from "../src/send/pacer.ts";
import { fillNumbered } from "../src/message/numbered.ts";
import { send } from "./peer.ts";

export const STREAM = "00c0ffee0123abcd";
/** Messages that are made at a time. */
const BATCH = 1000;

export interface AckPeerOptions {
  /** Bytes of a message. */
  size: number;
  /** Where the stream ends, and FIN is sent; default: never. Bytes, whole messages. */
  end?: number;
  /** Readers say their name first. */
  hello?: boolean;
  /** What it answers; default: where it was asked to go on, or all that is not acknowledged. */
  answer?: (asked: StreamOffset | undefined) => string;
  /** Changes a batch on its way: its messages are whole, `first` is the number of the first one. */
  change?: (batch: Uint8Array, first: number) => Uint8Array;
}

/** One stream of numbered messages, for a reader that comes again and again. */
export class AckPeer {
  /** What each connection said first. */
  readonly names: string[] = [];
  readonly asked: (StreamOffset | undefined)[] = [];
  /** The acknowledgements of all connections, in their order. */
  readonly acks: number[] = [];
  /** Settles when the last connection has ended. */
  ended: Promise<void> = Promise.resolve();
  readonly #options: AckPeerOptions;

  constructor(options: AckPeerOptions) {
    this.#options = options;
  }

  get acked(): number {
    return Math.max(0, ...this.acks);
  }

  /** To be given to `withServer`. */
  readonly serve = (connection: Connection): void => {
    this.ended = this.#serve(connection);
  };

  async #serve(connection: Connection): Promise<void> {
    const { hello = false, answer } = this.#options;
    const lines = new LineReader();
    const next = async (): Promise<string | undefined> => {
      let line;
      while ((line = lines.next()) === undefined) {
        const chunk = await connection.read(4096);
        if (chunk === null) return undefined;
        lines.push(chunk);
      }
      return line;
    };
    const name = hello ? await next() : undefined;
    if (name !== undefined) this.names.push(parseHello(name));
    const line = await next();
    if (line === undefined) return;
    const asked = parseResume(line);
    this.asked.push(asked);
    const from = asked?.offset ?? this.acked;
    const text = answer?.(asked) ?? formatAt({ offset: from, stream: STREAM });
    await send(connection, new TextEncoder().encode(text));
    const reading = this.#readAcks(connection, new AckParser(lines));
    await this.#send(connection, /^at (\d+)/.exec(text)?.[1]);
    await reading;
  }

  async #send(connection: Connection, offset: string | undefined): Promise<void> {
    const { size, end = Infinity, change = (batch) => batch } = this.#options;
    const batch = new Uint8Array(BATCH * size);
    let first = Number(offset) / size;
    let gone = false;
    void connection.closed.then(() => gone = true);
    while (first * size < end && !gone) {
      const count = Math.min(BATCH, end / size - first);
      fillNumbered(batch, { first, count, size, plannedMs: Date.now(), everyMs: 0 });
      await send(connection, change(batch.subarray(0, count * size), first));
      first += count;
      // Where writes are answered at once, acknowledgements would never have their turn.
      await nextTurn();
    }
    if (end < Infinity) await connection.closeWrite();
  }

  async #readAcks(connection: Connection, parser: AckParser): Promise<void> {
    for (let chunk; (chunk = await connection.read(4096)) !== null;) {
      this.acks.push(parser.push(chunk));
    }
  }
}
