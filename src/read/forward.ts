/** The article's "=> Network": a second server, which gets what was read. */
import { discardReplies } from "../net/linger.ts";
import { type Connection, NetError } from "../net/net.ts";
import { formatHostPort } from "../text/units.ts";

/** How long the server may take to close after our FIN. */
const CLOSE_MS = 1000;

/** Sends whole chunks over a connection, and ignores what comes back. */
export class Forward {
  /** What its kernel took. */
  bytes = 0;
  readonly #connection: Connection;
  readonly #discarding: Promise<void>;

  constructor(connection: Connection) {
    this.#connection = connection;
    // Replies nobody asked for must not fill that server's send buffer and stop it.
    this.#discarding = discardReplies(connection);
  }

  /** Settles when the kernel has all of it; rejects with a NetError when the connection has ended. */
  async send(bytes: Uint8Array): Promise<void> {
    while (bytes.length > 0) {
      const taken = await this.#connection.write(bytes);
      if (taken === 0) {
        const { errno = "ECONNRESET" } = await this.#connection.closed;
        throw new NetError(`cannot forward to ${formatHostPort(this.#connection.remote)}`, errno);
      }
      this.bytes += taken;
      bytes = bytes.subarray(taken);
    }
  }

  /** Sends FIN, and gives the server a moment to close, so that no reply of its resets the rest. */
  async finish(): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise((resolve) => timer = setTimeout(resolve, CLOSE_MS));
    const done = this.#connection.closeWrite().then(() => this.#discarding);
    await Promise.race([done, late]);
    clearTimeout(timer);
  }

  close(): void {
    this.#connection.close();
  }
}
