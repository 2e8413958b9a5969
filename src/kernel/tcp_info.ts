/** Decodes `struct tcp_info`, and requests it for a descriptor of this process (some 0.7 µs). */
import { libc } from "./libc.ts";
import type { TcpInfo } from "./socket_state.ts";
import { IPPROTO_TCP } from "./socket_calls.ts";

const SIZEOF_TCP_INFO = 256;
/** The struct up to and including tcpi_sndbuf_limited (u64 at 184), which Linux 4.10 added. */
const MIN_TCP_INFO = 192;

/** An unsigned 64-bit integer, without the BigInt that DataView would create. */
function u64(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
}

/** The kernel reports ~0 where the rate is not limited (linux/tcp.h: tcpi_pacing_rate). */
function rate(view: DataView, at: number): number {
  const unlimited = view.getUint32(at, true) === 0xffffffff &&
    view.getUint32(at + 4, true) === 0xffffffff;
  return unlimited ? Infinity : u64(view, at);
}

/**
 * The struct at `at` in `view`; offsets from linux/tcp.h. Undefined where the kernel is older than
 * Linux 4.10.
 */
export function decodeTcpInfo(view: DataView, at: number, length: number): TcpInfo | undefined {
  if (length < MIN_TCP_INFO) return undefined;
  const info: TcpInfo = {
    bytesAcked: u64(view, at + 120),
    bytesReceived: u64(view, at + 128),
    notSent: view.getUint32(at + 144, true),
    busyUs: u64(view, at + 168),
    receiveWindowLimitedUs: u64(view, at + 176),
    sendBufferLimitedUs: u64(view, at + 184),
    retransmits: view.getUint32(at + 100, true),
    unackedSegments: view.getUint32(at + 24, true),
    congestionWindow: view.getUint32(at + 80, true),
    slowStartThreshold: view.getUint32(at + 76, true),
    segmentSize: view.getUint32(at + 16, true),
    pacingRate: rate(view, at + 104),
    deliveryRate: u64(view, at + 160),
    deliveryAppLimited: (view.getUint8(at + 7) & 1) !== 0,
    roundTripUs: view.getUint32(at + 68, true),
    leastRoundTripUs: view.getUint32(at + 148, true),
  };
  if (length >= 232) info.sendWindow = view.getUint32(at + 228, true);
  return info;
}

/** Only `bytesReceived` of the struct, as `decodeTcpInfo`. */
export function decodeBytesReceived(
  view: DataView,
  at: number,
  length: number,
): number | undefined {
  return length < MIN_TCP_INFO ? undefined : u64(view, at + 128);
}

const TCP_INFO = 11;
const infoBuffer = new Uint8Array(new ArrayBuffer(SIZEOF_TCP_INFO));
const infoView = new DataView(infoBuffer.buffer);
const lengthBuffer = new Uint8Array(new ArrayBuffer(4));
const lengthView = new DataView(lengthBuffer.buffer);
const [infoMemory, lengthMemory] = typeof libc === "string"
  ? [infoBuffer, lengthBuffer]
  : [libc.pin(infoBuffer), libc.pin(lengthBuffer)];

/** Writes TCP_INFO of a descriptor to `infoBuffer`; its length, 0: it is not a TCP socket. */
function askTcpInfo(fd: number): number {
  if (typeof libc === "string") return 0;
  lengthView.setUint32(0, SIZEOF_TCP_INFO, true);
  if (libc.getsockopt(fd, IPPROTO_TCP, TCP_INFO, infoMemory, lengthMemory) !== 0) return 0;
  return lengthView.getUint32(0, true);
}

/** TCP_INFO of a descriptor. Undefined without libc, or when it is not a TCP socket. */
export function tcpInfo(fd: number): TcpInfo | undefined {
  return decodeTcpInfo(infoView, 0, askTcpInfo(fd));
}

/** From linux/net/tcp_states.h: the connection has ended, though its descriptor is still open. */
const TCP_CLOSE = 7;

/** The same of a connection. Undefined also when it has ended: TCP_INFO would keep its last figures. */
export function openTcpInfo(fd: number): TcpInfo | undefined {
  const length = askTcpInfo(fd);
  return length > 0 && infoBuffer[0] !== TCP_CLOSE ? decodeTcpInfo(infoView, 0, length) : undefined;
}

/** What a peer's kernel has answered. */
export interface PeerAnswers {
  /**
   * tcpi_retransmits or tcpi_probes: retransmissions, or probes of a zero window, since its last answer;
   * 0 also where there is nothing to be sent or acknowledged.
   */
  unanswered: number;
  /** tcpi_last_ack_recv: the time since it last acknowledged anything, also what it had before; ms. */
  sinceAnswerMs: number;
}

/** What the peer of a connection has answered. Undefined without libc, or when it has ended. */
export function peerAnswers(fd: number): PeerAnswers | undefined {
  if (askTcpInfo(fd) < MIN_TCP_INFO || infoBuffer[0] === TCP_CLOSE) return undefined;
  const unacked = infoView.getUint32(24, true);
  const notSent = infoView.getUint32(144, true);
  // Keepalive counts its probes in tcpi_probes too, and ends an idle connection itself.
  const unanswered = unacked + notSent === 0 ? 0 : Math.max(infoBuffer[2]!, infoBuffer[3]!);
  return { unanswered, sinceAnswerMs: infoView.getUint32(56, true) };
}
