/** Implements the contract of net.ts with Bun.listen and Bun.connect. */
import { formatHostPort } from "../text/units.ts";
import type { Address } from "../kernel/address.ts";
import { KEEPALIVE, keepAlive } from "../kernel/keepalive.ts";
import { setListenBacklog } from "../kernel/socket_calls.ts";
import { withZone } from "../kernel/zone.ts";
import { DirectReads } from "./direct_reads.ts";
import {
  type Adapter,
  type Closed,
  type Connection,
  LISTEN_BACKLOG,
  type Listener,
  NetError,
} from "./net.ts";

// The parts of Bun's API that this file uses. Bun's own type package cannot be used: it redeclares
// globals that Deno's types also declare.
interface BunSocket {
  data: BunConnection;
  readonly localAddress: string;
  readonly localPort: number;
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly fd: number;
  write(bytes: Uint8Array): number;
  pause(): void;
  resume(): void;
  setKeepAlive(enable: boolean, idleMs: number): boolean;
  end(): void;
  shutdown(): void;
  terminate(): void;
}
interface BunHandlers {
  open(socket: BunSocket): void;
  data(socket: BunSocket, chunk: Uint8Array): void;
  drain(socket: BunSocket): void;
  end(socket: BunSocket): void;
  error(socket: BunSocket, error: unknown): void;
  close(socket: BunSocket, error?: unknown): void;
  connectError?(socket: BunSocket, error: unknown): void;
}
interface BunOptions {
  hostname: string;
  port: number;
  allowHalfOpen: boolean;
  socket: BunHandlers;
}
interface BunApi {
  listen(options: BunOptions): { port: number; fd: number; stop(force: boolean): void };
  connect(options: BunOptions): Promise<BunSocket>;
}
const bun = (globalThis as unknown as { Bun: BunApi }).Bun;

/** Bun reads up to this many bytes at a time, whatever is requested (1.4.5; oven-sh/bun#37099). */
const READ_AHEAD = 512 * 1024;

const errnoOf = (error: unknown): string =>
  (error as { code?: string } | undefined)?.code ?? String(error);

/** When the host name does not resolve, the error of Bun.listen has no code (Bun 1.4.5). */
const listenErrnoOf = (error: unknown): string => (error as { code?: string }).code ?? "ENOTFOUND";

class BunConnection implements Connection {
  readonly local: Address;
  readonly remote: Address;
  readonly bufferedBytes: number | undefined = 0;
  readonly readAhead = READ_AHEAD;
  readonly closed: Promise<Closed>;
  readonly #socket: BunSocket;
  readonly #resolveClosed: (closed: Closed) => void;
  readonly #direct: DirectReads;
  /** Delivered by Bun and not read yet. At most one chunk, plus what Bun delivers after a pause. */
  readonly #chunks: Uint8Array[] = [];
  /** Bytes of the first chunk that have been read. */
  #consumed = 0;
  #paused = false;
  #sawEof = false;
  #ended = false;
  #blockedSince: number | undefined;
  #reader: (() => void) | undefined;
  #writer: (() => void) | undefined;

  constructor(socket: BunSocket, directReads: boolean) {
    this.#socket = socket;
    this.#direct = new DirectReads(directReads);
    const fd = () => socket.fd;
    this.local = withZone({ host: socket.localAddress, port: socket.localPort }, fd);
    this.remote = withZone({ host: socket.remoteAddress, port: socket.remotePort }, fd);
    const { promise, resolve } = Promise.withResolvers<Closed>();
    this.closed = promise;
    this.#resolveClosed = resolve;
    if (!keepAlive(socket.fd)) socket.setKeepAlive(true, 1000 * KEEPALIVE.idleSeconds);
    this.#pause();
  }

  get fd(): number | undefined {
    return this.#ended ? undefined : this.#socket.fd;
  }

  get blockedSince(): number | undefined {
    return this.#blockedSince;
  }

