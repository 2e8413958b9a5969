/** What was surely stored of a stream, and is gone. What a kill may leave out, or a full queue, is not. */
import type { Segment, SegmentDamage } from "./segment.ts";

/** Where something that is stored begins and ends. */
interface Stretch {
  start: number;
  end: number;
}

const GONE = "it was stored when the queue was closed, and is missing";
const BETWEEN = "it was stored between what is before and after it, and is missing";

/** What is gone since a server closed the queue. `damages`: what is known already. */
export function missingSince(
  closed: Stretch,
  segments: readonly Segment[],
  damages: readonly SegmentDamage[],
): SegmentDamage[] {
  const [first] = segments;
  const start = first?.start ?? closed.end;
  const end = segments.at(-1)?.end ?? start;
  const missing: SegmentDamage[] = [];
  if (start > closed.start && !isKnown(damages, closed.start)) {
    missing.push({ offset: closed.start, bytes: start - closed.start, reason: GONE });
  }
  // What is damaged at the end is gone with it.
  if (end < closed.end && !isKnown(damages, end)) {
    missing.push({ offset: end, bytes: closed.end - end, reason: GONE });
  }
  return missing;
}

/** What is gone between segments, which are indexed. */
export function missingBetween(
  segments: readonly Segment[],
  damages: readonly SegmentDamage[],
): SegmentDamage[] {
  return segments.slice(1).flatMap(({ follows = 0 }, i) => {
    const { end } = segments[i]!;
    if (follows <= end || damages.some(({ offset }) => offset === end)) return [];
    return { offset: end, bytes: follows - end, reason: BETWEEN };
  });
}

const isKnown = (damages: readonly SegmentDamage[], from: number): boolean =>
  damages.some(({ offset }) => offset >= from);
