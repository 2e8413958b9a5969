/** The socket calls that no runtime offers, on a descriptor of our own. */
import { libc } from "./libc.ts";

const SOL_SOCKET = 1;
const SO_OPTION = { send: 7, receive: 8 } as const;
const MSG_DONTWAIT = 0x40;

const lengthBuffer = new Uint8Array(4);
const lengthView = new DataView(lengthBuffer.buffer);

/** SO_SNDBUF or SO_RCVBUF as the kernel keeps it: twice what was asked for. Bytes. */
export function bufferSize(fd: number, which: "send" | "receive"): number | undefined {
  if (typeof libc === "string") return undefined;
  const value = new Uint8Array(4);
  lengthView.setUint32(0, 4, true);
  if (libc.getsockopt(fd, SOL_SOCKET, SO_OPTION[which], value, lengthBuffer) !== 0) {
    return undefined;
  }
  return new DataView(value.buffer).getInt32(0, true);
}

/**
 * Sets SO_SNDBUF or SO_RCVBUF, which ends autotuning (tcp(7)); the kernel doubles the value, and
 * caps it at net.core.wmem_max or rmem_max. False: not done.
 */
export function setBufferSize(fd: number, which: "send" | "receive", bytes: number): boolean {
  if (typeof libc === "string") return false;
  const value = new Uint8Array(4);
  new DataView(value.buffer).setInt32(0, bytes, true);
  return libc.setsockopt(fd, SOL_SOCKET, SO_OPTION[which], value, 4) === 0;
}

const AF_UNSPEC_ADDRESS = new Uint8Array(16);

/** Whether bytes lie in the receive queue. Undefined without libc. */
export function hasUnread(fd: number): boolean | undefined {
  if (typeof libc === "string") return undefined;
  return waitingBytes(fd) > 0;
}

const MSG_NOSIGNAL = 0x4000;

/**
 * Offers bytes to the kernel without a wait and without the runtime: how many it took, or undefined
 * when it takes none just now (or never will again: the runtime's own write tells which), or there
 * is no libc. 0.3 us beside the copying, where a promise for each write costs some 10.
 */
export function sendNow(fd: number, bytes: Uint8Array): number | undefined {
  if (typeof libc === "string") return undefined;
  const taken = libc.send(fd, bytes, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL);
  return taken > 0 ? taken : undefined;
}

const FIONREAD = 0x541b;
const unread = new Uint8Array(4);
const unreadView = new DataView(unread.buffer);

/**
 * Bytes in the receive queue; 0 also without libc. A look takes nothing away, as a recv(2) that
 * fails does: the socket's error, which the runtime is to tell.
 */
export function waitingBytes(fd: number): number {
  if (typeof libc === "string") return 0;
  return libc.ioctl(fd, FIONREAD, unread) === 0 ? unreadView.getInt32(0, true) : 0;
}

/** Takes at most `limit` of the bytes that `waitingBytes` tells of; undefined: there are none. */
export function receiveNow(fd: number, bytes: Uint8Array, limit: number): number | undefined {
  if (typeof libc === "string") return undefined;
  const taken = libc.recv(fd, bytes, limit, MSG_DONTWAIT);
  return taken > 0 ? taken : undefined;
}

/**
 * Sends RST at once and drops both queues: connect(2) to AF_UNSPEC dissolves the association
 * (tcp_disconnect in net/ipv4/tcp.c). The descriptor is still to be closed. False: not done.
 */
export function abort(fd: number): boolean {
  if (typeof libc === "string") return false;
  return libc.connect(fd, AF_UNSPEC_ADDRESS, AF_UNSPEC_ADDRESS.length) === 0;
}
