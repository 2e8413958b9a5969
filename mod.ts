/**
 * speedlimit: how fast a TCP reader can go, and what happens when it can't.
 *
 * ```ts
 * import { findLimit, textMessage } from "speedlimit";
 *
 * const { limit } = await findLimit({
 *   command: ["python3", "my_reader.py", "{host}", "{port}"],
 *   message: textMessage("tick\n"),
 * });
 * console.log(limit); // { lower, upper, messagesPerSecond }, bytes a second
 * ```
 *
 * @module
 */
export { type Place, ProtocolError } from "./src/ack.ts";
export { type AckOptions, OtherStreamError } from "./src/ack_reader.ts";
export type { Ack, DeliveryEvent } from "./src/delivery.ts";
export {
  drain,
  type DrainEnd,
  type DrainHandler,
  type DrainMode,
  type DrainOptions,
  type DrainResult,
  type DrainVerified,
} from "./src/drain.ts";
export { type Environment, environment } from "./src/environment.ts";
export { Flood, type FloodOptions, type Replies } from "./src/flood.ts";
export {
  abort,
  bufferSize,
  type ConnectionState,
  connectionState,
  hasUnread,
  type KernelSource,
  kernelSource,
  kernelSourceReason,
  setBufferSize,
  type SocketState,
  type TcpInfo,
  tcpInfo,
} from "./src/kernel.ts";
export { type Latency, LatencyMeter, type LatencyOptions } from "./src/latency.ts";
export {
  findLimit,
  type LimitEvent,
  type LimitOptions,
  type LimitResult,
  type Purpose,
  type Trial,
} from "./src/limit.ts";
export { formatLimits } from "./src/limit_table.ts";
export {
  ARTICLE_MESSAGE,
  fillerMessage,
  type Message,
  repeatedMessage,
  textMessage,
} from "./src/message.ts";
export {
  type Adapter,
  type Address,
  type Closed,
  type Connection,
  type ConnectOptions,
  type Listener,
  type ListenOptions,
  loadAdapter,
  NetError,
  runtime,
} from "./src/net.ts";
export type { Policy } from "./src/overflow.ts";
export { Schedule, Ticker } from "./src/pacer.ts";
export {
  type Batch,
  type Damage,
  type Queue,
  QueueError,
  QueueFull,
  type QueueReader,
} from "./src/queue.ts";
export type { ReaderId, RelayEvent } from "./src/relay.ts";
export {
  type Effort,
  searchLimit,
  type SearchOptions,
  type SearchResult,
  type TrialOutcome,
} from "./src/search.ts";
export {
  type ReaderTotals,
  serve,
  type ServeEvent,
  type ServeOptions,
  type Server,
  type ServeResult,
} from "./src/serve.ts";
export { FileSource, type FileSourceOptions } from "./src/file_source.ts";
export { FloodSource, type FloodSourceOptions, type SequenceMessage } from "./src/flood_source.ts";
export {
  createFramer,
  type Frame,
  type Framed,
  FrameError,
  type Framer,
  parseFrame,
} from "./src/frame.ts";
export {
  fillSequence,
  type SequenceFill,
  type SequenceTotals,
  SequenceVerifier,
} from "./src/sequence.ts";
export { openSqliteQueue, type SqliteQueueOptions, type SyncMode } from "./src/sqlite_queue.ts";
export type { Sink, Source, SourceEvent } from "./src/source.ts";
export { TcpSource, type TcpSourceOptions } from "./src/tcp_source.ts";
export { judge, type Sample, type VerdictOptions, type VerdictResult } from "./src/verdict.ts";
