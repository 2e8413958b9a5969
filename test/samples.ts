/** Samples of a made-up reader. */
import type { Sample } from "../src/measure/backlog.ts";

/**
 * One each 10 ms, for so many seconds, of a reader that is offered `rate` and drains `drains(time)`, both in
 * bytes a second; all that waits is its own. `more`: what is otherwise.
 */
export function* samplesOf(
  rate: number,
  drains: (time: number) => number,
  seconds: number,
  more: (sample: Sample) => Partial<Sample> = () => ({}),
): Generator<Sample> {
  let drained = 0;
  for (let step = 0; step <= seconds * 1000; step++) {
    const time = step / 1000;
    const offered = rate * time;
    drained = Math.min(offered, drained + drains(time) / 1000);
    if (step % 10 !== 0) continue;
    const backlog = offered - drained;
    const sample = { time, backlog, drained, waiting: backlog, late: 0, closed: false };
    yield { ...sample, ...more(sample) };
  }
}
