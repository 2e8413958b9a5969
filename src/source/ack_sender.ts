/** Acknowledges to an upstream server what is safe. */
import { formatAck } from "../message/protocol.ts";
import type { Connection } from "../net/net.ts";

/** Shortest time between two acknowledgements; later positions replace earlier ones meanwhile. */
const ACK_EVERY_MS = 10;

/** Sends the acknowledgements of one connection. */
export class AckSender {
  readonly #connection: Connection;
  /** Offset of the next byte to be received: the server rejects acknowledgements above it. */
  #received: number;
  #safe = 0;
  #sent: number;
  #sending = false;
  #closed = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** `offset`: where the server resumes. */
  constructor(connection: Connection, offset: number) {
    this.#connection = connection;
    this.#received = this.#sent = offset;
  }

  /** To be called for all bytes of the stream that were received. */
  received(bytes: number): void {
    this.#received += bytes;
    this.#sendIfDue();
  }

  acknowledge(position: number): void {
    this.#safe = position;
    this.#sendIfDue();
  }

  /** Sends no more acknowledgements. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  #sendIfDue(): void {
    if (this.#sending || this.#closed) return;
    const position = Math.min(this.#safe, this.#received);
    if (position > this.#sent) void this.#send(position);
  }

  async #send(position: number): Promise<void> {
    this.#sending = true;
    this.#sent = position;
    let bytes = new TextEncoder().encode(formatAck(position));
    while (bytes.length > 0) {
      const taken = await this.#connection.write(bytes);
      if (taken === 0 || this.#closed) return;
      bytes = bytes.subarray(taken);
    }
    this.#timer = setTimeout(() => {
      this.#sending = false;
      this.#sendIfDue();
    }, ACK_EVERY_MS);
  }
}
