/** Implements the contract of net.ts with node:net. Deno and Bun can load it too. */
import net from "node:net";
import { networkInterfaces } from "node:os";
import { formatHostPort } from "../text/units.ts";
import type { Address } from "../kernel/address.ts";
import { findDescriptor } from "../kernel/descriptor.ts";
import { KEEPALIVE, keepAlive } from "../kernel/keepalive.ts";
import { libc } from "../kernel/libc.ts";
import { runtime } from "../kernel/runtime.ts";
import { sendNow } from "../kernel/socket_calls.ts";
import { isLinkLocal, withGivenZone, withZone } from "../kernel/zone.ts";
import {
  type Adapter,
  type Closed,
  type Connection,
  DEFAULT_READ_SIZE,
  LISTEN_BACKLOG,
  type Listener,
  NetError,
} from "./net.ts";

const errnoOf = (error: unknown): string =>
  (error as { code?: string } | undefined)?.code ?? String(error);

/** Node takes the name of an interface only, not its number (26.10): `fe80::1%4` is `fe80::1%eth0`. */
function withZoneName(host: string): string {
  const [address, zone = ""] = host.split("%");
  if (!isLinkLocal(host) || !/^\d+$/.test(zone)) return host;
  for (const [name, addresses = []] of Object.entries(networkInterfaces())) {
    const numbers = addresses.map((each) => each.family === "IPv6" ? each.scopeid : 0);
    if (numbers.includes(Number(zone))) return `${address}%${name}`;
  }
  return host;
}

/** A socket's internal handle. Only it has the descriptor and the size of libuv's write queue. */
interface Handle {
  readonly fd?: number;
  readonly writeQueueSize?: number;
}

