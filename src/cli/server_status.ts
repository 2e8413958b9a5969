/** What a running server tells those that watch over it. */
import type { Server } from "../relay/serve.ts";
import type { ServeEvent } from "../relay/serve_event.ts";
import { formatExposition } from "./exposition.ts";
import { EventCounts, serverMetrics } from "./server_metrics.ts";
import type { StatusPages } from "./status_http.ts";

export class ServerStatus implements StatusPages {
  /** Once it listens. */
  server: Server | undefined;
  /** It was told to end, or has nothing more to do. */
  ending = false;
  readonly #counts = new EventCounts();

  count(event: ServeEvent): void {
    this.#counts.add(event);
  }

  metrics(): string {
    return formatExposition(serverMetrics(this.#counts, this.server?.figures?.()));
  }

  notReady(): string | undefined {
    if (this.ending) return "the server is ending";
    if (this.server === undefined) return "the server does not listen yet";
    if (this.server.figures?.().sourceConnected === false) return "the source is not connected";
    return undefined;
  }
}
