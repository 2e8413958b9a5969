/**
 * Socket options of TCP that end a connection whose peer has vanished, on a descriptor of this process.
 * From linux/tcp.h and asm-generic/socket.h. All return false without libc, or when the kernel refuses.
 */
import { intOption, IPPROTO_TCP, setIntOption } from "./socket_calls.ts";

/**
 * A connection without traffic is probed after `idleSeconds`, and then every `intervalSeconds`. It ends
 * (ETIMEDOUT) once that many `probes` were not answered: two minutes after the peer was last heard of.
 */
export const KEEPALIVE = { idleSeconds: 60, intervalSeconds: 10, probes: 6 } as const;

/** The time after which keepalive ends a connection whose peer answers nothing; ms. */
export const SILENCE_MS: number = 1000 *
  (KEEPALIVE.idleSeconds + KEEPALIVE.intervalSeconds * KEEPALIVE.probes);

const SOL_SOCKET = 1;
const SO_KEEPALIVE = 9;
const TCP_KEEPIDLE = 4;
const TCP_KEEPINTVL = 5;
const TCP_KEEPCNT = 6;
const TCP_USER_TIMEOUT = 18;
/** Since Linux 6.15. */
const TCP_RTO_MAX_MS = 44;

/** The kernel's own limits of TCP_RTO_MAX_MS: that of Linux for every connection is the upper one. */
const LEAST_BACKOFF_MS = 1000;
const MOST_BACKOFF_MS = 120_000;

/** Switches SO_KEEPALIVE on, with the times of `KEEPALIVE`. Takes some 2 µs. */
export function keepAlive(fd: number): boolean {
  const { idleSeconds, intervalSeconds, probes } = KEEPALIVE;
  return setIntOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1) &&
    setIntOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, idleSeconds) &&
    setIntOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, intervalSeconds) &&
    setIntOption(fd, IPPROTO_TCP, TCP_KEEPCNT, probes);
}

/** The times of a connection's keepalive as the kernel has them; undefined: it is off, or unknown. */
export function keepAliveOf(
  fd: number,
): { idleSeconds: number; intervalSeconds: number; probes: number } | undefined {
  if (intOption(fd, SOL_SOCKET, SO_KEEPALIVE) !== 1) return undefined;
  const [idleSeconds, intervalSeconds, probes] = [TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT]
    .map((name) => intOption(fd, IPPROTO_TCP, name) ?? 0) as [number, number, number];
  return { idleSeconds, intervalSeconds, probes };
}

/**
 * TCP_USER_TIMEOUT: what we send must be acknowledged within `ms`, else the connection ends
 * (ETIMEDOUT); 0: the kernel's own time. Only for a connection whose peer always reads: Linux also ends
 * one whose peer answers, but keeps its window at zero for so long.
 */
export function setUserTimeout(fd: number, ms: number): boolean {
  return setIntOption(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, Math.round(ms));
}

/** TCP_USER_TIMEOUT of a connection; ms. */
export function userTimeout(fd: number): number | undefined {
  return intOption(fd, IPPROTO_TCP, TCP_USER_TIMEOUT);
}

/**
 * The longest pause between two retransmissions, or between two probes of a zero window, which the
 * kernel otherwise doubles up to 120 s. Rounded up to 1 s; from 120 s on nothing is changed.
 */
export function limitBackoff(fd: number, ms: number): boolean {
  if (ms >= MOST_BACKOFF_MS) return true;
  return setIntOption(fd, IPPROTO_TCP, TCP_RTO_MAX_MS, Math.max(LEAST_BACKOFF_MS, Math.round(ms)));
}
