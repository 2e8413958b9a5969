/**
 * What the Linux kernel says of a TCP connection, and the few socket options that no runtime sets.
 *
 * Measured on Linux 6.18: one lookup through netlink takes 3 µs, getsockopt(TCP_INFO) 0.5 µs, one
 * read of /proc/net/tcp some milliseconds. Netlink finds *both* ends of a connection on this host by
 * their addresses, so the reader's receive queue is as cheap to see as our own figures.
 */
import { readFileSync } from "node:fs";
import { type Libc, libc } from "./libc.ts";
import type { Address } from "./net.ts";

/** From `struct tcp_info` (linux/tcp.h); counts in bytes, times in microseconds. */
export interface TcpInfo {
  /** tcpi_bytes_acked; the end that connected counts its SYN as one byte more. */
  bytesAcked: number;
  /** tcpi_bytes_received: arrived in order, whether the program took it or not. */
  bytesReceived: number;
  /** tcpi_notsent_bytes: in the send queue, never sent yet. */
  notSent: number;
  /** tcpi_snd_wnd: the window that the peer advertised last. Absent before Linux 5.4. */
  sendWindow?: number;
  /** tcpi_busy_time: since the start, the time with something to send. */
  busyUs: number;
  /** tcpi_rwnd_limited: of that, the time in which the peer's window was what limited sending. */
  receiveWindowLimitedUs: number;
  /** tcpi_sndbuf_limited: of that, the time in which the send buffer was. */
  sendBufferLimitedUs: number;
  /** tcpi_total_retrans: segments. */
  retransmits: number;
}

/** One end of a connection. What the kernel did not tell is absent. */
export interface SocketState {
  /** Bytes that arrived and were not taken by the program. */
  receiveQueue: number;
  /** Bytes that the program wrote and the peer's kernel has not acknowledged. */
  sendQueue: number;
  info?: TcpInfo;
}

/** Both ends; `far` is there only when the peer's socket is on this host (and in this namespace). */
export interface ConnectionState {
  near: SocketState | undefined;
  far: SocketState | undefined;
}

/** How a figure was had: `sock_diag` (netlink), `proc` (/proc/net/tcp), or `none`. */
export type KernelSource = "sock_diag" | "proc" | "none";

const SIZEOF_TCP_INFO = 256;
/** Up to tcpi_sndbuf_limited (u64 at 184): Linux 4.10. */
const TCP_INFO_LEAST = 192;

function decodeTcpInfo(view: DataView, at: number, length: number): TcpInfo | undefined {
  if (length < TCP_INFO_LEAST) return undefined;
  const u64 = (offset: number) => Number(view.getBigUint64(at + offset, true));
  const info: TcpInfo = {
    bytesAcked: u64(120),
    bytesReceived: u64(128),
    notSent: view.getUint32(at + 144, true),
    busyUs: u64(168),
    receiveWindowLimitedUs: u64(176),
    sendBufferLimitedUs: u64(184),
    retransmits: view.getUint32(at + 100, true),
  };
  if (length >= 232) info.sendWindow = view.getUint32(at + 228, true);
  return info;
}

/** `a.b.c.d` or IPv6 as 16 bytes (IPv4 in the first four), and its family; undefined for a name. */
function addressBytes(host: string): { family: 2 | 10; bytes: Uint8Array } | undefined {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(host);
  const dotted = (mapped?.[1] ?? host).split(".");
  const bytes = new Uint8Array(16);
  if (dotted.length === 4) {
    bytes.set(dotted.map(Number));
    return { family: 2, bytes };
  }
  if (!host.includes(":")) return undefined;
  const [head = "", tail] = host.replace(/%.*$/, "").split("::");
  const groups = (part: string) => part === "" ? [] : part.split(":").map((g) => parseInt(g, 16));
  const left = groups(head);
  const right = tail === undefined ? [] : groups(tail);
  const view = new DataView(bytes.buffer);
  left.forEach((group, i) => view.setUint16(i * 2, group));
  right.forEach((group, i) => view.setUint16(16 - (right.length - i) * 2, group));
  return { family: 10, bytes };
}

/** linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h. */
const AF_NETLINK = 16;
const SOCK_RAW_CLOEXEC = 3 | 0o2000000;
const NETLINK_SOCK_DIAG = 4;
const SOCK_DIAG_BY_FAMILY = 20;
const NLM_F_REQUEST = 1;
const INET_DIAG_INFO = 2;
const MSG_DONTWAIT = 0x40;
const TCP_LISTEN = 10;
const REQUEST_LENGTH = 72;
const NLMSGHDR = 16;
const INET_DIAG_MSG = 72;

