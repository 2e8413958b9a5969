/** How much a reader has not read yet of what it was sent. */
import { ConnectionLookup } from "../kernel/kernel.ts";
import { tcpInfo } from "../kernel/tcp_info.ts";
import type { Connection } from "../net/net.ts";

/** A window changes by so much although everything was read; see meter.ts. Bytes. */
const WINDOW_SLACK = 128 << 10;

/** What is not read of what was sent to a reader. */
export interface UnreadView {
  /** Bytes; 0 also where nothing can be known: then nothing is held back. */
  unread(): number;
  /** The kernel took so many bytes more for the reader. */
  took(bytes: number): void;
  /** What is unread now will stay so: it does not count any more. Absent where what is unread is known. */
  assumeRead?(): void;
}

const lookupOf = (connection: Connection) =>
  new ConnectionLookup(connection.local, connection.remote, () => connection.fd);

/** Whether the reader's socket is on this host, and can be seen. */
export const seesFar = (connection: Connection): boolean =>
  lookupOf(connection).readByFar() !== undefined;

/** On this host, from what the reader's program has read; else from the acknowledgements of the reader. */
export class ReadView implements UnreadView {
  /** Bytes that were written to the connection. */
  #sent: number;
  readonly #lookup: ConnectionLookup;
  readonly #unacknowledged: () => number;

  /**
   * `written`: bytes that were written on the connection before. `unacknowledged`: what the reader itself has
   * not acknowledged, if it does; bytes.
   */
  constructor(connection: Connection, written: number, unacknowledged: () => number = () => 0) {
    this.#sent = written;
    this.#lookup = lookupOf(connection);
    this.#unacknowledged = unacknowledged;
  }

  took(bytes: number): void {
    this.#sent += bytes;
  }

  unread(): number {
    const unread = this.#look();
    // The kernel reads the queue before what has arrived: it misses what arrives between the two. Nothing
    // does before the second look, because nothing is sent meanwhile.
    if (unread !== undefined) return unread > 0 ? unread : this.#look() ?? 0;
    return this.#unacknowledged();
  }

  #look(): number | undefined {
    const far = this.#lookup.readByFar();
    return far === undefined ? undefined : Math.max(0, this.#sent - far.read);
  }
}

/** On another host: what its kernel has not acknowledged, and by how much its window has shrunk. */
export class WindowView implements UnreadView {
  #sent: number;
  #widest = 0;
  #window = 0;
  readonly #connection: Connection;

  constructor(connection: Connection, written: number) {
    this.#connection = connection;
    this.#sent = written;
  }

  took(bytes: number): void {
    this.#sent += bytes;
  }

  /** So much may be unread without showing; bytes. */
  get hides(): number {
    return Math.min(0.75 * this.#widest, WINDOW_SLACK);
  }

  /** The present window counts as open from now on. */
  assumeRead(): void {
    this.#widest = this.#window;
  }

  unread(): number {
    const { fd } = this.#connection;
    const info = fd === undefined ? undefined : tcpInfo(fd);
    if (info?.sendWindow === undefined) return 0;
    this.#window = info.sendWindow;
    this.#widest = Math.max(this.#widest, info.sendWindow);
    const queued = Math.max(0, this.#widest - info.sendWindow - this.hides);
    return Math.max(0, this.#sent - info.bytesAcked) + queued;
  }
}
