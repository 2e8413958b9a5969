/** Implements the contract of net.ts with Deno.listen and Deno.connect. */
import { formatHostPort } from "../text/units.ts";
import type { Address } from "../kernel/address.ts";
import { findDescriptor } from "../kernel/descriptor.ts";
import { keepAlive } from "../kernel/keepalive.ts";
import { libc } from "../kernel/libc.ts";
import { abort, hasUnread, sendNow } from "../kernel/socket_calls.ts";
import { withGivenZone, withZone } from "../kernel/zone.ts";
import {
  type Adapter,
  type Closed,
  type Connection,
  LISTEN_BACKLOG,
  type Listener,
  NetError,
} from "./net.ts";

/** The pause after an accept(2) that has failed. */
const ACCEPT_AGAIN_MS = 10;

/** Of an accept(2) whose peer has already reset its connection: that one is gone, the next may wait. */
const PEER_LEFT: readonly string[] = ["ENOTCONN", "ECONNABORTED"];

type DenoError = Error & { code?: string };

const address = (a: Deno.Addr): Address => {
  const { hostname, port } = a as Deno.NetAddr;
  return { host: hostname, port };
};

/** The errno's name: the error's code where there is one, else derived from the error's class. */
function errnoOf(error: unknown): string {
  const { code, name, message } = error as DenoError;
  if (code !== undefined) return code;
  if (error instanceof Deno.errors.AddrInUse) return "EADDRINUSE";
  if (error instanceof Deno.errors.AddrNotAvailable) return "EADDRNOTAVAIL";
  if (error instanceof Deno.errors.ConnectionRefused) return "ECONNREFUSED";
  if (error instanceof Deno.errors.ConnectionReset) return "ECONNRESET";
  if (error instanceof Deno.errors.BrokenPipe) return "EPIPE";
  if (error instanceof Deno.errors.TimedOut) return "ETIMEDOUT";
  if (/failed to lookup|resolve|Name or service/i.test(message)) return "ENOTFOUND";
  return name;
}

/**
 * The descriptor of an accepted connection; outgoing ones do not have it. The property is not public
 * (denoland/deno#27788), and its symbol can only be recognised by its description.
 */
function acceptedDescriptor(conn: Deno.TcpConn): number | undefined {
  for (let owner: object | null = conn; owner !== null; owner = Object.getPrototypeOf(owner)) {
    for (const key of Object.getOwnPropertySymbols(owner)) {
      if (key.description !== "Deno.internal.fd") continue;
      const fd = (conn as unknown as Record<symbol, unknown>)[key];
      return typeof fd === "number" ? fd : undefined;
    }
  }
  return undefined;
}

class DenoConnection implements Connection {
  readonly local: Address;
  readonly remote: Address;
  readonly bufferedBytes: number | undefined = 0;
  readonly readAhead = 0;
  readonly closed: Promise<Closed>;
  readonly #conn: Deno.TcpConn;
  readonly #resolveClosed: (closed: Closed) => void;
  #blockedSince: number | undefined;
  #fd: number | undefined;
  #sawEof = false;
  #ended = false;
  #buffer = new Uint8Array(0);

  constructor(conn: Deno.TcpConn) {
    this.#conn = conn;
    const local = address(conn.localAddr);
    const remote = address(conn.remoteAddr);
    const fd = () => acceptedDescriptor(conn) ?? findDescriptor(local, remote);
    this.local = withZone(local, fd);
    this.remote = withZone(remote, fd);
    const { promise, resolve } = Promise.withResolvers<Closed>();
    this.closed = promise;
    this.#resolveClosed = resolve;
    // Deno can only switch it on, with the kernel's times (2.9.5).
    if (this.fd === undefined || !keepAlive(this.fd)) conn.setKeepAlive(true);
  }

