/** The stream of a message, put together from its slices. */
import { assert } from "#std/assert";
import type { Message } from "../src/message/message.ts";

/** The first `length` bytes, in slices of at most `limit`. */
export function streamOf(message: Message, length: number, limit: number): Uint8Array {
  const stream = new Uint8Array(length);
  for (let at = 0; at < length;) {
    const slice = message.slice(at, Math.min(limit, length - at));
    assert(slice.length > 0 && slice.length <= limit);
    stream.set(slice, at);
    at += slice.length;
  }
  return stream;
}
