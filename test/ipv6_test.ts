/** IPv6: loopback, IPv4-mapped and link-local addresses, wherever an address is taken or looked up. */
import { describe, test, type TestContext } from "node:test";
import { execFileSync } from "node:child_process";
import { networkInterfaces } from "node:os";
import process from "node:process";
import { assert, assertEquals, assertMatch } from "#std/assert";
import { addressBytes } from "../src/kernel/address.ts";
import { findDescriptor } from "../src/kernel/descriptor.ts";
import { connectionState, kernelSource } from "../src/kernel/kernel.ts";
import { libc } from "../src/kernel/libc.ts";
import { lookupProc } from "../src/kernel/proc_net.ts";
import type { ConnectionState } from "../src/kernel/socket_state.ts";
import { fillCommand } from "../src/measure/reader_process.ts";
import { loadAdapter } from "../src/net/load.ts";
import type { Connection } from "../src/net/net.ts";
import { formatHostPort } from "../src/text/units.ts";
import { command, LIMIT, parse } from "./limiting.ts";
import { run, start } from "./process.ts";
import { skip } from "./skip.ts";
import { until, within } from "./within.ts";

/** A link-local address of this machine with the name of its interface, and with its number. */
function linkLocal(): { named: string; numbered: string } | undefined {
  for (const [name, addresses = []] of Object.entries(networkInterfaces())) {
    for (const each of addresses) {
      if (each.family !== "IPv6" || !each.address.startsWith("fe80:")) continue;
      const [address] = each.address.split("%");
      return { named: `${address}%${name}`, numbered: `${address}%${each.scopeid}` };
    }
  }
  return undefined;
}

/** Both ends of a connection in this process. */
async function withPair(
  listen: string,
  connect: string,
  use: (near: Connection, far: Connection, listening: string) => Promise<void>,
): Promise<void> {
  const net = await loadAdapter();
  const accepted = Promise.withResolvers<Connection>();
  const listener = await net.listen({ host: listen, port: 0, onConnection: accepted.resolve });
  const near = await within(
    "connect",
    5000,
    net.connect({ host: connect, port: listener.address.port }),
  );
  const far = await within("accept", 5000, accepted.promise);
  try {
    await use(near, far, listener.address.host);
  } finally {
    near.close();
    far.close();
    await listener.close();
  }
}

/** Each way to find a connection must find this one, from both of its ends. */
async function assertFoundByAll(near: Connection, far: Connection): Promise<void> {
  assertEquals(await near.write(new Uint8Array(1000)), 1000);
  const ways: ((...ends: [typeof near.local, typeof near.local]) => ConnectionState)[] = [
    lookupProc,
  ];
  if (kernelSource === "sock_diag") ways.push(connectionState);
  for (const look of ways) {
    await until(`1000 bytes by ${look.name}`, 5000, () => {
      const { near: sender, far: receiver } = look(near.local, near.remote);
      return sender?.sendQueue === 0 && receiver?.receiveQueue === 1000;
    });
    const { near: receiver, far: sender } = look(far.local, far.remote);
    assertEquals([receiver?.receiveQueue, sender?.receiveQueue], [1000, 0], look.name);
  }
  if (typeof libc === "string") return;
  for (const { local, remote, fd } of [near, far]) {
    const found = findDescriptor(local, remote);
    assert(found !== undefined);
    if (fd !== undefined) assertEquals(found, fd);
  }
}

describe("a connection is found from both of its ends", () => {
  const loopback: [listen: string, connect: string][] = [
    ["::1", "::1"],
    ["::", "::1"],
    ["::", "127.0.0.1"],
    ["::", "::ffff:127.0.0.1"],
    ["::ffff:7f00:1", "127.0.0.1"],
  ];
  for (const [listen, connect] of loopback) {
    test(`${connect} to ${listen}`, () => withPair(listen, connect, assertFoundByAll));
  }

  for (const from of ["named", "numbered"] as const) {
    test(`link-local, with its interface ${from}`, async (t) => {
      const address = linkLocal();
      if (address === undefined) return skip(t, "no link-local address here");
      await withPair(address[from], address[from], async (near, far, listening) => {
        const { named } = address;
        assert(listening === named || listening === address[from], listening);
        const hosts = [near.local, near.remote, far.local, far.remote].map(({ host }) => host);
        if (typeof libc !== "string") assertEquals(hosts, [named, named, named, named]);
        await assertFoundByAll(near, far);
      });
    });
  }

  test("link-local, to a server on all interfaces", async (t) => {
    const address = linkLocal();
    if (address === undefined) return skip(t, "no link-local address here");
    await withPair("::", address.named, async (near, far) => {
      if (typeof libc !== "string") assertEquals(far.remote.host, address.named);
      await assertFoundByAll(near, far);
    });
  });
});

test("binary addresses", () => {
  const hex = (host: string) => {
    const found = addressBytes(host);
    return found === undefined
      ? undefined
      : `${found.family}:${[...found.bytes].map((b) => b.toString(16).padStart(2, "0")).join("")}`;
  };
  const v4 = `2:7f000001${"0".repeat(24)}`;
  for (
    const host of ["127.0.0.1", "::ffff:127.0.0.1", "::FFFF:7f00:1", "0:0:0:0:0:ffff:7f00:0001"]
  ) {
    assertEquals(hex(host), v4, host);
  }
  assertEquals(hex("::1"), `10:${"0".repeat(31)}1`);
  assertEquals(hex("64:ff9b::1.2.3.4"), "10:0064ff9b000000000000000001020304");
  assertEquals(hex("fe80::1%eth0"), hex("fe80::1"));
  assertEquals(hex("localhost"), undefined);
});

