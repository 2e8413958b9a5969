/** What the kernel tells, against what was really sent and read. */
import { describe, test } from "node:test";
import net from "node:net";
import { execFileSync } from "node:child_process";
import { assert, assertEquals, assertGreater } from "#std/assert";
import { abort, bufferSize, hasUnread, setBufferSize } from "../src/kernel/socket_calls.ts";
import { connectionState, kernelSource, kernelSourceReason } from "../src/kernel/kernel.ts";
import { type Libc, libc } from "../src/kernel/libc.ts";
import { openSockDiag, SockDiag } from "../src/kernel/sock_diag.ts";
import { tcpInfo } from "../src/kernel/tcp_info.ts";
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
      recv(fd, bytes, length, flags) {
        const read = c.recv(fd, bytes, length, flags);
        change(new DataView(bytes.buffer));
        return read;
      },
    });
    const cases: [Partial<Libc>, string][] = [
      [
        { socket: (domain, ...rest) => domain === NETLINK ? -1 : c.socket(domain, ...rest) },
        "sock_diag: netlink sockets are not permitted",
      ],
      [
        { recv: () => -1 },
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
