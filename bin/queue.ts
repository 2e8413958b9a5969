/**
 * Inspects, changes and repairs the durable queue of a server.
 *
 *     deno task queue status feed.queue
 */
import { main } from "../src/cli/queue.ts";
import { runMain } from "../src/cli/program.ts";

if (import.meta.main) await runMain("queue", main);
