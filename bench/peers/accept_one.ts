/** How a peer written in TypeScript begins and ends, like those in C. */
import type { Closed, Connection } from "../../src/net/net.ts";
import { loadAdapter } from "../../src/net/load.ts";
import { print } from "../../src/cli/program.ts";

/** Listens on 127.0.0.1, prints "listening PORT", and gives the first connection: no other comes. */
export async function acceptOne(): Promise<Connection> {
  const net = await loadAdapter();
  const accepted = Promise.withResolvers<Connection>();
  const listener = await net.listen({
    host: "127.0.0.1",
    port: 0,
    onConnection: accepted.resolve,
  });
  print(`listening ${listener.address.port}`);
  const connection = await accepted.promise;
  await listener.close();
  return connection;
}

/** Throws an Error when the connection did not end by one side closing it. */
export function checkEnd({ reason, errno }: Closed): void {
  if (reason !== "reset" && reason !== "error") return;
  throw new Error(`the connection ended by ${reason} (${errno})`);
}
