/**
 * The two sides that bench/micro.ts compares: they move the same bytes in the same pieces between
 * this process and a peer in C, one through our adapter and one through the runtime's own API.
 */
import net from "node:net";
import { runtime } from "../src/kernel/runtime.ts";
import { loadAdapter } from "../src/net/load.ts";
import type { Connection } from "../src/net/net.ts";
import { Program } from "./programs.ts";

/** One direction of one connection. */
export interface Lane {
  /** Writes or reads so many bytes in pieces of `size`; resolves when that is done. */
  move(bytes: number): Promise<void>;
  close(): void;
}

export interface LaneOptions {
  direction: "write" | "read";
  /** Size of one read or write, bytes. */
  size: number;
  /** Path of peer.c as a compiled program. */
  peer: string;
  /** Deadline of the peer. */
  seconds: number;
}

const HOST = "127.0.0.1";
/** Size of the peer's reads and writes, whatever the size of our pieces. */
const PEER_BLOCK = "65536";

/** Opens both sides of a comparison, each with its own connection and peer. */
export async function openLanes(options: LaneOptions): Promise<{ adapter: Lane; bare: Lane }> {
  const bare = BARE[runtime];
  return options.direction === "write"
    ? {
      adapter: await openWriter(writeAdapter, options),
      bare: await openWriter(bare.write, options),
    }
    : {
      adapter: await openReader(readAdapter, options),
      bare: await openReader(bare.read, options),
    };
}

/** Listens, reports the port, and uses the one connection that is made. */
type OpenWriter = (size: number, onPort: (port: number) => void) => Promise<Lane>;
type OpenReader = (size: number, port: number) => Promise<Lane>;

async function openWriter(
  open: OpenWriter,
  { size, peer, seconds }: LaneOptions,
): Promise<Lane> {
  let program: Program | undefined;
  const lane = await open(size, (port) => {
    program = new Program([peer, "drain", HOST, String(port), PEER_BLOCK], { seconds });
  });
  return closeWith(lane, program!);
}

async function openReader(
  open: OpenReader,
  { size, peer, seconds }: LaneOptions,
): Promise<Lane> {
  const program = new Program([peer, "flood", "0", String(seconds), PEER_BLOCK], { seconds });
  const [, port] = await program.saw(/^listening (\d+)$/m);
  return closeWith(await open(size, Number(port)), program);
}

/** The lane, whose close also ends the peer. */
function closeWith(lane: Lane, program: Program): Lane {
  return {
    move: (bytes) => lane.move(bytes),
    close() {
      program.kill();
      lane.close();
    },
  };
}

/** Writes to every page: untouched pages would all be the same page of zeros. */
const pieceOf = (size: number) => Uint8Array.from({ length: size }, (_, i) => 33 + i % 94);
const disconnected = () => new Error("the peer closed the connection");
/** Every reader uses each piece, so that no compiler can optimize the reads away. */
let sum = 0;
const use = (piece: Uint8Array) => {
  sum = (sum + piece[0]!) | 0;
};

/** The sum over all pieces that were read; its value has no meaning. */
export const checksum = (): number => sum;

const writeAdapter: OpenWriter = async (size, onPort) => {
  const adapter = await loadAdapter();
  const { promise, resolve } = Promise.withResolvers<Connection>();
  const listener = await adapter.listen({ host: HOST, port: 0, onConnection: resolve });
  onPort(listener.address.port);
  const connection = await promise;
  await listener.close();
  const piece = pieceOf(size);
  const finish = async (taken: number) => {
    let rest = piece.subarray(taken);
    while (rest.length > 0) {
      const more = await connection.write(rest);
      if (more === 0) throw disconnected();
      rest = rest.subarray(more);
    }
  };
  return {
    async move(bytes) {
      for (let left = bytes; left > 0; left -= size) {
        const answer = connection.write(piece);
        const taken = typeof answer === "number" ? answer : await answer;
        if (taken < size) await finish(taken);
      }
    },
    close: () => connection.close(),
  };
};

const readAdapter: OpenReader = async (size, port) => {
  const adapter = await loadAdapter();
  const connection = await adapter.connect({ host: HOST, port, readSize: size });
  return {
    async move(bytes) {
      for (let left = bytes; left > 0;) {
        const answer = connection.read(Math.min(size, left));
        const chunk = answer instanceof Promise ? await answer : answer;
        if (chunk === null) throw disconnected();
        use(chunk);
        left -= chunk.length;
      }
    },
    close: () => connection.close(),
  };
};

const writeDeno: OpenWriter = async (size, onPort) => {
  const listener = Deno.listen({ hostname: HOST, port: 0 });
  onPort((listener.addr as Deno.NetAddr).port);
  const conn = await listener.accept();
  listener.close();
  const piece = pieceOf(size);
  return {
    async move(bytes) {
      for (let left = bytes; left > 0; left -= size) {
        let taken = await conn.write(piece);
        while (taken < size) taken += await conn.write(piece.subarray(taken));
      }
    },
    close: () => conn.close(),
  };
};

