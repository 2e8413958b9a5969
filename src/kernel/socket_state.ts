/** What the kernel reports about a connection, from both of its ends. */

/** From `struct tcp_info` (linux/tcp.h); counts in bytes, times in microseconds. */
export interface TcpInfo {
  /** tcpi_bytes_acked; on the end that connected, its SYN counts as one byte more. */
  bytesAcked: number;
  /** tcpi_bytes_received: arrived in order, read by the program or not. */
  bytesReceived: number;
  /** tcpi_notsent_bytes: in the send queue, not sent yet. */
  notSent: number;
  /** tcpi_snd_wnd: the window that the peer last advertised. Absent before Linux 5.4. */
  sendWindow?: number;
  /** tcpi_busy_time: time in which there was data to send or to be acknowledged. */
  busyUs: number;
  /** tcpi_rwnd_limited: the part of `busyUs` in which the peer's window limited sending. */
  receiveWindowLimitedUs: number;
  /** tcpi_sndbuf_limited: the part of `busyUs` in which the send buffer limited sending. */
  sendBufferLimitedUs: number;
  /** tcpi_total_retrans: retransmitted segments. */
  retransmits: number;
  /** tcpi_unacked: segments that were sent and not acknowledged. */
  unackedSegments: number;
  /** tcpi_snd_cwnd: the most segments that congestion control permits to be unacknowledged. */
  congestionWindow: number;
  /** tcpi_snd_ssthresh: congestion window up to which it grows fast; segments. */
  slowStartThreshold: number;
  /** tcpi_snd_mss: the most bytes of a segment that we send. */
  segmentSize: number;
  /** tcpi_pacing_rate: at which the kernel sends at most; bytes a second, Infinity: no limit. */
  pacingRate: number;
  /** tcpi_delivery_rate: at which the peer's kernel last acknowledged; bytes a second. */
  deliveryRate: number;
  /** tcpi_delivery_rate_app_limited: then there was not always something to send. */
  deliveryAppLimited: boolean;
  /** tcpi_rtt: round-trip time, smoothed. */
  roundTripUs: number;
  /** tcpi_min_rtt: the least in the last minutes (net.ipv4.tcp_min_rtt_wlen). */
  leastRoundTripUs: number;
}

/** One end of a connection. */
export interface SocketState {
  /** Bytes that arrived and that the program has not read. */
  receiveQueue: number;
  /** Bytes that the program wrote and that the peer's kernel has not acknowledged. */
  sendQueue: number;
  /**
   * Of the socket: descriptors of processes link to `socket:[INODE]`. 0 without a process; absent where
   * the socket was read through its descriptor.
   */
  inode?: number;
  /** Absent where the kernel does not report it. */
  info?: TcpInfo;
}

/** Both ends; `far` is undefined unless the peer's socket is on this host and in this namespace. */
export interface ConnectionState {
  near: SocketState | undefined;
  far: SocketState | undefined;
}
