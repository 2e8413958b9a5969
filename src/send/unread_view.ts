/** How much a reader has not read yet of what it was sent. */
import { ConnectionLookup } from "../kernel/kernel.ts";
import type { Connection } from "../net/net.ts";

/** What is not read of what was sent to a reader. */
export interface UnreadView {
  /** Bytes; 0 once the connection has ended. */
  unread(): number;
  /** The kernel took so many bytes more for the reader. */
  took(bytes: number): void;
  /**
   * The reader itself tells what it has read, by acknowledgements of whole messages. So what it is sent at once
   * must end with a message, and looking more often than at each tick is of no use.
   */
  readonly byAcknowledgement: boolean;
}

const lookupOf = (connection: Connection) =>
  new ConnectionLookup(connection.local, connection.remote, () => connection.fd);

/** Whether the reader's socket is on this host, and can be seen. */
export const seesReader = (connection: Connection): boolean =>
  lookupOf(connection).readByFar() !== undefined;

/** From what the reader's program has read, as the kernel tells. */
export class ReadView implements UnreadView {
  readonly byAcknowledgement = false;
  /** Bytes that were written to the connection. */
  #sent: number;
  readonly #lookup: ConnectionLookup;

  /** `written`: bytes that were written on the connection before. */
  constructor(connection: Connection, written: number) {
    this.#sent = written;
    this.#lookup = lookupOf(connection);
  }

  took(bytes: number): void {
    this.#sent += bytes;
  }

  unread(): number {
    // The kernel reads the queue before what has arrived: it misses what arrives between the two. Nothing
    // does before the second look, because nothing is sent meanwhile.
    const unread = this.#look();
    return unread > 0 ? unread : this.#look();
  }

  #look(): number {
    const far = this.#lookup.readByFar();
    return far === undefined ? 0 : Math.max(0, this.#sent - far.read);
  }
}

/** From what the reader has acknowledged to the server: also of a reader on another host. */
export class AckView implements UnreadView {
  readonly byAcknowledgement = true;
  readonly #cursor: { readonly sent: number; readonly delivered: number };

  /** `sent` and `delivered`: offsets of the stream. */
  constructor(cursor: { readonly sent: number; readonly delivered: number }) {
    this.#cursor = cursor;
  }

  took(): void {}

  unread(): number {
    return Math.max(0, this.#cursor.sent - this.#cursor.delivered);
  }
}
