/** What the kernel tells, against what was really sent and read. */
import { describe, test } from "node:test";
import net from "node:net";
import { execFileSync } from "node:child_process";
import { assert, assertEquals, assertGreater } from "#std/assert";
import { abort, bufferSize, hasUnread, setBufferSize } from "../src/kernel/socket_calls.ts";
import { findDescriptor } from "../src/kernel/descriptor.ts";
import {
  ConnectionLookup,
  connectionState,
  kernelSource,
  kernelSourceReason,
} from "../src/kernel/kernel.ts";
import { type Libc, libc } from "../src/kernel/libc.ts";
import { openSockDiag, SockDiag } from "../src/kernel/sock_diag.ts";
import { decodeTcpInfo, tcpInfo } from "../src/kernel/tcp_info.ts";
import type { Connection } from "../src/net/net.ts";
import { loadAdapter } from "../src/net/load.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { skip } from "./skip.ts";
import { until, within } from "./within.ts";

async function openPair(
  host = "127.0.0.1",
): Promise<{ ours: Connection; theirs: net.Socket; end(): Promise<void> }> {
  const adapter = await loadAdapter();
  const accepted = Promise.withResolvers<Connection>();
  const listener = await adapter.listen({ host, port: 0, onConnection: accepted.resolve });
  // Paused from the start, so that nothing is read of what is sent to it.
  const theirs = net.connect({ host, port: listener.address.port });
  theirs.pause();
  theirs.on("error", () => {});
  const ours = await within("accept", 2000, accepted.promise);
  return {
    ours,
    theirs,
    async end() {
      theirs.destroy();
      ours.close();
      await within("closed", 2000, ours.closed);
      await listener.close();
    },
  };
}

