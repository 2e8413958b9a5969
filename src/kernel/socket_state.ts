/** What the kernel tells of one connection, from both of its ends. */

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
