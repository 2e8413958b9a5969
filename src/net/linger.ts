/** A close that loses nothing. */
import { type Connection, DEFAULT_READ_SIZE } from "./net.ts";

/** A peer that reads on but never closes its own side is not waited for longer. */
const LINGER_MS = 30_000;

/**
 * FIN, then replies away until the peer's own FIN: a close with replies unread would send RST, and
 * what the peer has not read by then would be lost (as in RFC 9112, 9.6). `replies` settles when
 * the peer has sent its last; without it, they are read here.
 */
export async function linger(connection: Connection, replies?: Promise<void>): Promise<void> {
  await connection.closeWrite();
  const timer = setTimeout(() => connection.close(), LINGER_MS);
  await (replies ?? discardReplies(connection));
  clearTimeout(timer);
}

/** Reads replies and forgets them, until the peer has sent its last; `reading` is under way already. */
export async function discardReplies(
  connection: Connection,
  reading?: Promise<Uint8Array | null>,
): Promise<void> {
  if (reading !== undefined && await reading === null) return;
  while (true) {
    const chunk = connection.read(DEFAULT_READ_SIZE);
    if ((chunk instanceof Promise ? await chunk : chunk) === null) return;
  }
}
