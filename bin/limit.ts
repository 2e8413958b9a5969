/**
 * The speed limit of a reader: at which rate it falls behind.
 *
 *     deno task limit -- python3 my_reader.py {host} {port}
 */
import { main } from "../src/cli/limit.ts";
import { runMain } from "../src/cli/program.ts";

if (import.meta.main) await runMain("limit", main);
