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
}

/**
 * On this host, from the reader's receive queue; on another host, from the acknowledgements of the reader,
 * else from its window.
 */
export class KernelUnreadView implements UnreadView {
  /** Bytes that were written to the connection. */
  #sent: number;
  readonly #connection: Connection;
  readonly #lookup: ConnectionLookup;
  readonly #unacknowledged: (() => number) | undefined;
  #widest = 0;

  /**
   * `written`: bytes that were written on the connection before. `unacknowledged`: what the reader itself has
   * not acknowledged, if it does; bytes.
   */
  constructor(connection: Connection, written = 0, unacknowledged?: () => number) {
    this.#sent = written;
    this.#connection = connection;
    this.#lookup = new ConnectionLookup(
      connection.local,
      connection.remote,
      () => connection.fd,
    );
    this.#unacknowledged = unacknowledged;
  }

  took(bytes: number): void {
    this.#sent += bytes;
  }

  #unreadFar(): number | undefined {
    const far = this.#lookup.readByFar();
    return far === undefined ? undefined : Math.max(0, this.#sent - far.read);
  }

  unread(): number {
    const unread = this.#unreadFar();
    // The kernel reads the queue before what has arrived: it misses what arrives between the two. Nothing
    // does before the second look, because nothing is sent meanwhile.
    if (unread !== undefined) return unread > 0 ? unread : this.#unreadFar() ?? 0;
    if (this.#unacknowledged !== undefined) return this.#unacknowledged();
    const { fd } = this.#connection;
    const info = fd === undefined ? undefined : tcpInfo(fd);
    if (info?.sendWindow === undefined) return 0;
    // What its kernel has not acknowledged, and by how much its window has shrunk.
    this.#widest = Math.max(this.#widest, info.sendWindow);
    const slack = Math.min(0.75 * this.#widest, WINDOW_SLACK);
    const queued = Math.max(0, this.#widest - info.sendWindow - slack);
    return Math.max(0, this.#sent - info.bytesAcked) + queued;
  }
}