describe(`kernel on ${runtime}`, () => {
  test("figures come from somewhere, or a reason is given", () => {
    console.log(
      `  source: ${kernelSource}${
        kernelSourceReason === undefined ? "" : `, ${kernelSourceReason}`
      }`,
    );
    if (kernelSource !== "sock_diag") assert(kernelSourceReason !== undefined);
  });

  for (const host of ["127.0.0.1", "::1"]) {
    test(`queues of both ends are exact, ${host}`, async (t) => {
      if (kernelSource === "none") return skip(t, `no kernel figures: ${kernelSourceReason}`);
      const { ours, theirs, end } = await openPair(host);
      assertEquals(await ours.write(new Uint8Array(1000)), 1000);
      await until("1000 bytes arrive", 2000, () => {
        const { near, far } = connectionState(ours.local, ours.remote);
        // node:net reads a first piece ahead, pause or no pause, on some runtimes.
        return near?.sendQueue === 0 && (far?.receiveQueue === 1000 || theirs.bytesRead === 1000);
      });
      theirs.write(new Uint8Array(77));
      await until(
        "77 bytes come back",
        2000,
        () => connectionState(ours.local, ours.remote).near?.receiveQueue === 77,
      );
      const { near, far } = connectionState(ours.local, ours.remote);
      if (kernelSource === "sock_diag") {
        assertEquals(near!.info!.bytesAcked, 1000);
        assertEquals(near!.info!.bytesReceived, 77);
        assertEquals(far!.info!.bytesReceived, 1000);
        assertEquals(far!.info!.bytesAcked, 78, "77 and the SYN of the end that connected");
      }
      await end();
    });
  }

  test("an end that is not there is absent, not 0", async (t) => {
    if (kernelSource === "none") return skip(t, `no kernel figures: ${kernelSourceReason}`);
    const { ours, end } = await openPair();
    const { near, far } = connectionState(ours.local, { ...ours.remote, port: 1 });
    assertEquals([near, far], [undefined, undefined]);
    assertEquals(connectionState({ host: "a.name", port: 1 }, ours.remote).near, undefined);
    await end();
  });

  test("TCP_INFO by descriptor agrees with the look-up by address", async (t) => {
    const { ours, end } = await openPair();
    if (kernelSource !== "sock_diag" || ours.fd === undefined) {
      await end();
      return skip(t, `no descriptor or no FFI here: ${kernelSourceReason}`);
    }
    await ours.write(new Uint8Array(5000));
    await until("acknowledged", 2000, () => tcpInfo(ours.fd!)?.bytesAcked === 5000);
    const { near } = connectionState(ours.local, ours.remote);
    assertEquals(tcpInfo(ours.fd)!.bytesAcked, near!.info!.bytesAcked);
    assertGreater(tcpInfo(ours.fd)!.sendWindow!, 0);
    await end();
  });

  test("a look-up that is used again tells the same of both ends, also when they end", async (t) => {
    const { ours, theirs, end } = await openPair();
    if (kernelSource !== "sock_diag") {
      await end();
      return skip(t, `no sock_diag: ${kernelSourceReason}`);
    }
    const byDescriptor = new ConnectionLookup(ours.local, ours.remote, () => ours.fd);
    const byAddress = new ConnectionLookup(ours.local, ours.remote);
    const queues = (lookup: ConnectionLookup) => {
      const { near, far } = lookup.state();
      return [near?.sendQueue, near?.receiveQueue, near?.info?.bytesReceived, far?.sendQueue];
    };
    const agree = async (what: string, receiveQueue: number, received: number) => {
      const expected = [0, receiveQueue, received, 0];
      await until(what, 2000, () => String(queues(byDescriptor)) === String(expected));
      assertEquals(queues(byAddress), expected);
      assertEquals(queues(byDescriptor), expected, "asked again");
    };
    await agree("nothing", 0, 0);
    theirs.write(new Uint8Array(77));
    await agree("replies", 77, 77);
    assertEquals((await within("the replies", 2000, ours.read(1000)))?.length, 77);
    await agree("no replies any more", 0, 77);
    theirs.write(new Uint8Array(5));
    await agree("replies again", 5, 82);

    await ours.write(new Uint8Array(3000));
    const read = () => byAddress.readByFar()?.read;
    await until("read ahead or not", 2000, () => {
      const far = byAddress.state().far!;
      return far.info!.bytesReceived === 3000 && read() === 3000 - far.receiveQueue;
    });
    theirs.resume();
    await until("read", 2000, () => read() === 3000);

    const { fd } = ours;
    const stillOpen = new ConnectionLookup(ours.local, ours.remote, () => fd);
    theirs.resetAndDestroy();
    await until("the reset", 2000, () => byAddress.state().near === undefined);
    // Whether or not our runtime has noticed: the descriptor of an ended connection says nothing.
    assertEquals(stillOpen.state(), { near: undefined, far: undefined });
    assertEquals(read(), undefined);
    await end();
  });

  test("a full send queue is told by descriptor as by address", async (t) => {
    const { ours, end } = await openPair();
    if (kernelSource !== "sock_diag" || ours.fd === undefined) {
      await end();
      return skip(t, `no descriptor or no FFI here: ${kernelSourceReason}`);
    }
    setBufferSize(ours.fd, "send", 4608);
    const chunk = new Uint8Array(1 << 20);
    let write: number | Promise<number>;
    for (let i = 0; typeof (write = ours.write(chunk)) === "number"; i++) assert(i < 10_000);
    const near = (fd?: number) =>
      new ConnectionLookup(ours.local, ours.remote, () => fd).state().near!;
    // The peer may read ahead a first piece, and acknowledge late.
    await until("the queue is still", 5000, () => {
      const [a, b] = [near(ours.fd).sendQueue, near().sendQueue];
      return a > 0 && a === b;
    });
    const { info } = near(ours.fd);
    assertGreater(info!.unackedSegments + info!.notSent, 0);
    await end();
    await write;
  });

  test("answers to earlier requests are not taken for this one's", (t) => {
    if (typeof libc === "string" || kernelSource !== "sock_diag") return skip(t, "no sock_diag");
    const c = libc;
    let doubled = 0;
    const diag = openSockDiag({
      ...c,
      // Each request is sent twice, so that a second answer is left over.
      write(fd, bytes, length) {
        doubled++;
        return Math.min(c.write(fd, bytes, length), c.write(fd, bytes, length));
      },
    });
    assert(diag instanceof SockDiag, String(diag));
    diag.close();
    assertEquals(doubled, 2);
  });

  test("TCP_INFO: each field from its place in linux/tcp.h", () => {
    const view = new DataView(new ArrayBuffer(240));
    const [u32, u64] = [
      (at: number, value: number) => view.setUint32(at, value, true),
      (at: number, value: bigint) => view.setBigUint64(at, value, true),
    ];
    view.setUint8(7, 0b101);
    for (const at of [16, 24, 68, 76, 80, 100, 144, 148, 228]) u32(at, 0xff000000 + at);
    for (const at of [104, 120, 128, 160, 168, 176, 184]) u64(at, (7n << 32n) + BigInt(at));
    const long = (at: number) => 7 * 2 ** 32 + at;
    const expected = {
      bytesAcked: long(120),
      bytesReceived: long(128),
      notSent: 0xff000000 + 144,
      busyUs: long(168),
      receiveWindowLimitedUs: long(176),
      sendBufferLimitedUs: long(184),
      retransmits: 0xff000000 + 100,
      unackedSegments: 0xff000000 + 24,
      congestionWindow: 0xff000000 + 80,
      slowStartThreshold: 0xff000000 + 76,
      segmentSize: 0xff000000 + 16,
      pacingRate: long(104),
      deliveryRate: long(160),
      deliveryAppLimited: true,
      roundTripUs: 0xff000000 + 68,
      leastRoundTripUs: 0xff000000 + 148,
    };
    assertEquals(decodeTcpInfo(view, 0, 240), { ...expected, sendWindow: 0xff000000 + 228 });
    u64(104, 2n ** 64n - 1n);
    view.setUint8(7, 0b100);
    assertEquals(decodeTcpInfo(view, 0, 192), {
      ...expected,
      pacingRate: Infinity,
      deliveryAppLimited: false,
    });
    assertEquals(decodeTcpInfo(view, 0, 191), undefined);
  });

  test("a descriptor is found again, whichever was found last", async (t) => {
    if (typeof libc === "string") return skip(t, libc);
    const pairs = await Promise.all(Array.from({ length: 20 }, () => openPair()));
    for (const { ours } of [...pairs, ...pairs.toReversed(), pairs[0]!, pairs[19]!]) {
      assertEquals(findDescriptor(ours.local, ours.remote), ours.fd);
    }
    const { local, remote } = pairs[0]!.ours;
    assertEquals(findDescriptor(local, { ...remote, port: 1 }), undefined);
    assertEquals(findDescriptor({ host: "a.name", port: 1 }, remote), undefined);
    for (const { end } of pairs) await end();
    assertEquals(findDescriptor(local, remote), undefined);

    // Of connections to one address, only their own addresses differ.
    const adapter = await loadAdapter();
    const accepted: Connection[] = [];
    const listener = await adapter.listen({
      host: "127.0.0.1",
      port: 0,
      onConnection: (connection) => void accepted.push(connection),
    });
    const clients = await Promise.all(Array.from(
      { length: 5 },
      () => adapter.connect({ host: "127.0.0.1", port: listener.address.port }),
    ));
    await until("accepted", 2000, () => accepted.length === 5);
    const all = [...clients, ...accepted].toReversed();
    const descriptors = all.map(({ local, remote }) => findDescriptor(local, remote));
    assertEquals(descriptors, all.map(({ fd }) => fd));
    assertEquals(new Set(descriptors).size, 10);
    for (const connection of all) connection.close();
    await listener.close();
  });

  test("agrees with ss", async (t) => {
    const { ours, theirs, end } = await openPair();
    if (kernelSource !== "sock_diag") {
      await end();
      return skip(t, `nothing to compare: ${kernelSourceReason}`);
    }
    await ours.write(new Uint8Array(3000));
    theirs.write(new Uint8Array(123));
    await until(
      "arrived",
      2000,
      () => connectionState(ours.local, ours.remote).near?.receiveQueue === 123,
    );
    let text: string;
    try {
      text = execFileSync("ss", [
        "-tinHO",
        `( sport = :${ours.local.port} and dport = :${ours.remote.port} )`,
      ], {
        encoding: "utf8",
      });
    } catch {
      await end();
      return skip(t, "no ss here (Debian: iproute2)");
    }
    assertEquals(Number(/^\S+\s+(\d+)/.exec(text)![1]), 123, text);
    assertEquals(Number(/bytes_acked:(\d+)/.exec(text)![1]), 3000, text);
    const { info } = connectionState(ours.local, ours.remote).near!;
    assertEquals(Number(/cwnd:(\d+)/.exec(text)![1]), info!.congestionWindow, text);
    assertEquals(Number(/[^a-z]mss:(\d+)/.exec(text)![1]), info!.segmentSize, text);
    assertEquals(/\bapp_limited\b/.test(text), info!.deliveryAppLimited, text);
    const [, rtt] = /[^a-z]rtt:([\d.]+)/.exec(text)!;
    assertEquals(Math.round(1000 * Number(rtt)), info!.roundTripUs, text);
    await end();
  });

  test("buffer sizes are set, and read back doubled", async (t) => {
    const { ours, end } = await openPair();
    if (kernelSource !== "sock_diag" || ours.fd === undefined) {
      await end();
      return skip(t, `no descriptor or no FFI here: ${kernelSourceReason}`);
    }
    for (const which of ["send", "receive"] as const) {
      assert(setBufferSize(ours.fd, which, 32_768));
      assertEquals(bufferSize(ours.fd, which), 65_536);
    }
    assertEquals(setBufferSize(999_999, "send", 4096), false, "no such descriptor");
    assertEquals(bufferSize(999_999, "send"), undefined);
    assertEquals(tcpInfo(999_999), undefined);
    await end();
  });

  test("unread bytes are seen, and abort sends RST", async (t) => {
    const { ours, theirs, end } = await openPair();
    if (kernelSource !== "sock_diag" || ours.fd === undefined) {
      await end();
      return skip(t, `no descriptor or no FFI here: ${kernelSourceReason}`);
    }
    assertEquals(hasUnread(ours.fd), false);
    theirs.write("reply");
    await until("the reply", 2000, () => hasUnread(ours.fd!) === true);
    const failed = new Promise<string>((resolve) =>
      theirs.on("error", (error) => resolve((error as Error & { code: string }).code))
    );
    assert(abort(ours.fd));
    theirs.resume();
    assertEquals(await within("the reset", 2000, failed), "ECONNRESET");
    await end();
  });
});

