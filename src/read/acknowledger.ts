/**
 * The reader's side of the acknowledgement protocol (ack.ts): asks where the stream goes on, stores
 * how far it has been handled, and acknowledges that.
 *
 * Storing runs beside the reading: what is handled meanwhile goes with the next acknowledgement.
 */
import {
  formatAck,
  formatHello,
  formatResume,
  LineReader,
  parseAt,
  ProtocolError,
  type StreamOffset,
} from "../message/protocol.ts";
import type { Connection } from "../net/net.ts";

/** How a reader acknowledges, and where it goes on. */
export interface AckOptions {
  /** All before it was stored, of `stream`; bytes. Without the two the reader knows nothing. */
  offset?: number | undefined;
  /** 16 hex digits. */
  stream?: string | undefined;
  /**
   * Stores an offset, and whose it is. It is acknowledged once this has returned, or its promise has
   * settled; called again only then.
   */
  onStore?: ((offset: number, stream: string) => void | Promise<void>) | undefined;
}

/** An acknowledgement is due after so many bytes, or so long after the first of them. */
export const ACK_BYTES: number = 1 << 20;
const ACK_MS = 10;
/** What comes again after a crash, and what the server has to keep, is not much more. Bytes. */
const MOST_UNSTORED = 64 << 20;
/** How long the last one may wait for a server that takes none. */
const LAST_ACK_MS = 1000;

/** The server's stream is not the one that was asked for. */
export class OtherStreamError extends Error {
  override name = "OtherStreamError";
  constructor(asked: StreamOffset, at: StreamOffset) {
    super(
      `the server's stream is ${at.stream}, not ${asked.stream}: ` +
        `the offset ${asked.offset} means nothing in it`,
    );
  }
}

/**
 * Says who is reading, where there is a name, and without `ack` no more; with it asks where the
 * stream goes on. Rejects with an OtherStreamError, with a ProtocolError when the server's answer
 * cannot be, and with an Error when there is none.
 */
export async function introduce(
  connection: Connection,
  hello: string | undefined,
  ack: AckOptions | undefined,
): Promise<StreamOffset | undefined> {
  const asked = ack === undefined ? undefined : streamOffsetOf(ack);
  const name = hello === undefined ? "" : formatHello(hello);
  await send(connection, name + (ack === undefined ? "" : formatResume(asked)));
  if (ack === undefined) return undefined;
  const at = parseAt(await readLine(connection));
  if (asked === undefined) return at;
  if (at.stream !== asked.stream) throw new OtherStreamError(asked, at);
  if (at.offset >= asked.offset) return at;
  throw new ProtocolError(
    `the server goes on at ${at.offset}, and must not before ${asked.offset}, which was asked for`,
  );
}

/** What the options ask for; undefined: nothing is known. */
function streamOffsetOf({ offset, stream }: AckOptions): StreamOffset | undefined {
  return offset === undefined || stream === undefined ? undefined : { offset, stream };
}

/** A byte a read: what follows the line is the stream's, and belongs to whoever reads on. */
async function readLine(connection: Connection): Promise<string> {
  const lines = new LineReader();
  while (true) {
    const byte = await connection.read(1);
    if (byte === null) {
      throw new Error("the server hung up before it said where the stream goes on");
    }
    lines.push(byte);
    const line = lines.next();
    if (line !== undefined) return line;
  }
}

/** All of it, unless the connection ends: then the reading sees that too. */
async function send(connection: Connection, text: string): Promise<void> {
  let bytes = new TextEncoder().encode(text);
  while (bytes.length > 0) {
    const taken = await connection.write(bytes);
    if (taken === 0) return;
    bytes = bytes.subarray(taken);
  }
}

/** Counts what has been handled, stores it now and then, and acknowledges what is stored. */
export class Acknowledger {
  /** Bytes between what was asked for and where the server goes on. */
  readonly missed: number;
  /** Rejects when `onStore` does, but for the last one: that is `finish`. Never resolves. */
  readonly failed: Promise<never>;
  readonly #connection: Connection;
  readonly #stream: string;
  readonly #unit: number;
  readonly #onStore: AckOptions["onStore"];
  readonly #fail: (error: unknown) => void;
  #handled: number;
  #stored: number;
  #acked: number;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Whether a round of storing and acknowledging is under way. */
  #busy = false;
  #storing: Promise<void> = Promise.resolve();
  #acking: Promise<void> = Promise.resolve();
  #finished = false;

  /** From `at` on, in whole units of so many bytes from the stream's start. */
  constructor(connection: Connection, at: StreamOffset, unit: number, options: AckOptions) {
    this.#connection = connection;
    this.#stream = at.stream;
    this.#unit = unit;
    this.#onStore = options.onStore;
    this.#handled = this.#stored = this.#acked = at.offset;
    this.missed = at.offset - (streamOffsetOf(options)?.offset ?? at.offset);
    const { promise, reject } = Promise.withResolvers<never>();
    this.failed = promise;
    this.#fail = reject;
    // Who looks at it may have left.
    promise.catch(() => {});
  }

  /** All before it has been stored. */
  get stored(): StreamOffset {
    return { offset: this.#stored, stream: this.#stream };
  }

  /** So many bytes more have been handled. To be waited for, where storing is far behind. */
  handled(bytes: number): void | Promise<void> {
    if (this.#finished) return;
    this.#handled += bytes;
    if (this.#busy) {
      return this.#handled - this.#stored > MOST_UNSTORED ? this.#storing : undefined;
    }
    const waiting = this.#whole() - this.#stored;
    if (waiting >= ACK_BYTES) this.#begin();
    else if (waiting > 0) this.#timer ??= setTimeout(() => this.#begin(), ACK_MS);
  }

  /**
   * Stores what has been handled up to now, and nothing of what is handled from now on; gives the
   * acknowledgement to the kernel if it takes it soon. Rejects when `onStore` does.
   */
  async finish(): Promise<void> {
    this.#finished = true;
    clearTimeout(this.#timer);
    await this.#storing;
    await this.#store();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<void>((resolve) => timer = setTimeout(resolve, LAST_ACK_MS));
    await Promise.race([this.#acking.then(() => this.#acknowledge()), late]);
    clearTimeout(timer);
  }

  #whole(): number {
    return this.#handled - this.#handled % this.#unit;
  }

  #begin(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#busy = true;
    this.#storing = this.#store();
    this.#acking = this.#storing.then(() => this.#acknowledge());
    this.#acking.then(() => {
      this.#busy = false;
      void this.handled(0);
    }, this.#fail);
  }

  async #store(): Promise<void> {
    const offset = this.#whole();
    if (offset <= this.#stored) return;
    await this.#onStore?.(offset, this.#stream);
    this.#stored = offset;
  }

  /** A server that takes none gets them together, once it does. */
  async #acknowledge(): Promise<void> {
    if (this.#acked === this.#stored) return;
    this.#acked = this.#stored;
    await send(this.#connection, formatAck(this.#acked));
  }
}
