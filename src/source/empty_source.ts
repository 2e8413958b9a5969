/** `--source none`: no new messages, only those in the queue. */
import type { Source } from "./source.ts";

export const EMPTY_SOURCE: Source = { replayable: true, run: () => Promise.resolve(), stop() {} };
