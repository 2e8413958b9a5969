/**
 * The drain client: the article's reader, naive or fixed, as a command and as `drain()`.
 *
 *     bun run client.ts --mode naive          # until the server disconnects it
 *     deno task client 127.0.0.1:8000 --handler my_code.ts --json
 */
import { main } from "./src/cli/client.ts";
import { runMain } from "./src/cli/program.ts";

export {
  drain,
  type DrainEnd,
  type DrainHandler,
  type DrainMode,
  type DrainOptions,
  type DrainResult,
  type DrainVerified,
} from "./src/read/drain.ts";

if (import.meta.main) await runMain("client", main);