/** A netlink socket that looks single connections up: no dump, no walk over the whole table. */
class SockDiag {
  readonly #libc: Libc;
  readonly #fd: number;
  readonly #request = new Uint8Array(REQUEST_LENGTH);
  readonly #view = new DataView(this.#request.buffer);
  readonly #answer = new Uint8Array(4096);
  readonly #answerView = new DataView(this.#answer.buffer);

  constructor(c: Libc) {
    this.#libc = c;
    this.#fd = c.socket(AF_NETLINK, SOCK_RAW_CLOEXEC, NETLINK_SOCK_DIAG);
    if (this.#fd < 0) throw new Error("no netlink socket");
    const view = this.#view;
    view.setUint32(0, REQUEST_LENGTH, true);
    view.setUint16(4, SOCK_DIAG_BY_FAMILY, true);
    view.setUint16(6, NLM_F_REQUEST, true);
    this.#request[17] = 6; // IPPROTO_TCP
    this.#request[18] = 1 << (INET_DIAG_INFO - 1);
    view.setUint32(20, 0xffffffff, true); // any state
    view.setUint32(64, 0xffffffff, true); // INET_DIAG_NOCOOKIE
    view.setUint32(68, 0xffffffff, true);
  }

  /** The end whose own address is `local`. Undefined: the kernel knows no such connection. */
  lookup(local: Address, remote: Address): SocketState | undefined {
    const source = addressBytes(local.host);
    const destination = addressBytes(remote.host);
    if (source === undefined || destination === undefined) return undefined;
    const request = this.#request;
    request[16] = source.family;
    this.#view.setUint16(24, local.port);
    this.#view.setUint16(26, remote.port);
    request.set(source.bytes, 28);
    request.set(destination.bytes, 44);
    const sent = this.#libc.send(this.#fd, request, REQUEST_LENGTH, 0);
    if (sent !== REQUEST_LENGTH) return undefined;
    const length = this.#libc.recv(this.#fd, this.#answer, this.#answer.length, MSG_DONTWAIT);
    const view = this.#answerView;
    if (length < NLMSGHDR + INET_DIAG_MSG) return undefined;
    if (view.getUint16(4, true) !== SOCK_DIAG_BY_FAMILY) return undefined;
    // Where no connection has these addresses, the kernel answers with the listening socket.
    if (this.#answer[NLMSGHDR + 1] === TCP_LISTEN) return undefined;
    const state: SocketState = {
      receiveQueue: view.getUint32(NLMSGHDR + 56, true),
      sendQueue: view.getUint32(NLMSGHDR + 60, true),
    };
    for (let at = NLMSGHDR + INET_DIAG_MSG; at + 4 <= length;) {
      const size = view.getUint16(at, true);
      if (size < 4) break;
      if (view.getUint16(at + 2, true) === INET_DIAG_INFO) {
        const info = decodeTcpInfo(view, at + 4, size - 4);
        if (info !== undefined) state.info = info;
      }
      at += (size + 3) & ~3;
    }
    return state;
  }
}

function openSockDiag(): SockDiag | undefined {
  if (typeof libc === "string") return undefined;
  try {
    return new SockDiag(libc);
  } catch {
    return undefined;
  }
}

const sockDiag = openSockDiag();

/** An address as /proc/net/tcp writes it: 32-bit words in host order (little-endian), in hex. */
function procAddress({ host, port }: Address, family: 4 | 6): string | undefined {
  const address = addressBytes(host);
  if (address === undefined) return undefined;
  let bytes = address.bytes;
  if (address.family === 2) {
    bytes = family === 4
      ? bytes.subarray(0, 4)
      : Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, ...bytes.subarray(0, 4));
  } else if (family === 4) {
    return undefined;
  }
  let text = "";
  for (let word = 0; word < bytes.length; word += 4) {
    for (let i = 3; i >= 0; i--) text += bytes[word + i]!.toString(16).padStart(2, "0");
  }
  return `${text}:${port.toString(16).padStart(4, "0")}`.toUpperCase();
}

function lookupProc(local: Address, remote: Address): ConnectionState {
  const result: ConnectionState = { near: undefined, far: undefined };
  for (const family of [4, 6] as const) {
    const near = procAddress(local, family);
    const far = procAddress(remote, family);
    if (near === undefined || far === undefined) continue;
    let table: string;
    try {
      table = readFileSync(family === 4 ? "/proc/net/tcp" : "/proc/net/tcp6", "latin1");
    } catch {
      continue;
    }
    const find = (from: string, to: string): SocketState | undefined => {
      const at = table.indexOf(`${from} ${to} `);
      if (at < 0) return undefined;
      const queues = /^ \w\w (\w{8}):(\w{8})/.exec(
        table.slice(at + from.length + to.length + 1, at + from.length + to.length + 24),
      );
      if (queues === null) return undefined;
      return { sendQueue: parseInt(queues[1]!, 16), receiveQueue: parseInt(queues[2]!, 16) };
    };
    result.near ??= find(near, far);
    result.far ??= find(far, near);
  }
  return result;
}

function detectSource(): KernelSource {
  if (sockDiag !== undefined) return "sock_diag";
  try {
    readFileSync("/proc/net/tcp", "latin1");
    return "proc";
  } catch {
    return "none";
  }
}

/** Where this process gets its kernel figures from. */
export const kernelSource: KernelSource = detectSource();

/** Why there is no better source than `kernelSource`; undefined where there is nothing better. */
export const kernelSourceReason: string | undefined = typeof libc === "string" ? libc : undefined;

/** Both ends of a connection, as the kernel sees them now. Costs 6 µs, or milliseconds through /proc. */
export function connectionState(local: Address, remote: Address): ConnectionState {
  switch (kernelSource) {
    case "sock_diag":
      return { near: sockDiag!.lookup(local, remote), far: sockDiag!.lookup(remote, local) };
    case "proc":
      return lookupProc(local, remote);
    case "none":
      return { near: undefined, far: undefined };
  }
}

const IPPROTO_TCP = 6;
const TCP_INFO = 11;
const SOL_SOCKET = 1;
const SO_TYPE = 3;
const SO_OPTION = { send: 7, receive: 8 } as const;

const infoBuffer = new Uint8Array(SIZEOF_TCP_INFO);
const infoView = new DataView(infoBuffer.buffer);
const lengthBuffer = new Uint8Array(4);
const lengthView = new DataView(lengthBuffer.buffer);

/** TCP_INFO of a descriptor. Undefined without libc, or when it is no TCP socket. */
export function tcpInfo(fd: number): TcpInfo | undefined {
  if (typeof libc === "string") return undefined;
  lengthView.setUint32(0, SIZEOF_TCP_INFO, true);
  if (libc.getsockopt(fd, IPPROTO_TCP, TCP_INFO, infoBuffer, lengthBuffer) !== 0) return undefined;
  return decodeTcpInfo(infoView, 0, lengthView.getUint32(0, true));
}

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

/** Descriptors are handed out from below, so that a process has its sockets among the first ones. */
const MOST_DESCRIPTORS = 65_536;
const ENDS_IN_A_ROW = 256;

/**
 * The descriptor of a connection of this process, by its addresses: for a runtime that does not tell.
 * 0.1 ms. Undefined without libc, or when it is not found.
 */
export function findDescriptor(local: Address, remote: Address): number | undefined {
  const c = libc;
  if (typeof c === "string") return undefined;
  const address = new Uint8Array(28);
  const view = new DataView(address.buffer);
  const matches = (call: "getsockname" | "getpeername", fd: number, { host, port }: Address) => {
    lengthView.setUint32(0, address.length, true);
    if (c[call](fd, address, lengthBuffer) !== 0) return false;
    const wanted = addressBytes(host);
    if (wanted === undefined || view.getUint16(2) !== port) return false;
    const at = wanted.family === 2 ? (view.getUint16(0, true) === 2 ? 4 : 20) : 8;
    const length = wanted.family === 2 ? 4 : 16;
    return wanted.bytes.subarray(0, length).every((byte, i) => byte === address[at + i]);
  };
  const type = new Uint8Array(4);
  for (let fd = 0, free = 0; fd < MOST_DESCRIPTORS && free < ENDS_IN_A_ROW; fd++) {
    lengthView.setUint32(0, 4, true);
    if (c.getsockopt(fd, SOL_SOCKET, SO_TYPE, type, lengthBuffer) !== 0) {
      free++;
      continue;
    }
    free = 0;
    if (matches("getpeername", fd, remote) && matches("getsockname", fd, local)) return fd;
  }
  return undefined;
}
