/** Start and end of a peer in TypeScript, the same as in the C peers. */
import { loadAdapter } from "../../src/net/load.ts";
import type { Closed, Connection } from "../../src/net/net.ts";
import { printLine } from "../../src/cli/program.ts";

/** Listens on 127.0.0.1, prints "listening PORT", accepts one connection and stops listening. */
export async function acceptOne(): Promise<Connection> {
  const net = await loadAdapter();
  const accepted = Promise.withResolvers<Connection>();
  const listener = await net.listen({
    host: "127.0.0.1",
    port: 0,
    onConnection: accepted.resolve,
  });
  printLine(`listening ${listener.address.port}`);
  const connection = await accepted.promise;
  await listener.close();
  return connection;
}

/** Throws an Error unless the connection ended because one side closed it. */
export function checkEnd({ reason, errno }: Closed): void {
  if (reason !== "reset" && reason !== "error") return;
  throw new Error(`the connection ended with ${reason} (${errno})`);
}
