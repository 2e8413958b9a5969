/** Looks up one end of a connection by its addresses, through netlink (sock_diag(7)), in some 3 µs. */
import { type Address, addressBytes } from "./address.ts";
import { type Libc, libc, type Memory } from "./libc.ts";
import { openLoopbackPair, retry } from "./loopback_pair.ts";
import type { SocketState } from "./socket_state.ts";
import { decodeBytesReceived, decodeTcpInfo } from "./tcp_info.ts";
import { zoneIndex } from "./zone.ts";

// From linux/netlink.h, linux/sock_diag.h and linux/inet_diag.h.
const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const NETLINK_SOCK_DIAG = 4;
const SOCK_DIAG_BY_FAMILY = 20;
const NLM_F_REQUEST = 1;
const INET_DIAG_INFO = 2;
const MSG_DONTWAIT = 0x40;
const TCP_LISTEN = 10;
const REQUEST_LENGTH = 72;
/** Sizes of `struct nlmsghdr` and `struct inet_diag_msg`: bytes. */
const NLMSGHDR = 16;
const INET_DIAG_MSG = 72;
/** Of a length that no other queue is likely to have. */
const TEST_BYTES = new Uint8Array(1237);

/** Where in `struct inet_diag_msg`: idiag_rqueue and idiag_wqueue. */
const RQUEUE = NLMSGHDR + 56;
const WQUEUE = NLMSGHDR + 60;
/** Answers to earlier requests, left over from a read that failed, that are skipped at most. */
const MOST_STALE = 8;

/** A request for one end of a connection, in the form that the kernel takes. */
export interface EndRequest {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The same, once it has been sent. */
  memory?: Memory;
}

/**
 * The request for the end whose own address is `local`. Encoded once for each connection, because that
 * costs as much as a system call. Undefined for a host name.
 */
export function encodeRequest(local: Address, remote: Address): EndRequest | undefined {
  const source = addressBytes(local.host);
  const destination = addressBytes(remote.host);
  if (source === undefined || destination === undefined) return undefined;
  const request = new Uint8Array(new ArrayBuffer(REQUEST_LENGTH));
  const view = new DataView(request.buffer);
  view.setUint32(0, REQUEST_LENGTH, true);
  view.setUint16(4, SOCK_DIAG_BY_FAMILY, true);
  view.setUint16(6, NLM_F_REQUEST, true);
  request[16] = source.family;
  request[17] = 6; // IPPROTO_TCP
  request[18] = 1 << (INET_DIAG_INFO - 1);
  view.setUint32(20, 0xffffffff, true); // any state
  view.setUint16(24, local.port);
  view.setUint16(26, remote.port);
  request.set(source.bytes, 28);
  request.set(destination.bytes, 44);
  // A socket with a link-local address is bound to an interface.
  view.setUint32(60, zoneIndex(local.host) || zoneIndex(remote.host), true);
  view.setUint32(64, 0xffffffff, true); // INET_DIAG_NOCOOKIE
  view.setUint32(68, 0xffffffff, true);
  return { bytes: request };
}

/** What the program at one end has read since the connection began, and its receive queue; bytes. */
export interface ReadBytes {
  read: number;
  receiveQueue: number;
}

/** A netlink socket that requests single connections, not a dump of the whole table. */
export class SockDiag {
  readonly #libc: Libc;
  readonly #fd: number;
  readonly #answer = new Uint8Array(new ArrayBuffer(4096));
  readonly #answerView = new DataView(this.#answer.buffer);
  readonly #answerMemory: Memory;
  readonly #readBytes: ReadBytes = { read: 0, receiveQueue: 0 };
  #sequence = 0;
  /** Where the last answer has its `struct tcp_info`, and its length; 0: it has none. */
  #infoAt = 0;
  #infoLength = 0;

