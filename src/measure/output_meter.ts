/** What one reader has drained, by what it has put out. */
import type { Message } from "../message/message.ts";
import { formatOutputPlace, type Output } from "../output/output.ts";
import type { OutputCounter } from "../output/output_counter.ts";
import type { Flood } from "../send/flood.ts";
import { Meter, type Reading } from "./meter.ts";
import { ReaderFailed } from "./reader_process.ts";

/**
 * Each message that comes out counts as one that was drained; where the output has no messages, each byte as one.
 * What the reader has taken and not put out counts as waiting in front of it.
 */
export class OutputMeter extends Meter {
  readonly #message: Message;
  readonly #output: Output;

  constructor(flood: Flood, output: Output) {
    super(flood);
    this.#output = output;
    this.#message = flood.message;
  }

  override readDrained(): Reading | undefined {
    return this.read();
  }

  override read(): Reading | undefined {
    const reading = super.read();
    if (reading === undefined) return undefined;
    const { messages, countsBytes } = this.#count();
    const out = countsBytes ? messages : this.#message.offsetOf(messages);
    const { drained: taken, receiveQueue = 0 } = reading;
    const drained = Math.min(taken, out);
    return { ...reading, drained, receiveQueue: receiveQueue + taken - drained };
  }

  /** Throws a ReaderFailed where the output cannot be read. */
  #count(): OutputCounter {
    const { counter, place } = this.#output;
    let error: string | undefined;
    try {
      this.#output.poll();
    } catch (thrown) {
      error = (thrown as Error).message;
    }
    error ??= counter.error;
    if (error === undefined) return counter;
    throw new ReaderFailed(`its output, ${formatOutputPlace(place)}, cannot be read: ${error}`);
  }
}
