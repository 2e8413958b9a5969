/** Looks up one end of a connection by its addresses, through netlink (sock_diag(7)), in 3 µs. */
import { type Address, addressBytes } from "./address.ts";
import { type Libc, libc } from "./libc.ts";
import type { SocketState } from "./socket_state.ts";
import { decodeTcpInfo } from "./tcp_info.ts";

// From linux/netlink.h, linux/sock_diag.h and linux/inet_diag.h.
const AF_NETLINK = 16;
const SOCK_RAW_CLOEXEC = 3 | 0o2000000;
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

/** A netlink socket that requests single connections, not a dump of the whole table. */
export class SockDiag {
  readonly #libc: Libc;
  readonly #fd: number;
  readonly #request = new Uint8Array(REQUEST_LENGTH);
  readonly #view = new DataView(this.#request.buffer);
  readonly #answer = new Uint8Array(4096);
  readonly #answerView = new DataView(this.#answer.buffer);

  /** Throws an Error where netlink sockets are not permitted. */
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

  /** The end whose own address is `local`. Undefined when there is no such connection. */
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
    // When no connection has these addresses, the kernel returns the listening socket instead.
    if (this.#answer[NLMSGHDR + 1] === TCP_LISTEN) return undefined;
    const state: SocketState = {
      receiveQueue: view.getUint32(NLMSGHDR + 56, true),
      sendQueue: view.getUint32(NLMSGHDR + 60, true),
      inode: view.getUint32(NLMSGHDR + 68, true),
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

/** Undefined without libc, or where netlink sockets are not permitted. */
export function openSockDiag(): SockDiag | undefined {
  if (typeof libc === "string") return undefined;
  try {
    return new SockDiag(libc);
  } catch {
    return undefined;
  }
}
