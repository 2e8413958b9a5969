/** Deno.listen and Deno.connect behind the contract of net.ts. */
import { abort, hasUnread, sendNow } from "../kernel/socket_calls.ts";
import { findDescriptor } from "../kernel/descriptor.ts";
import { libc } from "../kernel/libc.ts";
import { type Adapter, type Closed, type Connection, type Listener, NetError } from "./net.ts";
import type { Address } from "../kernel/address.ts";

type DenoError = Error & { code?: string };

const address = (a: Deno.Addr): Address => {
  const { hostname, port } = a as Deno.NetAddr;
  return { host: hostname, port };
};

/** The errno's name, from the code where Deno gives one, else from the class of the error. */
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
 * The descriptor that an accepted connection carries; an outgoing one has none. Not public
 * (denoland/deno#27788): the symbol's description is all there is to know it by.
 */
function accepted(conn: Deno.TcpConn): number | undefined {
  for (let at: object | null = conn; at !== null; at = Object.getPrototypeOf(at)) {
    for (const key of Object.getOwnPropertySymbols(at)) {
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
  readonly held: number | undefined = 0;
  readonly readAhead = 0;
  readonly closed: Promise<Closed>;
  readonly #conn: Deno.TcpConn;
  readonly #end: (closed: Closed) => void;
  #blockedSince: number | undefined;
  #fd: number | undefined;
  #sawEof = false;
  #ended = false;
  #buffer = new Uint8Array(0);

  constructor(conn: Deno.TcpConn) {
    this.#conn = conn;
    this.local = address(conn.localAddr);
    this.remote = address(conn.remoteAddr);
    const { promise, resolve } = Promise.withResolvers<Closed>();
    this.closed = promise;
    this.#end = resolve;
  }

  get fd(): number | undefined {
    if (this.#ended) return undefined;
    return this.#fd ??= accepted(this.#conn) ?? findDescriptor(this.local, this.remote);
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

  /** Waits until the kernel takes some of it, or says why it never will. */
  async #writeLater(bytes: Uint8Array): Promise<number> {
    // A write that the kernel takes at once settles before anyone can look at this.
    this.#blockedSince ??= performance.now();
    try {
      const taken = await this.#conn.write(bytes);
      // A short count comes exactly when the send buffer is full.
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
    // Deno calls shutdown(2) before close(2) (seen in 2.9.6), so that a close with unread bytes
    // would send FIN where close(2) alone sends RST (RFC 2525, 2.17).
    const fd = this.fd;
    if (fd !== undefined && hasUnread(fd)) abort(fd);
    this.#finish(this.#sawEof ? { reason: "eof" } : { reason: "local" });
  }

  reset(): void {
    const fd = this.fd;
    if (fd !== undefined) abort(fd);
    this.#finish({ reason: "local" });
  }

  /** A read or a write was refused; one that our own close interrupted is not news. */
  #fail(error: unknown): void {
    if (this.#ended) return;
    let errno = errnoOf(error);
    // Our own send was told of the reset, and with that the kernel forgot it; as on Bun.
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
    this.#end(closed);
  }
}

export const adapter: Adapter = {
  name: "deno",
  canReset: typeof libc !== "string",

  listen({ host, port, onConnection }) {
    let listener: Deno.TcpListener;
    try {
      listener = Deno.listen({ hostname: host, port });
    } catch (error) {
      return Promise.reject(
        new NetError(`cannot listen on ${host}:${port}`, errnoOf(error), error),
      );
    }
    let open = true;
    const accepting = (async () => {
      while (open) {
        let conn: Deno.TcpConn;
        try {
          conn = await listener.accept();
        } catch {
          // The listener was closed, a peer went away before it was accepted, or descriptors ran
          // out; the last comes back at once, so it must not spin.
          if (open) await new Promise((resolve) => setTimeout(resolve, 10));
          continue;
        }
        onConnection(new DenoConnection(conn));
      }
    })();
    const result: Listener = {
      address: address(listener.addr),
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
      throw new NetError(`cannot connect to ${host}:${port}`, errnoOf(error), error);
    }
  },
};
