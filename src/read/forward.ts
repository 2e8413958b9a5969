/** Sends what was read on to a second server: the "=> Network" of the article's reader. */
import { discardReplies } from "../net/linger.ts";
import { type Connection, NetError } from "../net/net.ts";
import { formatHostPort } from "../text/units.ts";

/** The longest wait for that server to close after our FIN. */
const CLOSE_MS = 1000;

/** Sends whole chunks over a connection, and discards the replies. */
export class Forward {
  /** Bytes that our kernel has taken. */
  bytes = 0;
  readonly #connection: Connection;
  readonly #discarding: Promise<void>;

  constructor(connection: Connection) {
    this.#connection = connection;
    // Unread replies would fill the server's send buffer and could stop it.
    this.#discarding = discardReplies(connection);
  }

  /** Settles when our kernel has taken all bytes. Rejects with a NetError when the connection ended. */
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

  /**
   * Sends FIN and waits up to 1 s for the server to close. Closing at once could answer its replies with
   * RST, which would discard bytes that it has not read.
   */
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
