/** Decodes `struct tcp_info`, and requests it for a descriptor of this process (0.5 µs). */
import { libc } from "./libc.ts";
import type { TcpInfo } from "./socket_state.ts";

const SIZEOF_TCP_INFO = 256;
/** The struct up to and including tcpi_sndbuf_limited (u64 at 184), which Linux 4.10 added. */
const MIN_TCP_INFO = 192;

/** The struct at `at` in `view`. Undefined where the kernel is older than Linux 4.10. */
export function decodeTcpInfo(view: DataView, at: number, length: number): TcpInfo | undefined {
  if (length < MIN_TCP_INFO) return undefined;
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

const IPPROTO_TCP = 6;
const TCP_INFO = 11;
const infoBuffer = new Uint8Array(SIZEOF_TCP_INFO);
const infoView = new DataView(infoBuffer.buffer);
const lengthBuffer = new Uint8Array(4);
const lengthView = new DataView(lengthBuffer.buffer);

/** TCP_INFO of a descriptor. Undefined without libc, or when it is not a TCP socket. */
export function tcpInfo(fd: number): TcpInfo | undefined {
  if (typeof libc === "string") return undefined;
  lengthView.setUint32(0, SIZEOF_TCP_INFO, true);
  if (libc.getsockopt(fd, IPPROTO_TCP, TCP_INFO, infoBuffer, lengthBuffer) !== 0) return undefined;
  return decodeTcpInfo(infoView, 0, lengthView.getUint32(0, true));
}