const readDeno: OpenReader = async (size, port) => {
  const conn = await Deno.connect({ hostname: HOST, port });
  const buffer = new Uint8Array(size);
  return {
    async move(bytes) {
      for (let left = bytes; left > 0;) {
        const count = await conn.read(left < size ? buffer.subarray(0, left) : buffer);
        if (count === null) throw disconnected();
        use(buffer);
        left -= count;
      }
    },
    close: () => conn.close(),
  };
};

const writeNode: OpenWriter = async (size, onPort) => {
  const { promise, resolve } = Promise.withResolvers<net.Socket>();
  const server = net.createServer({ pauseOnConnect: true }, resolve);
  server.listen(0, HOST, () => onPort((server.address() as net.AddressInfo).port));
  const socket = await promise;
  server.close();
  socket.on("error", () => {});
  const piece = pieceOf(size);
  return {
    async move(bytes) {
      for (let left = bytes; left > 0; left -= size) {
        if (socket.write(piece)) continue;
        if (socket.destroyed) throw disconnected();
        // write() returns false for a piece of the high-water mark's size, although the kernel may
        // have taken all of it.
        if (socket.writableLength > 0) await new Promise((done) => socket.once("drain", done));
      }
    },
    close: () => socket.destroy(),
  };
};

const readNode: OpenReader = async (size, port) => {
  let left = 0;
  let done = () => {};
  const socket = net.connect({
    host: HOST,
    port,
    onread: {
      buffer: new Uint8Array(size),
      callback(count: number, buffer: Uint8Array) {
        use(buffer);
        left -= count;
        if (left > 0) return true;
        done();
        return false;
      },
    },
  });
  await new Promise<void>((resolve, reject) =>
    socket.once("connect", resolve).once("error", reject)
  );
  socket.pause();
  return {
    move(bytes) {
      // The previous move may have read too much: that counts towards this one.
      left += bytes;
      return new Promise((resolve) => {
        done = resolve;
        socket.resume();
      });
    },
    close: () => socket.destroy(),
  };
};

// The part of Bun's types that is used here, as in src/net/bun.ts.
interface BunSocket {
  write(bytes: Uint8Array): number;
  pause(): void;
  resume(): void;
  terminate(): void;
}
interface BunOptions {
  hostname: string;
  port: number;
  socket: {
    open?(socket: BunSocket): void;
    data(socket: BunSocket, chunk: Uint8Array): void;
    drain?(socket: BunSocket): void;
    error?(): void;
  };
}
interface BunApi {
  listen(options: BunOptions): { port: number; stop(force: boolean): void };
  connect(options: BunOptions): Promise<BunSocket>;
}
const bun = (globalThis as unknown as { Bun: BunApi }).Bun;

const writeBun: OpenWriter = async (size, onPort) => {
  const { promise, resolve } = Promise.withResolvers<BunSocket>();
  let drained = () => {};
  const socketHandlers = { open: resolve, data() {}, drain: () => drained(), error() {} };
  const listener = bun.listen({ hostname: HOST, port: 0, socket: socketHandlers });
  onPort(listener.port);
  const socket = await promise;
  listener.stop(false);
  const piece = pieceOf(size);
  const finish = async (taken: number) => {
    let rest = piece.subarray(taken);
    while (rest.length > 0) {
      await new Promise<void>((resolve) => drained = resolve);
      const more = socket.write(rest);
      if (more < 0) throw disconnected();
      rest = rest.subarray(more);
    }
  };
  return {
    async move(bytes) {
      for (let left = bytes; left > 0; left -= size) {
        const taken = socket.write(piece);
        if (taken < 0) throw disconnected();
        if (taken < size) await finish(taken);
      }
    },
    close: () => socket.terminate(),
  };
};

const readBun: OpenReader = async (size, port) => {
  let left = 0;
  let rest = new Uint8Array(0);
  let done: (() => void) | undefined;
  /** Bun delivers chunks of any size, so a program has to cut them into pieces itself. */
  const cut = () => {
    let at = 0;
    while (left > 0 && at < rest.length) {
      const piece = rest.subarray(at, at + Math.min(size, left));
      use(piece);
      at += piece.length;
      left -= piece.length;
    }
    rest = rest.subarray(at);
  };
  const socket = await bun.connect({
    hostname: HOST,
    port,
    socket: {
      open: (socket) => socket.pause(),
      data(socket, chunk) {
        // A paused socket may still deliver one chunk.
        rest = rest.length === 0 ? chunk as typeof rest : joined(rest, chunk);
        if (done === undefined) return;
        cut();
        if (left > 0) return;
        socket.pause();
        done();
        done = undefined;
      },
      error() {},
    },
  });
  return {
    async move(bytes) {
      left = bytes;
      cut();
      if (left === 0) return;
      const { promise, resolve } = Promise.withResolvers<void>();
      done = resolve;
      socket.resume();
      await promise;
    },
    close: () => socket.terminate(),
  };
};

function joined(first: Uint8Array, second: Uint8Array): Uint8Array<ArrayBuffer> {
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

const BARE = {
  deno: { write: writeDeno, read: readDeno },
  bun: { write: writeBun, read: readBun },
  node: { write: writeNode, read: readNode },
};
/** The runtime's own API, which a program would use without our adapter. */
export const BARE_API: string = {
  deno: "Deno.connect, Deno.listen",
  bun: "Bun.connect, Bun.listen",
  node: "node:net",
}[runtime];