  /** Throws an Error where netlink sockets are not permitted. */
  constructor(c: Libc) {
    this.#libc = c;
    this.#fd = c.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_SOCK_DIAG);
    if (this.#fd < 0) throw new Error("no netlink socket");
    this.#answerMemory = c.pin(this.#answer);
  }

  close(): void {
    this.#libc.close(this.#fd);
  }

  /** Undefined when there is no such connection. */
  lookup(request: EndRequest | undefined): SocketState | undefined {
    if (request === undefined || !this.#ask(request)) return undefined;
    const view = this.#answerView;
    const state: SocketState = {
      receiveQueue: view.getUint32(RQUEUE, true),
      sendQueue: view.getUint32(WQUEUE, true),
      inode: view.getUint32(NLMSGHDR + 68, true),
    };
    const info = decodeTcpInfo(view, this.#infoAt, this.#infoLength);
    if (info !== undefined) state.info = info;
    return state;
  }

  /**
   * Bytes that the program at this end has read since the connection began: those that arrived, less
   * the receive queue. Undefined when there is no such connection, or no TCP_INFO of it. The object is
   * the same one each time.
   *
   * The kernel reads the queue's length some µs before the other, so bytes that arrive in between may
   * count as read until the next look (inet_diag_msg_common_fill and tcp_get_info).
   */
  readBytes(request: EndRequest | undefined): Readonly<ReadBytes> | undefined {
    if (request === undefined || !this.#ask(request)) return undefined;
    const arrived = decodeBytesReceived(this.#answerView, this.#infoAt, this.#infoLength);
    if (arrived === undefined) return undefined;
    const bytes = this.#readBytes;
    bytes.receiveQueue = this.#answerView.getUint32(RQUEUE, true);
    bytes.read = arrived - bytes.receiveQueue;
    return bytes;
  }

  /** Whether there is an answer to this request; it is then in `#answer`. */
  #ask(request: EndRequest): boolean {
    // Replies carry the number of their request: only then are they of this connection.
    const sequence = this.#sequence = (this.#sequence + 1) & 0x7fffffff;
    const { bytes } = request;
    bytes[8] = sequence;
    bytes[9] = sequence >> 8;
    bytes[10] = sequence >> 16;
    bytes[11] = sequence >> 24;
    const memory = request.memory ??= this.#libc.pin(bytes);
    if (this.#libc.write(this.#fd, memory, REQUEST_LENGTH) !== REQUEST_LENGTH) return false;
    const view = this.#answerView;
    let length = 0;
    for (let stale = 0;; stale++) {
      // The kernel has answered before write(2) returns.
      length = this.#libc.read(this.#fd, this.#answerMemory, this.#answer.length);
      if (length < NLMSGHDR) return false;
      if (view.getUint32(8, true) === sequence) break;
      if (stale === MOST_STALE) return false;
    }
    if (length < NLMSGHDR + INET_DIAG_MSG) return false;
    if (view.getUint16(4, true) !== SOCK_DIAG_BY_FAMILY) return false;
    for (let i = 0; i < 4; i++) {
      if (this.#answer[NLMSGHDR + 4 + i] !== bytes[24 + i]) return false; // The ports.
    }
    // When no connection has these addresses, the kernel returns the listening socket instead.
    if (this.#answer[NLMSGHDR + 1] === TCP_LISTEN) return false;
    this.#infoLength = 0;
    for (let at = NLMSGHDR + INET_DIAG_MSG; at + 4 <= length;) {
      const size = view.getUint16(at, true);
      if (size < 4) break;
      if (view.getUint16(at + 2, true) === INET_DIAG_INFO) {
        this.#infoAt = at + 4;
        this.#infoLength = size - 4;
        break;
      }
      at += (size + 3) & ~3;
    }
    return true;
  }
}

/**
 * Tested once, on a live connection, before it is trusted: a sandbox may offer netlink sockets that
 * answer nothing, or with figures of its own. Takes 0.2 ms. A string says why it cannot be used.
 */
export function openSockDiag(c: Libc | string = libc): SockDiag | string {
  if (typeof c === "string") return c;
  let diag: SockDiag;
  try {
    diag = new SockDiag(c);
  } catch {
    return "sock_diag: netlink sockets are not permitted";
  }
  const problem = findProblem(diag, c);
  if (problem === undefined) return diag;
  diag.close();
  return `sock_diag is not usable: ${problem}`;
}

function findProblem(diag: SockDiag, c: Libc): string | undefined {
  const pair = openLoopbackPair(c);
  if (pair === undefined) return "no connection over loopback can be made to test it";
  try {
    const { near, nearAddress, farAddress } = pair;
    const sent = c.send(near, TEST_BYTES, TEST_BYTES.length, MSG_DONTWAIT);
    if (sent !== TEST_BYTES.length) return "a connection over loopback takes no bytes to test it";
    let seen: SocketState | undefined;
    const right = retry(() => {
      seen = diag.lookup(encodeRequest(farAddress, nearAddress));
      return seen?.receiveQueue === sent ? true : undefined;
    });
    if (seen === undefined) return "it does not find a connection of this process";
    if (!right) return `it reports ${seen.receiveQueue} unread bytes where there are ${sent}`;
    const sender = diag.lookup(encodeRequest(nearAddress, farAddress));
    if (sender === undefined || sender.receiveQueue !== 0) {
      return "it confuses the two ends of a connection";
    }
    return undefined;
  } finally {
    pair.close();
  }
}
