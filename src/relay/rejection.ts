/**
 * Why a connection that was accepted is not served.
 * - `handshake`: its first lines were wrong or late, or it ended before they were answered;
 * - `connected`: another one of the same reader is served;
 * - `stream`: the offset that it sent is of another stream;
 * - `names`: too many names of readers are known;
 * - `queue`: what the queue has for it cannot be opened;
 * - `end`: the server is ending.
 */
export type Rejection = "handshake" | "connected" | "stream" | "names" | "queue" | "end";

export class Rejected extends Error {
  readonly why: Rejection;

  constructor(why: Rejection, message: string, cause?: unknown) {
    super(message, { cause });
    this.why = why;
  }
}
