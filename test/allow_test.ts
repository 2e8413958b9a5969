/** Which readers a server accepts by their address: `--allow`, and the warning without it. */
import { describe, test } from "node:test";
import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "#std/assert";
import { isLoopback } from "../src/kernel/address.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { AllowList } from "../src/net/allow_list.ts";
import { loadAdapter } from "../src/net/load.ts";
import { serve } from "../src/relay/serve.ts";
import type { ServeOptions } from "../src/relay/serve_options.ts";
import type { ServeEvent } from "../src/relay/serve_event.ts";
import { UnitError } from "../src/text/units.ts";
import { json, serving } from "./serving.ts";
import { until, within } from "./within.ts";

const net = await loadAdapter();

describe(`a list of addresses on ${runtime}`, () => {
  const rows: [ranges: string[], inside: string[], outside: string[]][] = [
    [["10.0.0.0/8"], ["10.0.0.0", "10.255.255.255"], ["9.255.255.255", "11.0.0.0", "::a00:1"]],
    [["10.1.2.3/8"], ["10.200.0.1"], ["11.0.0.1"]],
    [["192.168.1.7"], ["192.168.1.7"], ["192.168.1.6", "192.168.1.8"]],
    [["192.168.1.6/31"], ["192.168.1.6", "192.168.1.7"], ["192.168.1.5", "192.168.1.8"]],
    [["0.0.0.0/0"], ["1.2.3.4", "255.255.255.255"], ["::1", "fd00::1"]],
    [["::/0"], ["::1", "fd00::1"], ["1.2.3.4"]],
    [["fd00::/8", "10.0.0.0/8"], ["fd12:3456::1", "FD00::1", "10.0.0.1"], ["fe00::1", "fc00::1"]],
    [["2001:db8::/33"], ["2001:db8:7fff::1"], ["2001:db8:8000::1"]],
    [["2001:db8::1"], ["2001:db8:0:0::1"], ["2001:db8::2"]],
    // A listener on :: sees IPv4 peers so.
    [["10.0.0.0/8"], ["::ffff:10.1.2.3", "::FFFF:10.1.2.3"], ["::ffff:11.0.0.1"]],
    [["::ffff:10.0.0.1"], ["10.0.0.1", "::ffff:10.0.0.1"], ["10.0.0.2"]],
    [["fe80::/10"], ["fe80::1%eth0", "fe80::1%4"], ["fd00::1%eth0"]],
    [["10.0.0.0/8"], [], ["", "localhost", "10.0.0"]],
  ];
  for (const [ranges, inside, outside] of rows) {
    test(`${ranges}: ${inside}; not ${outside}`, () => {
      const list = new AllowList(ranges);
      assertEquals(inside.filter((host) => !list.allows(host)), []);
      assertEquals(outside.filter((host) => list.allows(host)), []);
    });
  }

  test("what is no address or range", () => {
    for (const range of ["", "10.0.0.0/33", "fd00::/129", "10.0.0.0/", "host", "1.2.3.4/8/8"]) {
      assertThrows(() => new AllowList([range]), UnitError, "must be addresses or ranges");
    }
  });

  test("addresses of this machine alone", () => {
    const own = ["127.0.0.1", "127.9.9.9", "::1", "0:0::1", "::ffff:127.0.0.1", "localhost"];
    assertEquals(own.filter((host) => !isLoopback(host)), []);
    const others = ["0.0.0.0", "::", "10.0.0.1", "fe80::1%lo", "::ffff:10.0.0.1", "::2", "a.name"];
    assertEquals(others.filter(isLoopback), []);
  });
});

/** What becomes of one connection to a server with these options. */
async function tryOne(options: Partial<ServeOptions>, host: string): Promise<ServeEvent[]> {
  const events: ServeEvent[] = [];
  const server = await serve({ port: 0, ...options, onEvent: (event) => events.push(event) });
  try {
    const { port } = server.address;
    const reader = await within("connect", 5000, net.connect({ host, port }));
    const names = ["reader", "refused"];
    await until("the verdict", 5000, () => events.some(({ event }) => names.includes(event)));
    const [refused] = events.filter(({ event }) => event === "refused");
    if (refused !== undefined) assertEquals(await within("its end", 5000, reader.read(100)), null);
    reader.close();
    return events.filter(({ event }) => names.includes(event));
  } finally {
    await within("the server's end", 5000, server.stop());
  }
}

describe(`a server with allow on ${runtime}`, () => {
  test("serves one that is on the list, and closes others with an event", async () => {
    const [reader] = await tryOne({ allow: ["10.0.0.0/8", "127.0.0.0/8"] }, "127.0.0.1");
    assertEquals(reader!.event, "reader");
    const [refused] = await tryOne({ allow: ["10.0.0.0/8", "127.0.0.2"] }, "127.0.0.1");
    assert(refused?.event === "refused");
    assertEquals([refused.why, refused.host, refused.readers], ["allow", "127.0.0.1", 0]);
  });

  test("knows an IPv4 reader of a listener on ::", async () => {
    const [reader] = await tryOne({ host: "::", allow: ["127.0.0.1"] }, "127.0.0.1");
    assertEquals(reader!.event, "reader");
    const [other] = await tryOne({ host: "::", allow: ["::1"] }, "127.0.0.1");
    assertEquals(other!.event, "refused");
    const [six] = await tryOne({ host: "::", allow: ["::1"] }, "::1");
    assertEquals(six!.event, "reader");
  });

  test("rejects a list with something else", async () => {
    await assertRejects(
      () => serve({ port: 0, allow: ["everybody"] }),
      RangeError,
      "allow must be addresses or ranges",
    );
  });
});

describe(`the warning of the program on ${runtime}`, () => {
  const WARNING = /^warning: whoever can reach 0\.0\.0\.0:\d+ receives the messages; --allow CIDR /;
  const rows: [args: string[], warns: boolean][] = [
    [["--host", "0.0.0.0"], true],
    [["--host", "0.0.0.0", "--allow", "127.0.0.0/8,::1"], false],
    [["--host", "127.0.0.1"], false],
    [["--host", "localhost"], false],
  ];
  for (const [args, warns] of rows) {
    test(`${args.join(" ")}: ${warns ? "one line" : "none"}`, async () => {
      await serving([...json, ...args], async (program) => {
        program.kill("SIGTERM");
        const { stderr } = await within("its end", 5000, program.ended);
        if (warns) assertMatch(stderr, WARNING);
        assertEquals(stderr.split("\n").length, warns ? 2 : 1);
      });
    });
  }

  test("a reader that is not allowed, as people are told", async () => {
    await serving(["--allow", "10.0.0.0/8"], async (program, port) => {
      const reader = await within("connect", 5000, net.connect({ host: "127.0.0.1", port }));
      const says = /^rejected 127\.0\.0\.1:\d+: its address is not one of --allow$/m;
      await within("the line", 5000, program.saw(says));
      reader.close();
    });
  });
});
