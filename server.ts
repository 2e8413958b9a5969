/**
 * The server, as a command and as the function `serve()`.
 *
 *     deno task serve                       # 13-byte messages at 1M/s on 127.0.0.1:8000
 *     bun run server.ts --rate 20MB/s --overflow drop
 */
import { runMain } from "./src/cli/program.ts";
import { main } from "./src/cli/server.ts";

export { serve, type Server } from "./src/relay/serve.ts";
export type { ReaderTotals } from "./src/relay/feeder.ts";
export type { LogFigures, ReaderFigures, ServerFigures } from "./src/relay/figures.ts";
export type { ServeEvent, ServeResult } from "./src/relay/serve_event.ts";
export type { ServeOptions } from "./src/relay/serve_options.ts";

if (import.meta.main) await runMain("server", main);
