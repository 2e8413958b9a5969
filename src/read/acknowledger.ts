/**
 * The reader's side of the acknowledgement protocol (src/message/protocol.ts): requests the stream,
 * stores the offset up to which it has been processed, and acknowledges that offset.
 *
 * Storing and reading run concurrently. Bytes that are processed while an offset is being stored are
 * acknowledged in the next round.
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

/** How a reader acknowledges, and from which offset it continues. */
export interface AckOptions {
  /** The reader has stored all bytes of `stream` before this offset. Without both: nothing yet. */
  offset?: number | undefined;
  /** The stream's name: 16 hex digits. */
  stream?: string | undefined;
  /**
   * Stores an offset and the stream's name. The offset is acknowledged once this has returned or its
   * promise has resolved; only then is it called again.
   */
  onStore?: ((offset: number, stream: string) => void | Promise<void>) | undefined;
}

/** An acknowledgement is due after this many bytes, or this long after the first of them. */
export const ACK_BYTES: number = 1 << 20;
const ACK_MS = 10;
/**
 * Reading waits when this much is not stored. It limits what the server must keep, and what it sends
 * again after a crash. Bytes.
 */
const MAX_UNSTORED = 64 << 20;
/** The longest wait for a server that does not take the last acknowledgement. */
const LAST_ACK_MS = 1000;

/** The server's stream is not the one that the reader requested. */
export class OtherStreamError extends Error {
  override name = "OtherStreamError";
  constructor(requested: StreamOffset, at: StreamOffset) {
    super(
      `the server's stream is ${at.stream}, not ${requested.stream}: ` +
        `the offset ${requested.offset} is not valid in it`,
    );
  }
}

/**
 * Sends the reader's name, if there is one. With `ack`, also requests the stream and returns the offset
 * at which the server begins. Rejects with an OtherStreamError; with a ProtocolError when the server's
 * reply is invalid; with an Error when the server disconnects before its reply.
 */
export async function handshake(
  connection: Connection,
  hello: string | undefined,
  ack: AckOptions | undefined,
): Promise<StreamOffset | undefined> {
  const requested = ack === undefined ? undefined : streamOffsetOf(ack);
  const name = hello === undefined ? "" : formatHello(hello);
  await send(connection, name + (ack === undefined ? "" : formatResume(requested)));
  if (ack === undefined) return undefined;
  const at = parseAt(await readLine(connection));
  if (requested === undefined) return at;
  if (at.stream !== requested.stream) throw new OtherStreamError(requested, at);
  if (at.offset >= requested.offset) return at;
  throw new ProtocolError(
    `the server begins at offset ${at.offset}, but the reader requested ${requested.offset}`,
  );
}

/** The offset to request; undefined: the reader has stored nothing. */
function streamOffsetOf({ offset, stream }: AckOptions): StreamOffset | undefined {
  return offset === undefined || stream === undefined ? undefined : { offset, stream };
}

/** Reads byte by byte: the bytes after the line belong to the stream and must stay unread. */
async function readLine(connection: Connection): Promise<string> {
  const lines = new LineReader();
  while (true) {
    const byte = await connection.read(1);
    if (byte === null) {
      throw new Error("the server closed the connection before it sent the stream's offset");
    }
    lines.push(byte);
    const line = lines.next();
    if (line !== undefined) return line;
  }
}

/** Sends the whole text, unless the connection ends; then the next read reports that. */
async function send(connection: Connection, text: string): Promise<void> {
  let bytes = new TextEncoder().encode(text);
  while (bytes.length > 0) {
    const taken = await connection.write(bytes);
    if (taken === 0) return;
    bytes = bytes.subarray(taken);
  }
}

/** Counts processed bytes, stores the offset at intervals, and acknowledges stored offsets. */
export class Acknowledger {
  /** Bytes that the server no longer had: between the requested offset and the one it began at. */
  readonly missed: number;
  /** Rejects when `onStore` fails, except during `finish`, which then rejects. Never resolves. */
  readonly failed: Promise<never>;
  readonly #connection: Connection;
  readonly #stream: string;
  readonly #unit: number;
  readonly #onStore: AckOptions["onStore"];
  readonly #fail: (error: unknown) => void;
  /** Offset of the first byte of this connection: a unit begins there. */
  readonly #began: number;
  #processed: number;
  #stored: number;
  #acked: number;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Whether an offset is being stored or acknowledged. */
  #busy = false;
  #storing: Promise<void> = Promise.resolve();
  #acking: Promise<void> = Promise.resolve();
  #finished = false;

  /**
   * `at`: the offset at which the server begins. `unit`: only offsets that are multiples of it after
   * `at` are stored, so that a message is never acknowledged in part: bytes, 1 for a stream without
   * messages. A message may begin anywhere, because a gap may have any length.
   */
  constructor(connection: Connection, at: StreamOffset, unit: number, options: AckOptions) {
    this.#connection = connection;
    this.#stream = at.stream;
    this.#unit = unit;
    this.#onStore = options.onStore;
    this.#began =
      this.#processed =
      this.#stored =
      this.#acked =
        at.offset;
    this.missed = at.offset - (streamOffsetOf(options)?.offset ?? at.offset);
    const { promise, reject } = Promise.withResolvers<never>();
    this.failed = promise;
    this.#fail = reject;
    // Without this, a failure that nobody waits for any more would end the process.
    promise.catch(() => {});
  }

  /** All bytes before this offset have been stored. */
  get stored(): StreamOffset {
    return { offset: this.#stored, stream: this.#stream };
  }

  /**
   * Reports that this many more bytes have been processed. When storing is far behind, returns a promise
   * that the reader must wait for.
   */
  processed(bytes: number): void | Promise<void> {
    if (this.#finished) return;
    this.#processed += bytes;
    if (this.#busy) {
      return this.#processed - this.#stored > MAX_UNSTORED ? this.#storing : undefined;
    }
    const unstored = this.#wholeUnits() - this.#stored;
    if (unstored >= ACK_BYTES) this.#begin();
    else if (unstored > 0) this.#timer ??= setTimeout(() => this.#begin(), ACK_MS);
  }

  /**
   * Stores the final offset, and waits up to 1 s for the kernel to take its acknowledgement. Later
   * calls of `processed` do nothing. Rejects when `onStore` does.
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

  #wholeUnits(): number {
    return this.#processed - (this.#processed - this.#began) % this.#unit;
  }

  #begin(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#busy = true;
    this.#storing = this.#store();
    this.#acking = this.#storing.then(() => this.#acknowledge());
    this.#acking.then(() => {
      this.#busy = false;
      void this.processed(0);
    }, this.#fail);
  }

  async #store(): Promise<void> {
    const offset = this.#wholeUnits();
    if (offset <= this.#stored) return;
    await this.#onStore?.(offset, this.#stream);
    this.#stored = offset;
  }

  /** While the server does not take an acknowledgement, later ones are combined into one. */
  async #acknowledge(): Promise<void> {
    if (this.#acked === this.#stored) return;
    this.#acked = this.#stored;
    await send(this.#connection, formatAck(this.#acked));
  }
}
