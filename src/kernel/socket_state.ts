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
}

/** One end of a connection. */
export interface SocketState {
  /** Bytes that arrived and that the program has not read. */
  receiveQueue: number;
  /** Bytes that the program wrote and that the peer's kernel has not acknowledged. */
  sendQueue: number;
  /** Of the socket: descriptors of processes link to `socket:[INODE]`. 0 without a process. */
  inode: number;
  /** Absent where the kernel does not report it. */
  info?: TcpInfo;
}

/** Both ends; `far` is undefined unless the peer's socket is on this host and in this namespace. */
export interface ConnectionState {
  near: SocketState | undefined;
  far: SocketState | undefined;
}
