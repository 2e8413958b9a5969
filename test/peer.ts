/** Servers within a test's own process, for the programs and functions that connect to them. */
import type { Address } from "../src/kernel/address.ts";
import type { Connection } from "../src/net/net.ts";
import { loadAdapter } from "../src/net/load.ts";

const net = await loadAdapter();

/** What these servers send, again and again: 4 MiB whose period, a prime, fits no buffer size. */
export const PATTERN = Uint8Array.from({ length: 4 << 20 }, (_, i) => (i % 65_521) * 31 >> 3);

/** A server on a free port whose every connection goes to `serve`; ends with all of them. */
export async function withServer<T>(
  serve: (connection: Connection) => unknown,
  use: (address: Address) => Promise<T>,
  host = "127.0.0.1",
): Promise<T> {
  const connections: Connection[] = [];
  const onConnection = (connection: Connection) => {
    connections.push(connection);
    serve(connection);
  };
  const listener = await net.listen({ host, port: 0, onConnection });
  try {
    return await use({ host, port: listener.address.port });
  } finally {
    for (const connection of connections) connection.close();
    await listener.close();
  }
}

/** Sends all of it, unless the connection ends. */
export async function send(connection: Connection, bytes: Uint8Array): Promise<void> {
  while (bytes.length > 0) {
    const taken = await connection.write(bytes);
    if (taken === 0) return;
    bytes = bytes.subarray(taken);
  }
}

/** Sends so much of the pattern, and FIN. */
export async function sendAndFinish(connection: Connection, length: number): Promise<void> {
  await send(connection, PATTERN.subarray(0, length));
  await connection.closeWrite();
}

/** Sends until the connection ends. */
export async function flood(connection: Connection): Promise<void> {
  while (await connection.write(PATTERN) > 0);
}

/** Everything that comes until the end. */
export async function readAll(connection: Connection): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for (let chunk; (chunk = await connection.read(65_536)) !== null;) parts.push(chunk.slice());
  return new Uint8Array(await new Blob(parts as BlobPart[]).arrayBuffer());
}
