/**
 * Finds peers whose host has vanished: their kernel answers nothing, though there is something that it
 * has to answer. A peer that only does not read is not one: its kernel answers each probe of its window.
 *
 * Not by TCP_USER_TIMEOUT, which ends the connection of a peer with a zero window as well, whatever its
 * kernel answers (tcp_probe_timer in net/ipv4/tcp_timer.c).
 */
import { limitBackoff } from "../kernel/keepalive.ts";
import { peerAnswers } from "../kernel/tcp_info.ts";
import type { Connection } from "./net.ts";

/** How many retransmissions or probes in a row must have had no answer: one may have been lost. */
const LEAST_UNANSWERED = 2;
/** Each connection is asked about so many times within the timeout, but at least every 5 s. */
const CHECKS = 8;
const LONGEST_PAUSE_MS = 5000;
/** So many retransmissions or probes fall into the timeout, where the kernel can be told to. */
const TRIES = 4;

interface Peer {
  /** When it was first seen to owe an answer, or gave its last; ms of `performance.now()`. */
  silentSinceMs: number | undefined;
  /** Called once, with the time that it has been silent; ms. */
  onSilent: (silentMs: number) => void;
}

/** Needs libc: without it no peer is ever silent. */
export class SilentPeers {
  readonly #timeoutMs: number;
  readonly #peers = new Map<Connection, Peer>();
  #timer: ReturnType<typeof setInterval> | undefined;

  /** A peer is silent once it has answered nothing for `timeoutMs`; Infinity: never. */
  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
  }

  /** Watches a connection until the function that is returned is called. */
  watch(connection: Connection, onSilent: (silentMs: number) => void): () => void {
    const { fd } = connection;
    if (this.#timeoutMs === Infinity || fd === undefined) return () => {};
    limitBackoff(fd, this.#timeoutMs / TRIES);
    this.#peers.set(connection, { silentSinceMs: undefined, onSilent });
    this.#timer ??= setInterval(
      () => this.#check(performance.now()),
      Math.min(this.#timeoutMs / CHECKS, LONGEST_PAUSE_MS),
    );
    return () => this.#forget(connection);
  }

  #forget(connection: Connection): void {
    this.#peers.delete(connection);
    if (this.#peers.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #check(nowMs: number): void {
    for (const [connection, peer] of this.#peers) {
      const { fd } = connection;
      const answers = fd === undefined ? undefined : peerAnswers(fd);
      if (answers === undefined || answers.unanswered === 0) {
        peer.silentSinceMs = undefined;
        continue;
      }
      // Not the last answer alone: before this, there may have been nothing to answer for hours.
      peer.silentSinceMs = Math.max(peer.silentSinceMs ?? nowMs, nowMs - answers.sinceAnswerMs);
      const silentMs = nowMs - peer.silentSinceMs;
      if (silentMs < this.#timeoutMs || answers.unanswered < LEAST_UNANSWERED) continue;
      this.#forget(connection);
      peer.onSilent(silentMs);
    }
  }
}
