/** A TCP connection of this process with itself, made by libc alone: for a test of the kernel. */
import type { Address } from "./address.ts";
import type { Libc } from "./libc.ts";

const AF_INET = 2;
const SOCK_STREAM_NONBLOCK_CLOEXEC = 1 | 0o4000 | 0o2000000;
const HOST = "127.0.0.1";
/** A `struct sockaddr_in`. */
const SOCKADDR_IN = 16;
/** Loopback answers at once, but for a firewall or a loaded machine. */
const LONGEST_MS = 50;

export interface LoopbackPair {
  /** Descriptors of the end that connected, and of the end that accepted. */
  near: number;
  far: number;
  nearAddress: Address;
  farAddress: Address;
  close(): void;
}

/** Calls `attempt` until it returns something, for at most 50 ms; it does not wait in between. */
export function retry<T>(attempt: () => T | undefined): T | undefined {
  const endMs = performance.now() + LONGEST_MS;
  while (true) {
    const result = attempt();
    if (result !== undefined || performance.now() > endMs) return result;
  }
}

/** Takes 0.1 ms. Undefined where the kernel, or a firewall, does not permit it. */
export function openLoopbackPair(c: Libc): LoopbackPair | undefined {
  const open: number[] = [];
  const keep = (fd: number) => {
    if (fd >= 0) open.push(fd);
    return fd;
  };
  const close = () => open.forEach((fd) => c.close(fd));
  const address = Uint8Array.of(AF_INET, 0, 0, 0, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0);
  const length = new Uint8Array(4);
  const own = (fd: number): Address | undefined => {
    new DataView(length.buffer).setUint32(0, SOCKADDR_IN, true);
    if (c.getsockname(fd, address, length) !== 0) return undefined;
    return { host: HOST, port: new DataView(address.buffer).getUint16(2) };
  };
  const listener = keep(c.socket(AF_INET, SOCK_STREAM_NONBLOCK_CLOEXEC, 0));
  const near = keep(c.socket(AF_INET, SOCK_STREAM_NONBLOCK_CLOEXEC, 0));
  if (listener >= 0 && near >= 0) {
    const ready = c.bind(listener, address, SOCKADDR_IN) === 0 && c.listen(listener, 1) === 0;
    const farAddress = ready ? own(listener) : undefined;
    if (farAddress !== undefined) {
      // Not blocking, it returns -1 (EINPROGRESS).
      c.connect(near, address, SOCKADDR_IN);
      const far = retry(() => {
        new DataView(length.buffer).setUint32(0, SOCKADDR_IN, true);
        const fd = c.accept(listener, address, length);
        return fd < 0 ? undefined : keep(fd);
      });
      const nearAddress = far === undefined ? undefined : own(near);
      if (far !== undefined && nearAddress !== undefined) {
        return { near, far, nearAddress, farAddress, close };
      }
    }
  }
  close();
  return undefined;
}