class NodeConnection implements Connection {
  readonly local: Address;
  readonly remote: Address;
  /** An accepted connection's stream reads ahead to its high-water mark, 64 KiB. */
  readonly readAhead: number = DEFAULT_READ_SIZE;
  readonly closed: Promise<Closed>;
  protected readonly socket: net.Socket;
  readonly #resolveClosed: (closed: Closed) => void;
  /** The handle that `#fd` was read from. Cached: the handle's getter costs as much as a small write. */
  #fdHandle: Handle | undefined;
  #fd: number | undefined;
  #inFlight = 0;
  #blockedSince: number | undefined;
  protected sawEof = false;
  protected ended = false;
  #writer: (() => void) | undefined;
  #reader: (() => void) | undefined;
  // Not the "drain" event: it is emitted only for chunks above the stream's high-water mark.
  readonly #onWritten = (error?: Error | null) => {
    if (error) this.#fail(error);
    else this.#wakeWriter();
  };

  constructor(socket: net.Socket) {
    this.socket = socket;
    const local = { host: socket.localAddress ?? "", port: socket.localPort ?? 0 };
    const remote = { host: socket.remoteAddress ?? "", port: socket.remotePort ?? 0 };
    const fd = () => findDescriptor(local, remote);
    this.local = withZone(local, fd);
    this.remote = withZone(remote, fd);
    const { promise, resolve } = Promise.withResolvers<Closed>();
    this.closed = promise;
    this.#resolveClosed = resolve;
    socket.on("end", () => {
      this.sawEof = true;
      this.wakeReader();
    });
    socket.on("error", (error) => this.#fail(error));
    socket.on("close", () => this.#finish({ reason: this.sawEof ? "eof" : "local" }));
    // Node's own way has other intervals: ten probes, one a second.
    if (this.fd === undefined || !keepAlive(this.fd)) {
      socket.setKeepAlive(true, 1000 * KEEPALIVE.idleSeconds);
    }
  }

  get #handle(): Handle | null | undefined {
    return (this.socket as unknown as { _handle?: Handle | null })._handle;
  }

  get fd(): number | undefined {
    if (this.ended) return undefined;
    const handle = this.#handle;
    // Destroyed: another file may already have the same descriptor.
    if (handle === null || handle === undefined) return undefined;
    if (handle !== this.#fdHandle) {
      const { fd } = handle;
      // On Deno the handle has no descriptor.
      this.#fd = fd !== undefined && fd >= 0 ? fd : findDescriptor(this.local, this.remote);
      if (this.#fd !== undefined) this.#fdHandle = handle;
    }
    return this.#fd;
  }

  get blockedSince(): number | undefined {
    return this.#blockedSince;
  }

  get bufferedBytes(): number | undefined {
    // The single byte with which #sendLater waits does not count.
    if (this.#inFlight <= 1) return 0;
    // Deno and Bun do not keep this figure: it is missing, or 0 while a chunk is in flight.
    return this.#handle?.writeQueueSize || undefined;
  }

  write(bytes: Uint8Array): number | Promise<number> {
    if (this.ended) return 0;
    const { fd } = this;
    if (fd === undefined || typeof libc === "string") return this.#writeThrough(bytes);
    const taken = sendNow(fd, bytes);
    if (taken === undefined) return this.#sendLater(bytes);
    this.#blockedSince = taken === bytes.length ? undefined : performance.now();
    return taken;
  }

  /** Waits for the kernel by writing only one byte through Node, which buffers all it is given. */
  async #sendLater(bytes: Uint8Array): Promise<number> {
    const first = await this.#writeThrough(bytes.subarray(0, 1));
    const { fd } = this;
    if (first === 0 || fd === undefined || bytes.length === 1) return first;
    const taken = first + (sendNow(fd, bytes.subarray(1)) ?? 0);
    if (taken < bytes.length) this.#blockedSince = performance.now();
    return taken;
  }

  /** Writes through Node's stream, which always takes the whole chunk. */
  #writeThrough(bytes: Uint8Array): number | Promise<number> {
    this.socket.write(bytes, this.#onWritten);
    // The error is known at once, but its event comes later; `writableLength` may already be 0.
    if (this.socket.errored) return this.closed.then(() => 0);
    if (this.socket.writableLength === 0) {
      this.#blockedSince = undefined;
      return bytes.length;
    }
    return this.#settleWrite(bytes.length);
  }

  /** Waits until the kernel has all of the chunk: only then does it count as written. */
  async #settleWrite(length: number): Promise<number> {
    this.#inFlight = length;
    this.#blockedSince ??= performance.now();
    while (this.socket.writableLength > 0 && !this.ended) {
      await new Promise<void>((resolve) => this.#writer = resolve);
    }
    this.#inFlight = 0;
    this.#blockedSince = undefined;
    return this.ended ? 0 : length;
  }

  read(limit: number): Uint8Array | null | Promise<Uint8Array | null> {
    return this.take(limit) ?? (this.sawEof || this.ended ? null : this.#readLater(limit));
  }

  async #readLater(limit: number): Promise<Uint8Array | null> {
    while (true) {
      await new Promise<void>((resolve) => this.#reader = resolve);
      const chunk = this.take(limit);
      if (chunk !== undefined) return chunk;
      if (this.sawEof || this.ended) return null;
    }
  }

  /** What has already arrived. On accepted sockets Node's stream reads ahead up to 64 KiB. */
  protected take(limit: number): Uint8Array | undefined {
    if (!this.socket.listenerCount("readable")) {
      this.socket.on("readable", () => this.wakeReader());
    }
    const size = Math.min(limit, this.socket.readableLength);
    // read() on an empty buffer makes the stream start reading and notice the end.
    const chunk: Uint8Array | null = size > 0 ? this.socket.read(size) : this.socket.read();
    return chunk ?? undefined;
  }

  closeWrite(): Promise<void> {
    if (this.ended) return Promise.resolve();
    return new Promise((resolve) => {
      this.socket.end(() => resolve());
      void this.closed.then(() => resolve());
    });
  }

  close(): void {
    this.#finish({ reason: this.sawEof ? "eof" : "local" });
    this.socket.destroy();
  }

  reset(): void {
    this.#finish({ reason: "local" });
    this.socket.resetAndDestroy();
  }

  #fail(error: Error): void {
    let errno = errnoOf(error);
    // The kernel reports a reset once, here to our direct send; Node then sees EPIPE.
    if (errno === "EPIPE" && !this.sawEof) errno = "ECONNRESET";
    const reset = errno === "ECONNRESET" || errno === "EPIPE";
    this.#finish({ reason: reset ? "reset" : "error", errno });
  }

  #finish(closed: Closed): void {
    if (this.ended) return;
    this.ended = true;
    this.#blockedSince = undefined;
    this.#wakeWriter();
    this.wakeReader();
    this.#resolveClosed(closed);
  }

  #wakeWriter(): void {
    const writer = this.#writer;
    this.#writer = undefined;
    writer?.();
  }

  /** Resumes a waiting read. Returns whether there was one. */
  protected wakeReader(): boolean {
    const reader = this.#reader;
    this.#reader = undefined;
    reader?.();
    return reader !== undefined;
  }
}