  write(bytes: Uint8Array): number | Promise<number> {
    if (this.#ended) return 0;
    const taken = this.#socket.write(bytes);
    if (taken === bytes.length) {
      this.#blockedSince = undefined;
      return taken;
    }
    if (taken < 0) return this.#connectionLost();
    this.#blockedSince ??= performance.now();
    return taken > 0 ? taken : this.#writeLater(bytes);
  }

  /**
   * A negative count means that the socket is dead (oven-sh/bun#36422); while it is paused, Bun emits
   * no further event (seen in 1.4.5). Bun does not report the errno, so it is derived: send(2) fails
   * with EPIPE if the peer had sent its FIN before, else with ECONNRESET first.
   */
  #connectionLost(): number {
    this.finish({ reason: "reset", errno: this.#sawEof ? "EPIPE" : "ECONNRESET" });
    this.#socket.terminate();
    return 0;
  }

  /** The drain event may come early or without free space (oven-sh/bun#37099), so this retries. */
  async #writeLater(bytes: Uint8Array): Promise<number> {
    while (true) {
      await new Promise<void>((resolve) => this.#writer = resolve);
      if (this.#ended) return 0;
      const taken = this.#socket.write(bytes);
      if (taken < 0) return this.#connectionLost();
      if (taken === bytes.length) this.#blockedSince = undefined;
      if (taken > 0) return taken;
    }
  }

  read(limit: number): Uint8Array | null | Promise<Uint8Array | null> {
    const chunk = this.#chunks[0];
    if (chunk === undefined) {
      if (this.#sawEof || this.#ended) return null;
      const direct = this.#direct.active ? this.#direct.readNow(this.#socket.fd, limit) : undefined;
      return direct ?? this.#readLater(limit);
    }
    const rest = chunk.length - this.#consumed;
    if (rest > limit) {
      this.#consumed += limit;
      return chunk.subarray(this.#consumed - limit, this.#consumed);
    }
    this.#chunks.shift();
    const view = this.#consumed === 0 ? chunk : chunk.subarray(this.#consumed);
    this.#consumed = 0;
    return view;
  }

  async #readLater(limit: number): Promise<Uint8Array | null> {
    if (this.#direct.active) {
      if (!this.#paused) this.#pause();
      const chunk = await this.#direct.waitAndRead(() => this.fd, limit);
      if (chunk !== undefined) return chunk;
      if (this.#ended) return this.read(limit);
    }
    if (this.#paused) {
      this.#paused = false;
      this.#socket.resume();
    }
    await new Promise<void>((resolve) => this.#reader = resolve);
    const chunk = this.#chunks[0];
    if (chunk !== undefined) this.#direct.runtimeRead(chunk.length, limit);
    return this.read(limit);
  }

  closeWrite(): Promise<void> {
    if (!this.#ended) this.#socket.shutdown();
    return Promise.resolve();
  }

  close(): void {
    if (this.#ended) return;
    this.finish(this.#sawEof ? { reason: "eof" } : { reason: "local" });
    this.#socket.end();
  }

  reset(): void {
    if (this.#ended) return;
    this.finish({ reason: "local" });
    this.#socket.terminate();
  }

  #pause(): void {
    this.#paused = true;
    this.#socket.pause();
  }

  deliver(chunk: Uint8Array): void {
    this.#chunks.push(chunk);
    const reader = this.#reader;
    this.#reader = undefined;
    if (reader !== undefined) reader();
    else if (!this.#paused) this.#pause();
  }

  drain(): void {
    const writer = this.#writer;
    this.#writer = undefined;
    writer?.();
  }

  eof(): void {
    this.#sawEof = true;
    this.#reader?.();
    this.#reader = undefined;
  }

  fail(error: unknown): void {
    const errno = errnoOf(error);
    const reset = errno === "ECONNRESET" || errno === "EPIPE";
    this.finish({ reason: reset ? "reset" : "error", errno });
  }

  finish(closed: Closed): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#blockedSince = undefined;
    this.#reader?.();
    this.#writer?.();
    this.#resolveClosed(closed);
  }
}

function handlers(
  directReads: boolean,
  onOpen: (connection: BunConnection) => void,
): BunHandlers {
  return {
    open(socket) {
      socket.data = new BunConnection(socket, directReads);
      onOpen(socket.data);
    },
    data: (socket, chunk) => socket.data.deliver(chunk),
    drain: (socket) => socket.data.drain(),
    end: (socket) => socket.data.eof(),
    error: (socket, error) => socket.data.fail(error),
    close(socket, error) {
      if (error !== undefined && error !== null) socket.data.fail(error);
      else socket.data.finish({ reason: "eof" });
    },
  };
}

export const adapter: Adapter = {
  name: "bun",
  canReset: true,

  listen({ host, port, onConnection }) {
    try {
      const listener = bun.listen({
        hostname: host,
        port,
        allowHalfOpen: true,
        socket: handlers(true, onConnection),
      });
      // Bun.listen has no option for it (1.4.5).
      setListenBacklog(listener.fd, LISTEN_BACKLOG);
      const result: Listener = {
        address: { host, port: listener.port },
        close() {
          listener.stop(false);
          return Promise.resolve();
        },
      };
      return Promise.resolve(result);
    } catch (error) {
      return Promise.reject(
        new NetError(
          `cannot listen on ${formatHostPort({ host, port })}`,
          listenErrnoOf(error),
          error,
        ),
      );
    }
  },

  async connect({ host, port, runtimeReads = false }) {
    try {
      const socket = await bun.connect({
        hostname: host,
        port,
        allowHalfOpen: true,
        socket: { ...handlers(!runtimeReads, () => {}), connectError() {} },
      });
      return socket.data;
    } catch (error) {
      throw new NetError(
        `cannot connect to ${formatHostPort({ host, port })}`,
        errnoOf(error),
        error,
      );
    }
  },
};