describe(`the test of sock_diag on ${runtime}`, () => {
  /** What is said where some of libc's calls do as told. */
  const saysWith = (c: Libc, changed: Partial<Libc>) => openSockDiag({ ...c, ...changed });
  const NETLINK = 16;
  /** Of an answer: where the size of the receive queue stands. */
  const RECEIVE_QUEUE = 16 + 56;

  test("passes where the kernel can be trusted, and leaves no socket open", (t) => {
    if (typeof libc === "string") return skip(t, libc);
    const opened = new Set<number>();
    const noting = (fd: number) => {
      if (fd >= 0) opened.add(fd);
      return fd;
    };
    const { socket, accept, close } = libc;
    const diag = saysWith(libc, {
      socket: (...args) => noting(socket(...args)),
      accept: (...args) => noting(accept(...args)),
      close: (fd) => {
        opened.delete(fd);
        return close(fd);
      },
    });
    assert(diag instanceof SockDiag, String(diag));
    assertEquals(opened.size, 1, "its own");
    diag.close();
    assertEquals(opened.size, 0);
  });

  test("fails, with a reason, where it cannot", (t) => {
    if (typeof libc === "string") return skip(t, libc);
    const c = libc;
    const answer = (change: (view: DataView) => void): Partial<Libc> => ({
      // Bytes on every runtime, never their address.
      pin: (bytes) => bytes,
      read(fd, bytes, length) {
        const read = c.read(fd, bytes, length);
        change(new DataView((bytes as Uint8Array).buffer));
        return read;
      },
    });
    const cases: [Partial<Libc>, string][] = [
      [
        { socket: (domain, ...rest) => domain === NETLINK ? -1 : c.socket(domain, ...rest) },
        "sock_diag: netlink sockets are not permitted",
      ],
      [
        { read: () => -1 },
        "sock_diag is not usable: it does not find a connection of this process",
      ],
      [
        answer((view) => view.setUint32(RECEIVE_QUEUE, 0, true)),
        "sock_diag is not usable: it reports 0 unread bytes where there are 1237",
      ],
      [
        answer((view) => view.setUint32(RECEIVE_QUEUE, 1237, true)),
        "sock_diag is not usable: it confuses the two ends of a connection",
      ],
      [
        // Of another connection.
        answer((view) => view.setUint16(16 + 4, 1)),
        "sock_diag is not usable: it does not find a connection of this process",
      ],
      [
        { bind: () => -1 },
        "sock_diag is not usable: no connection over loopback can be made to test it",
      ],
      [
        // As behind a firewall that drops everything.
        { connect: () => -1 },
        "sock_diag is not usable: no connection over loopback can be made to test it",
      ],
      [
        { send: (fd, bytes, ...rest) => bytes.length === 1237 ? -1 : c.send(fd, bytes, ...rest) },
        "sock_diag is not usable: a connection over loopback takes no bytes to test it",
      ],
    ];
    for (const [changed, says] of cases) assertEquals(saysWith(c, changed), says);
    assertEquals(openSockDiag("no libc here"), "no libc here");
  });
});
