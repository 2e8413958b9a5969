/** Keepalive of every connection: what the kernel has, asked by descriptor and through `ss`. */
import { execFileSync } from "node:child_process";
import { describe, test } from "node:test";
import { assertEquals } from "#std/assert";
import { KEEPALIVE, keepAliveOf } from "../src/kernel/keepalive.ts";
import { libc } from "../src/kernel/libc.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { loadAdapter } from "../src/net/load.ts";
import type { Connection } from "../src/net/net.ts";
import { withServer } from "./peer.ts";
import { start } from "./process.ts";
import { serving } from "./serving.ts";
import { skip } from "./skip.ts";
import { until, within } from "./within.ts";

const adapters = runtime === "node" ? ["node"] as const : [runtime, "node"] as const;

for (const name of adapters) {
  test(`both ends of a connection of adapter ${name} on ${runtime}`, async (t) => {
    if (typeof libc === "string") return skip(t, libc);
    const net = await loadAdapter(name);
    const accepted = Promise.withResolvers<Connection>();
    const onConnection = accepted.resolve;
    const listener = await net.listen({ host: "127.0.0.1", port: 0, onConnection });
    const client = await within("connect", 2000, net.connect(listener.address));
    const server = await within("accept", 2000, accepted.promise);
    assertEquals(keepAliveOf(server.fd!), { ...KEEPALIVE });
    assertEquals(keepAliveOf(client.fd!), { ...KEEPALIVE });
    client.close();
    server.close();
    await within("the end", 2000, listener.close());
  });
}

/** The timers of the established connections with that local or remote port, as `ss` shows them. */
function timers(side: "sport" | "dport", port: number): string[] {
  const lines = execFileSync("ss", ["-tnoHO", "state", "established", `${side} = :${port}`], {
    encoding: "utf8",
  });
  return lines.split("\n").filter((line) => line !== "")
    .map((line) => /timer:\((\w+),/.exec(line)?.[1] ?? "none");
}

describe(`connections of the programs on ${runtime}`, () => {
  test("a server's reader, its tcp source, and the client", async (t) => {
    try {
      timers("sport", 1);
    } catch (error) {
      return skip(t, `no ss: ${(error as Error).message.split("\n")[0]}`);
    }
    await withServer(() => {}, async (feed) => {
      const args = ["--source", `tcp://127.0.0.1:${feed.port}`];
      await serving(args, async (_, port) => {
        const client = start(["client.ts", `127.0.0.1:${port}`]);
        try {
          await within("the client", 10_000, client.saw(/connected to/));
          const seen = () => [
            timers("sport", port),
            timers("dport", port),
            timers("dport", feed.port),
          ];
          const expected = [["keepalive"], ["keepalive"], ["keepalive"]];
          await until("keepalive at each end", 5000, () => String(seen()) === String(expected));
          assertEquals(seen(), expected);
        } finally {
          client.kill("SIGKILL");
          await within("its end", 5000, client.ended);
        }
      });
    });
  });
});
