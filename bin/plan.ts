/**
 * Computes what a feed would do to a reader whose limit is known: backlog, delay, disk, headroom.
 *
 *     deno task plan --limit 20MB/s --rate 5MB/s --peak 40MB/s --for 3s
 */
import { main } from "../src/cli/plan.ts";
import { runMain } from "../src/cli/program.ts";

if (import.meta.main) await runMain("plan", main);
