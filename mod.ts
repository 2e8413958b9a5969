/**
 * speedlimit: measures how fast a TCP reader can go, and what happens when it cannot keep up.
 *
 * ```ts
 * import { findLimit, textMessage } from "speedlimit";
 *
 * const { limit } = await findLimit({
 *   command: ["python3", "my_reader.py", "{host}", "{port}"],
 *   message: textMessage("tick\n"),
 * });
 * console.log(limit); // { lower, upper, messagesPerSecond }; lower and upper in bytes per second
 * ```
 *
 * @module
 */
export { ProtocolError, type StreamOffset } from "./src/message/protocol.ts";
export { type AckOptions, OtherStreamError } from "./src/read/acknowledger.ts";
export type { Ack, DeliveryEvent } from "./src/relay/delivery_options.ts";
export {
  drain,
  type DrainEnd,
  type DrainHandler,
  type DrainMode,
  type DrainOptions,
  type DrainResult,
  type DrainVerified,
} from "./src/read/drain.ts";
export { type Environment, environment } from "./src/kernel/environment.ts";
export { Flood, type FloodOptions, type Replies } from "./src/send/flood.ts";
export { abort, bufferSize, hasUnread, setBufferSize } from "./src/kernel/socket_calls.ts";
export type { ConnectionState, SocketState, TcpInfo } from "./src/kernel/socket_state.ts";
export {
  connectionState,
  type KernelSource,
  kernelSource,
  kernelSourceReason,
} from "./src/kernel/kernel.ts";
export { tcpInfo } from "./src/kernel/tcp_info.ts";
export { type Latency, LatencyMeter, type LatencyOptions } from "./src/read/latency.ts";
export { findLimit } from "./src/measure/limit.ts";
export type { LimitEvent, LimitOptions } from "./src/measure/limit_options.ts";
export type { LimitResult, Trial, TrialPurpose } from "./src/measure/limit_result.ts";
export { formatLimits } from "./src/report/limit_table.ts";
export {
  ARTICLE_MESSAGE,
  fillerMessage,
  type Message,
  repeatedMessage,
  textMessage,
} from "./src/message/message.ts";
export {
  parseRecording,
  readRecording,
  type Recording,
  RecordingError,
} from "./src/message/recording.ts";
export { TemplateError, templateMessage } from "./src/message/template.ts";
export type { OutputOptions, OutputPlace } from "./src/output/output.ts";
export type { CounterOptions } from "./src/output/output_counter.ts";
export type { OutputResult } from "./src/measure/limit_result.ts";
export { parseScript, type Script, ScriptError, type Statement } from "./src/send/script.ts";
export {
  type Adapter,
  type Closed,
  type Connection,
  type ConnectOptions,
  type Listener,
  type ListenOptions,
  NetError,
} from "./src/net/net.ts";
export type { Address } from "./src/kernel/address.ts";
export { loadAdapter } from "./src/net/load.ts";
export { runtime } from "./src/kernel/runtime.ts";
export type { Policy } from "./src/send/overflow.ts";
export { Schedule, Ticker } from "./src/send/pacer.ts";
export {
  type Batch,
  type Cursor,
  type Damage,
  Fenced,
  type Log,
  type Origin,
  type Queue,
  QueueError,
  QueueFull,
  type StoredBatch,
  Unavailable,
} from "./src/queue/queue.ts";
export type { ReaderId, RelayEvent } from "./src/relay/relay_options.ts";
export { searchLimit } from "./src/measure/search.ts";
export type { SearchOptions, SearchResult } from "./src/measure/search_result.ts";
export type { Judged, Lab, Offered, SearchPhase } from "./src/measure/lab.ts";
export type { HiddenBacklog } from "./src/measure/hidden_backlog.ts";
export type { ReaderTotals } from "./src/relay/feeder.ts";
export type { Rejection } from "./src/relay/rejection.ts";
export type { LogFigures, ReaderFigures, ServerFigures } from "./src/relay/figures.ts";
export type { ServeEvent, ServeResult } from "./src/relay/serve_event.ts";
export { serve, type Server } from "./src/relay/serve.ts";
export type { ServeOptions } from "./src/relay/serve_options.ts";
export { FileSource, type FileSourceOptions } from "./src/source/file_source.ts";
export {
  FloodSource,
  type FloodSourceOptions,
  type NumberedMessage,
} from "./src/source/flood_source.ts";
export { createFramer, parseFrame } from "./src/message/frame.ts";
export { type Frame, type Framed, FrameError, type Framer } from "./src/message/framer.ts";
export {
  fillNumbered,
  type NumberedFill,
  type NumberedTotals,
  NumberedVerifier,
} from "./src/message/numbered.ts";
export { type DiskQueueOptions, openDiskQueue, type SyncMode } from "./src/queue/disk_queue.ts";
export type { OnBadFrame, Sink, Source, SourceEvent } from "./src/source/source.ts";
export { TcpSource, type TcpSourceOptions } from "./src/source/tcp_source.ts";
export {
  Backlog,
  type BacklogOptions,
  type BacklogVerdict,
  type Blame,
  type Sample,
} from "./src/measure/backlog.ts";
export { type MapEvent, type MapOptions, measureMap } from "./src/burst/map.ts";
export type { Hysteresis, MapRate, MapResult } from "./src/burst/map_result.ts";
export type { Cell, CellResult } from "./src/burst/cell.ts";
export type { Chance, Tries } from "./src/burst/survival.ts";
export { type Disconnects, type Help, type Plan, plan, type PlanOptions } from "./src/plan/plan.ts";
export { type Arrival, type Feed, steadyFeed } from "./src/plan/feed.ts";
export { parseTrace, TraceError, type TraceOptions } from "./src/plan/trace.ts";
export type { Deadlines, Passed } from "./src/send/deadlines.ts";
export type { Unread, UnreadEvent } from "./src/send/unread.ts";
export type { Drift } from "./src/measure/service.ts";