test("{host} and {port} in a reader's command", () => {
  const words = ["{host}", "{port}", "{host}:{port}", "tcp://{host}:{port}/{host}"];
  assertEquals(fillCommand(words, { host: "::1", port: 80 }), [
    "::1",
    "80",
    "[::1]:80",
    "tcp://[::1]:80/::1",
  ]);
  assertEquals(fillCommand(words, { host: "10.0.0.1", port: 80 })[2], "10.0.0.1:80");
});

/** Where programs run that need a link-local address: here, or in a namespace that has one. */
async function withLinkLocal(
  t: TestContext,
  use: (host: string, under: string[]) => Promise<void>,
): Promise<void> {
  const here = process.env.SPEEDLIMIT_TEST_NAMESPACE === undefined ? linkLocal() : undefined;
  if (here !== undefined) return await use(here.named, []);
  const name = `slv6-${process.pid}`;
  const ip = (line: string) => execFileSync("ip", line.split(" "), { stdio: "pipe" });
  try {
    ip(`netns add ${name}`);
  } catch (error) {
    return skip(t, (error as Error).message.split("\n")[0]!);
  }
  try {
    ip(`-n ${name} link set lo up`);
    ip(`-n ${name} link add v0 type veth peer name v1`);
    ip(`-n ${name} link set v0 up`);
    ip(`-n ${name} link set v1 up`);
    ip(`-n ${name} -6 addr add fe80::77/64 dev v0 nodad`);
    await use("fe80::77%v0", ["ip", "netns", "exec", name]);
  } finally {
    ip(`netns del ${name}`);
  }
}

describe("the programs", () => {
  const places: [
    string,
    (t: TestContext, use: (host: string, under: string[]) => Promise<void>) => Promise<void>,
  ][] = [
    ["::1", (_t, use) => use("::1", [])],
    ["a link-local address", withLinkLocal],
  ];
  for (const [place, at] of places) {
    test(`limit measures a reader on ${place}`, async (t) => {
      await at(t, async (host, under) => {
        const listen = formatHostPort({ host, port: 0 });
        const args = [LIMIT, "--json", "--listen", listen, "--max-rate", "100kB/s", "--"];
        const ran = await run([...args, ...command("client.ts", "{host}:{port}")], { under });
        const { outcome, queueSource } = parse(ran);
        assertEquals(
          [outcome, queueSource, ran.status],
          ["generator-limited", "socket", 0],
          ran.stderr,
        );
      });
    });

    test(`limit measures our own client on ${place}`, async (t) => {
      await at(t, async (host, under) => {
        const listen = formatHostPort({ host, port: 0 });
        const ran = await run([LIMIT, "--json", "--listen", listen, "--max-rate", "100kB/s"], {
          under,
        });
        assertEquals(ran.status, 0, ran.stderr);
        const { results } = JSON.parse(ran.stdout);
        assertEquals(results.map(({ outcome }: { outcome: string }) => outcome), [
          "generator-limited",
          "generator-limited",
        ]);
      });
    });

    test(`limit --attach and client on ${place}`, async (t) => {
      await at(t, async (host, under) => {
        const listen = formatHostPort({ host, port: 0 });
        const args = [LIMIT, "--json", "--attach", "--listen", listen, "--max-rate", "100kB/s"];
        const program = start(args, { under });
        try {
          const [, server] = await within(
            "listening",
            10_000,
            program.saw(/waiting for readers on (\S+)/),
          );
          assert(server!.startsWith(`[${host}]:`), server);
          const reader = start(["client.ts", server!], { under });
          const ran = await within("the outcome", 30_000, program.ended);
          const { outcome, queueSource } = parse(ran);
          assertEquals([outcome, queueSource], ["generator-limited", "socket"], ran.stderr);
          await within("the reader's end", 10_000, reader.ended);
        } finally {
          program.kill("SIGKILL");
        }
      });
    });

    test(`server and client on ${place}`, async (t) => {
      await at(t, async (host, under) => {
        const options = ["--port", "0", "--rate", "1000/s", "--message", "numbered"];
        const program = start(["server.ts", "--host", host, ...options], { under });
        try {
          const [, server] = await within("listening", 10_000, program.saw(/listening on (\S+) /));
          assert(server!.startsWith(`[${host}]:`), server);
          const ran = await run(["client.ts", server!, "--verify", "--count", "10k"], { under });
          assertMatch(ran.stdout, /all \d+ messages arrived in order/, ran.stderr);
          assertEquals(ran.status, 0);
          const source = ["--source", `tcp://${server}`, "--frame", "fixed:64"];
          const feed = start(["server.ts", "--port", "0", ...source], { under });
          try {
            const [, next] = await within("feeding", 10_000, feed.saw(/listening on (\S+) /));
            const reader = start(["client.ts", next!, "--count", "10k"], { under });
            assertMatch((await within("its end", 20_000, reader.ended)).stdout, /ended by count/);
          } finally {
            feed.kill("SIGKILL");
          }
        } finally {
          program.kill("SIGKILL");
        }
      });
    });
  }
});
