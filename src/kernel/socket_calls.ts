/** Socket calls that no runtime offers, on a descriptor of this process. */
import { libc } from "./libc.ts";

const SOL_SOCKET = 1;
export const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;
/** SO_SNDBUF and SO_RCVBUF. */
const BUFFER_OPTION = { send: 7, receive: 8 } as const;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const FIONREAD = 0x541b;
/** A `struct sockaddr` with the family AF_UNSPEC, which is 0. */
const AF_UNSPEC_ADDRESS = new Uint8Array(16);

const lengthBuffer = new Uint8Array(4);
const lengthView = new DataView(lengthBuffer.buffer);
const queue = new Uint8Array(new ArrayBuffer(4));
const queueView = new DataView(queue.buffer);
const queueMemory = typeof libc === "string" ? queue : libc.pin(queue);

/** A socket option that is an int. Undefined without libc, or when the call fails. */
export function intOption(fd: number, level: number, name: number): number | undefined {
  if (typeof libc === "string") return undefined;
  const value = new Uint8Array(4);
  lengthView.setUint32(0, 4, true);
  if (libc.getsockopt(fd, level, name, value, lengthBuffer) !== 0) return undefined;
  return new DataView(value.buffer).getInt32(0, true);
}

/** Sets it. Returns false when it could not be set. */
export function setIntOption(fd: number, level: number, name: number, value: number): boolean {
  if (typeof libc === "string") return false;
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setInt32(0, value, true);
  return libc.setsockopt(fd, level, name, bytes, 4) === 0;
}

/**
 * SO_SNDBUF or SO_RCVBUF in bytes. The kernel reports twice the size that was set. Undefined without
 * libc, or when the call fails.
 */
export function bufferSize(fd: number, which: "send" | "receive"): number | undefined {
  return intOption(fd, SOL_SOCKET, BUFFER_OPTION[which]);
}

/**
 * Sets SO_SNDBUF or SO_RCVBUF, which ends autotuning (tcp(7)). The kernel limits the value to
 * net.core.wmem_max or rmem_max and then doubles it. Returns false when it could not be set.
 */
export function setBufferSize(fd: number, which: "send" | "receive", bytes: number): boolean {
  return setIntOption(fd, SOL_SOCKET, BUFFER_OPTION[which], bytes);
}

/**
 * Sets TCP_NODELAY (tcp(7)): the last, short segment of what was written is sent at once, and does not wait for
 * the acknowledgement of those before it, which a kernel may delay by 40 ms. Returns false when it could not be set.
 */
export function setNoDelay(fd: number): boolean {
  return setIntOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
}

/**
 * Sets how many connections may wait to be accepted on a socket that listens already: listen(2) may
 * be called again. The kernel limits the value to net.core.somaxconn. Returns false when it could
 * not be set.
 */
export function setListenBacklog(fd: number, connections: number): boolean {
  if (typeof libc === "string") return false;
  return libc.listen(fd, connections) === 0;
}

/** Whether the receive queue contains bytes. Undefined without libc. */
export function hasUnread(fd: number): boolean | undefined {
  if (typeof libc === "string") return undefined;
  return waitingBytes(fd) > 0;
}

/**
 * Offers bytes to the kernel without blocking and without the runtime. Returns how many the kernel
 * took; undefined when it took none, and without libc. It took none because the send buffer is full
 * or because the connection has ended: the runtime's own write tells which. Costs 0.3 µs besides the
 * copying; a promise for each write costs some 10 µs.
 */
export function sendNow(fd: number, bytes: Uint8Array): number | undefined {
  if (typeof libc === "string") return undefined;
  const taken = libc.send(fd, bytes, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL);
  return taken > 0 ? taken : undefined;
}

/**
 * Bytes in the receive queue; 0 also without libc. Uses FIONREAD because a failing recv(2) would
 * clear the socket's pending error, which the runtime must still receive.
 */
export function waitingBytes(fd: number): number {
  if (typeof libc === "string") return 0;
  return libc.ioctl(fd, FIONREAD, queueMemory) === 0 ? queueView.getInt32(0, true) : 0;
}

const SIOCOUTQ = 0x5411;

/** Bytes in the send queue that the peer's kernel has not acknowledged; 0 also without libc. */
export function unackedBytes(fd: number): number {
  if (typeof libc === "string") return 0;
  return libc.ioctl(fd, SIOCOUTQ, queueMemory) === 0 ? queueView.getInt32(0, true) : 0;
}

/**
 * Reads at most `limit` bytes from the receive queue without blocking, and returns how many.
 * Undefined when it is empty, and without libc.
 */
export function receiveNow(fd: number, bytes: Uint8Array, limit: number): number | undefined {
  if (typeof libc === "string") return undefined;
  const taken = libc.recv(fd, bytes, limit, MSG_DONTWAIT);
  return taken > 0 ? taken : undefined;
}

/**
 * Sends RST at once and discards both queues: connect(2) to AF_UNSPEC dissolves the association
 * (tcp_disconnect in net/ipv4/tcp.c). The caller must still close the descriptor. Returns false when
 * it could not be done.
 */
export function abort(fd: number): boolean {
  if (typeof libc === "string") return false;
  return libc.connect(fd, AF_UNSPEC_ADDRESS, AF_UNSPEC_ADDRESS.length) === 0;
}
