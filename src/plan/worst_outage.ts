/** When an outage of the reader would need the most room. */
import type { Outage } from "./backlog_curve.ts";
import { endOf, type Feed } from "./feed.ts";

/**
 * The outage of this length after which the backlog becomes largest; `limit` is what the reader takes
 * otherwise, bytes a second. With A(t) for what has arrived until t and F(t) = A(t) - limit t, the
 * largest backlog of an outage that begins at o is
 *
 *     limit * seconds - min F(s) for s <= o + max F(t) for t >= o + seconds
 *
 * F is linear between two arrivals, so that only outages are tried that begin or end at one.
 */
export function worstOutage(feed: Feed, limit: number, seconds: number): Outage {
  const times: number[] = [0];
  const excess: number[] = [0];
  let arrived = 0;
  const add = (at: number) => {
    times.push(at);
    excess.push(arrived - limit * at);
  };
  for (const arrival of feed.arrivals) {
    add(arrival.at);
    arrived += arrival.bytes;
    add(arrival.at + arrival.seconds);
  }
  const end = endOf(feed);
  const lowest = [...excess];
  for (let i = 1; i < lowest.length; i++) lowest[i] = Math.min(lowest[i - 1]!, lowest[i]!);
  const highest = [...excess];
  for (let i = highest.length - 2; i >= 0; i--) highest[i] = Math.max(highest[i + 1]!, highest[i]!);

  /** F at any time, and the number of corners up to it. */
  const at = (time: number): { value: number; upTo: number } => {
    const upTo = firstAfter(times, time);
    if (time >= end) {
      return { value: excess.at(-1)! + (feed.afterwards - limit) * (time - end), upTo };
    }
    const [t0, t1] = [times[upTo - 1]!, times[upTo]!];
    const share = (time - t0) / (t1 - t0);
    return { value: excess[upTo - 1]! * (1 - share) + excess[upTo]! * share, upTo };
  };
  let worst: Outage = { at: 0, seconds };
  let most = -Infinity;
  for (const start of candidates(times, seconds)) {
    const begin = at(start);
    const back = at(start + seconds);
    const least = Math.min(lowest[begin.upTo - 1]!, begin.value);
    const largest = Math.max(highest[back.upTo] ?? -Infinity, back.value);
    if (largest - least > most * (1 + 1e-12)) {
      most = largest - least;
      worst = { at: start, seconds };
    }
  }
  return worst;
}

function candidates(times: readonly number[], seconds: number): number[] {
  return [...times, ...times.map((time) => time - seconds).filter((time) => time > 0)];
}

/** The index of the first of these sorted times that is later. */
function firstAfter(times: readonly number[], time: number): number {
  let low = 0;
  let high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle]! > time) high = middle;
    else low = middle + 1;
  }
  return low;
}
