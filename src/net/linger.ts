/** Closes a connection without losing what the peer has not read yet. */
import { type Connection, DEFAULT_READ_SIZE } from "./net.ts";

/** The longest wait for a peer that never closes its own side. */
const LINGER_MS = 30_000;
/** The same when the server itself is told to end. */
const HANG_UP_MS = 1000;

/**
 * Sends FIN, then reads and discards replies until the peer's FIN, for at most 30 s. Closing with
 * unread replies would send RST, and the peer would lose what it has not read by then (as in RFC
 * 9112, 9.6). `replies`: settles when the peer has sent its last reply, if the caller already reads
 * them. After a normal end the caller must still close the connection.
 */
export async function linger(connection: Connection, replies?: Promise<void>): Promise<void> {
  await connection.closeWrite();
  const timer = setTimeout(() => connection.close(), LINGER_MS);
  await (replies ?? discardReplies(connection));
  clearTimeout(timer);
}

/** Closes a connection that is about to end in order, if it has not ended within 1 s. */
export function closeSoon(connection: Connection): void {
  const timer = setTimeout(() => connection.close(), HANG_UP_MS);
  void connection.closed.then(() => clearTimeout(timer));
}

/** Reads and discards replies until the peer's FIN. `reading`: a read that has already begun. */
export async function discardReplies(
  connection: Connection,
  reading?: Promise<Uint8Array | null>,
): Promise<void> {
  if (reading !== undefined && await reading === null) return;
  await readReplies(connection, () => {});
}

/** Calls `take` with each chunk, which is valid during the call, until the peer's FIN. */
export async function readReplies(
  connection: Connection,
  take: (chunk: Uint8Array) => void,
): Promise<void> {
  while (true) {
    const reading = connection.read(DEFAULT_READ_SIZE);
    const chunk = reading instanceof Promise ? await reading : reading;
    if (chunk === null) return;
    take(chunk);
  }
}
