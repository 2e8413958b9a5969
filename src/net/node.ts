/** node:net behind the contract of net.ts; Deno and Bun can load it too. */
import net from "node:net";
import { findDescriptor } from "../kernel/descriptor.ts";
import { sendNow } from "../kernel/socket_calls.ts";
import { libc } from "../kernel/libc.ts";
import {
  type Adapter,
  type Closed,
  type Connection,
  DEFAULT_READ_SIZE,
  type Listener,
  NetError,
} from "./net.ts";
import type { Address } from "../kernel/address.ts";
import { runtime } from "../kernel/runtime.ts";

const errnoOf = (error: unknown): string =>
  (error as { code?: string } | undefined)?.code ?? String(error);

/** The handle below a socket is not public; it alone knows the descriptor and what libuv holds. */
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
  readonly #end: (closed: Closed) => void;
  /** Of which handle `#fd` is: to ask for it costs as much as a small write. */
  #fdOf: Handle | undefined;
  #fd: number | undefined;
  #inFlight = 0;
  #blockedSince: number | undefined;
  protected sawEof = false;
  protected ended = false;
  #writer: (() => void) | undefined;
  #reader: (() => void) | undefined;
  // Not "drain": that comes only for chunks above the stream's high-water mark.
  readonly #onWritten = (error?: Error | null) => {
    if (error) this.#fail(error);
    else this.#wakeWriter();
  };

  constructor(socket: net.Socket) {
    this.socket = socket;
    this.local = { host: socket.localAddress ?? "", port: socket.localPort ?? 0 };
    this.remote = { host: socket.remoteAddress ?? "", port: socket.remotePort ?? 0 };
    const { promise, resolve } = Promise.withResolvers<Closed>();
    this.closed = promise;
    this.#end = resolve;
    socket.on("end", () => {
      this.sawEof = true;
      this.wakeReader();
    });
    socket.on("error", (error) => this.#fail(error));
    socket.on("close", () => this.#finish({ reason: this.sawEof ? "eof" : "local" }));
  }

  get #handle(): Handle | null | undefined {
    return (this.socket as unknown as { _handle?: Handle | null })._handle;
  }

  get fd(): number | undefined {
    if (this.ended) return undefined;
    const handle = this.#handle;
    // Destroyed: its number may be another's by now.
    if (handle === null || handle === undefined) return undefined;
    if (handle !== this.#fdOf) {
      const { fd } = handle;
      // Deno's handle does not know it.
      this.#fd = fd !== undefined && fd >= 0 ? fd : findDescriptor(this.local, this.remote);
      if (this.#fd !== undefined) this.#fdOf = handle;
    }
    return this.#fd;
  }

  get blockedSince(): number | undefined {
    return this.#blockedSince;
  }

  get held(): number | undefined {
    // The one byte that waits for the kernel is not worth telling.
    if (this.#inFlight <= 1) return 0;
    // Deno and Bun keep no such figure: theirs is missing, or 0 while a chunk is in flight.
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

  /** Waits for the kernel with one byte of it, because Node takes whatever it is given. */
  async #sendLater(bytes: Uint8Array): Promise<number> {
    const first = await this.#writeThrough(bytes.subarray(0, 1));
    const { fd } = this;
    if (first === 0 || fd === undefined || bytes.length === 1) return first;
    const taken = first + (sendNow(fd, bytes.subarray(1)) ?? 0);
    if (taken < bytes.length) this.#blockedSince = performance.now();
    return taken;
  }

  /** Through Node's stream, which takes the chunk whole. */
  #writeThrough(bytes: Uint8Array): number | Promise<number> {
    this.socket.write(bytes, this.#onWritten);
    // Known at once, told later; and what was refused is not waiting any more.
    if (this.socket.errored) return this.closed.then(() => 0);
    if (this.socket.writableLength === 0) {
      this.#blockedSince = undefined;
      return bytes.length;
    }
    return this.#settleWrite(bytes.length);
  }

  /** It counts as written only once the kernel has all of it. */
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

  /** What is there already, of an accepted socket: Node's stream reads ahead 64 KiB. */
  protected take(limit: number): Uint8Array | undefined {
    if (!this.socket.listenerCount("readable")) {
      this.socket.on("readable", () => this.wakeReader());
    }
    const size = Math.min(limit, this.socket.readableLength);
    // read() with nothing there is what makes the stream start, and see the end.
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
    // Our own send was told of the reset, and with that the kernel forgot it; as on Bun.
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
    this.#end(closed);
  }

  #wakeWriter(): void {
    const writer = this.#writer;
    this.#writer = undefined;
    writer?.();
  }

  /** Whether a reader was waiting. */
  protected wakeReader(): boolean {
    const reader = this.#reader;
    this.#reader = undefined;
    reader?.();
    return reader !== undefined;
  }
}

/**
 * Two buffers in turn, so that the kernel is read into the one while the other's view is still
 * valid: that is the whole read-ahead of an outgoing connection.
 */
class ReadBuffers {
  size: number;
  /** Where the chunk lies that came and was not read; undefined when there is none. */
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
 * Reading on without a stop in between makes Node 1.5 times as fast. Deno 2.9 and Bun 1.4 read into
 * the same buffer again, whatever `onread.buffer` returns.
 */
const MAY_FLOW = runtime === "node";

/** An outgoing connection reads into our own buffers (`onread`): a true pull, of the size asked. */
class NodeClientConnection extends NodeConnection {
  /** A piece of the size that was asked for. */
  override readonly readAhead: number;
  readonly #buffers: ReadBuffers;
  #flowing = false;

  constructor(socket: net.Socket, buffers: ReadBuffers) {
    super(socket);
    this.readAhead = buffers.size;
    this.#buffers = buffers;
  }

  /**
   * Whether Node may read on at once: not while a chunk, or what a shorter read leaves of it, waits
   * for its reader, which may still be looking at the other buffer.
   */
  deliver(chunk: Uint8Array): boolean {
    this.#buffers.chunk = chunk;
    const wanted = this.wakeReader() && chunk.length <= this.#buffers.size;
    return this.#flowing = wanted && MAY_FLOW;
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

  listen({ host, port, onConnection }) {
    return new Promise((resolve, reject) => {
      const server = net.createServer(
        { allowHalfOpen: true, pauseOnConnect: true },
        (socket) => onConnection(new NodeConnection(socket)),
      );
      server.once("error", (error) => {
        reject(new NetError(`cannot listen on ${host}:${port}`, errnoOf(error), error));
      });
      server.listen({ host, port }, () => {
        const { address, port: bound } = server.address() as net.AddressInfo;
        const result: Listener = {
          address: { host: address, port: bound },
          // Its callback waits for the connections as well, which are not the listener's.
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
        host,
        port,
        allowHalfOpen: true,
        onread: {
          buffer: () => buffers.next(),
          callback: (count: number, buffer: Uint8Array) =>
            connection!.deliver(count === buffer.length ? buffer : buffer.subarray(0, count)),
        },
      });
      const onError = (error: unknown) =>
        reject(new NetError(`cannot connect to ${host}:${port}`, errnoOf(error), error));
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