/**
 * Two alternating buffers: Node reads into one while the caller's view of the other is still valid.
 * An outgoing connection reads ahead no more than that.
 */
class ReadBuffers {
  size: number;
  /** The chunk that has arrived and was not read yet. */
  chunk: Uint8Array | undefined;
  #buffers: [Uint8Array, Uint8Array];
  #next: 0 | 1 = 0;

  constructor(size: number) {
    this.size = size;
    this.#buffers = [new Uint8Array(size), new Uint8Array(size)];
  }

  next(): Uint8Array {
    this.#next = this.#next === 0 ? 1 : 0;
    const buffer = this.#buffers[this.#next];
    if (buffer.length === this.size) return buffer;
    return this.#buffers[this.#next] = new Uint8Array(this.size);
  }
}

/**
 * Whether the socket may read the next chunk without a pause, which makes Node 1.5 times as fast.
 * Deno 2.9 and Bun 1.4 would read into the same buffer again, whatever `onread.buffer` returns.
 */
const CAN_READ_CONTINUOUSLY = runtime === "node";

/** An outgoing connection. It reads into our own buffers (`onread`), in the requested size. */
class NodeClientConnection extends NodeConnection {
  /** One piece of the requested read size. */
  override readonly readAhead: number;
  readonly #buffers: ReadBuffers;
  #flowing = false;

  constructor(socket: net.Socket, buffers: ReadBuffers) {
    super(socket);
    this.readAhead = buffers.size;
    this.#buffers = buffers;
  }

  /**
   * Stores a chunk. Returns whether Node may read the next one at once: not while this chunk, or the
   * rest of it after a shorter read, has not been read, because the caller may still use the other
   * buffer.
   */
  deliver(chunk: Uint8Array): boolean {
    this.#buffers.chunk = chunk;
    const wanted = this.wakeReader() && chunk.length <= this.#buffers.size;
    return this.#flowing = wanted && CAN_READ_CONTINUOUSLY;
  }

  protected override take(limit: number): Uint8Array | undefined {
    const { chunk } = this.#buffers;
    if (chunk === undefined) {
      this.#buffers.size = limit;
      if (!this.#flowing && !this.ended && !this.sawEof) {
        this.#flowing = true;
        this.socket.resume();
      }
      return undefined;
    }
    if (chunk.length > limit) {
      this.#buffers.chunk = chunk.subarray(limit);
      return chunk.subarray(0, limit);
    }
    this.#buffers.chunk = undefined;
    return chunk;
  }
}

export const adapter: Adapter = {
  name: "node",
  canReset: true,

  listen({ host, port, onConnection, onAcceptError }) {
    return new Promise((resolve, reject) => {
      const server = net.createServer(
        { allowHalfOpen: true, pauseOnConnect: true },
        (socket) => onConnection(new NodeConnection(socket)),
      );
      server.once("error", (error) => {
        reject(
          new NetError(`cannot listen on ${formatHostPort({ host, port })}`, errnoOf(error), error),
        );
      });
      const backlog = LISTEN_BACKLOG;
      server.listen({ host: withZoneName(host), port, backlog }, () => {
        server.on("error", (error) => onAcceptError?.(errnoOf(error)));
        const { address, port: bound } = server.address() as net.AddressInfo;
        const result: Listener = {
          address: withGivenZone({ host: address, port: bound }, host),
          // Not with its callback, which also waits until all connections are closed.
          close: () => {
            server.close();
            return Promise.resolve();
          },
        };
        resolve(result);
      });
    });
  },

  connect({ host, port, readSize = DEFAULT_READ_SIZE }) {
    return new Promise((resolve, reject) => {
      const buffers = new ReadBuffers(readSize);
      let connection: NodeClientConnection | undefined;
      const socket = net.connect({
        host: withZoneName(host),
        port,
        allowHalfOpen: true,
        onread: {
          buffer: () => buffers.next(),
          callback: (count: number, buffer: Uint8Array) =>
            connection!.deliver(count === buffer.length ? buffer : buffer.subarray(0, count)),
        },
      });
      const onError = (error: unknown) =>
        reject(
          new NetError(
            `cannot connect to ${formatHostPort({ host, port })}`,
            errnoOf(error),
            error,
          ),
        );
      socket.once("error", onError);
      socket.once("connect", () => {
        socket.removeListener("error", onError);
        socket.pause();
        connection = new NodeClientConnection(socket, buffers);
        resolve(connection);
      });
    });
  },
};