  get fd(): number | undefined {
    if (this.#ended) return undefined;
    return this.#fd ??= acceptedDescriptor(this.#conn) ?? findDescriptor(this.local, this.remote);
  }

  get blockedSince(): number | undefined {
    return this.#blockedSince;
  }

  write(bytes: Uint8Array): number | Promise<number> {
    if (this.#ended) return 0;
    const { fd } = this;
    const taken = fd === undefined ? undefined : sendNow(fd, bytes);
    if (taken === undefined) return this.#writeLater(bytes);
    this.#blockedSince = taken === bytes.length ? undefined : performance.now();
    return taken;
  }

  /** Waits until the kernel takes some of the bytes, or the connection has ended. */
  async #writeLater(bytes: Uint8Array): Promise<number> {
    // If the kernel takes the bytes at once, this is cleared again before other code can read it.
    this.#blockedSince ??= performance.now();
    try {
      const taken = await this.#conn.write(bytes);
      // Deno writes less than was given only when the send buffer is full.
      if (taken === bytes.length) this.#blockedSince = undefined;
      return taken;
    } catch (error) {
      this.#fail(error);
      return 0;
    }
  }

  async read(limit: number): Promise<Uint8Array | null> {
    if (this.#ended) return null;
    if (this.#buffer.length < limit) this.#buffer = new Uint8Array(limit);
    const into = this.#buffer.length === limit ? this.#buffer : this.#buffer.subarray(0, limit);
    try {
      const count = await this.#conn.read(into);
      if (count === null) {
        this.#sawEof = true;
        return null;
      }
      return count === into.length ? into : into.subarray(0, count);
    } catch (error) {
      this.#fail(error);
      return null;
    }
  }

  async closeWrite(): Promise<void> {
    if (this.#ended) return;
    try {
      await this.#conn.closeWrite();
    } catch (error) {
      this.#fail(error);
    }
  }

  close(): void {
    // Deno calls shutdown(2) before close(2) (seen in 2.9.6). With unread bytes that would send FIN,
    // where close(2) alone sends RST (RFC 2525, 2.17).
    const fd = this.fd;
    if (fd !== undefined && hasUnread(fd)) abort(fd);
    this.#finish(this.#sawEof ? { reason: "eof" } : { reason: "local" });
  }

  reset(): void {
    const fd = this.fd;
    if (fd !== undefined) abort(fd);
    this.#finish({ reason: "local" });
  }

  /** A read or a write failed. Failures after our own close are expected and ignored. */
  #fail(error: unknown): void {
    if (this.#ended) return;
    let errno = errnoOf(error);
    // The kernel reports a reset once, here to our direct send; Deno then sees EPIPE.
    if (errno === "EPIPE" && !this.#sawEof) errno = "ECONNRESET";
    const reset = errno === "ECONNRESET" || errno === "EPIPE";
    this.#finish({ reason: reset ? "reset" : "error", errno });
  }

  #finish(closed: Closed): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#blockedSince = undefined;
    try {
      this.#conn.close();
    } catch {
      // Already closed by the runtime.
    }
    this.#resolveClosed(closed);
  }
}

export const adapter: Adapter = {
  name: "deno",
  canReset: typeof libc !== "string",

  listen({ host, port, onConnection, onAcceptError }) {
    let listener: Deno.TcpListener;
    try {
      listener = Deno.listen({ hostname: host, port, tcpBacklog: LISTEN_BACKLOG });
    } catch (error) {
      return Promise.reject(
        new NetError(`cannot listen on ${formatHostPort({ host, port })}`, errnoOf(error), error),
      );
    }
    let open = true;
    const accepting = (async () => {
      while (open) {
        let conn: Deno.TcpConn;
        try {
          conn = await listener.accept();
        } catch (error) {
          // The listener was closed, a peer disconnected before it was accepted, or there are no
          // free descriptors. The last fails again at once, so wait to avoid a busy loop.
          if (!open) return;
          const errno = errnoOf(error);
          if (PEER_LEFT.includes(errno)) continue;
          onAcceptError?.(errno);
          await new Promise((resolve) => setTimeout(resolve, ACCEPT_AGAIN_MS));
          continue;
        }
        onConnection(new DenoConnection(conn));
      }
    })();
    const result: Listener = {
      address: withGivenZone(address(listener.addr), host),
      async close() {
        if (!open) return;
        open = false;
        listener.close();
        await accepting;
      },
    };
    return Promise.resolve(result);
  },

  async connect({ host, port }) {
    try {
      return new DenoConnection(await Deno.connect({ hostname: host, port }));
    } catch (error) {
      throw new NetError(
        `cannot connect to ${formatHostPort({ host, port })}`,
        errnoOf(error),
        error,
      );
    }
  },
};
