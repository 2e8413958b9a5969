/** Reads results of schema version 1: translates their names and messages into those of version 2. */
import { CONFIRMED } from "../measure/limit_result.ts";
import { REASONS } from "../measure/search_result.ts";
import { printable } from "../text/printable.ts";

const RENAMED_SCHEMAS: Record<string, string> = {
  "speedlimit/limit@1": "speedlimit/limit@2",
  "speedlimit/limits@1": "speedlimit/limits@2",
  "speedlimit/bench@1": "speedlimit/bench@2",
};

/**
 * The messages of search outcomes, in the words of older files and in today's. Older versions did
 * not distinguish why an interval was wide.
 */
const REWORDED_MESSAGES = new Map<unknown, string>([
  ["found and confirmed", CONFIRMED],
  [
    "its own speed varies: trials at the same rates contradicted each other",
    "the reader's speed varies, or the search took long, so the interval is wider than requested",
  ],
  [
    "below lower it always kept up, above upper it always fell behind, in between its trials contradict",
    "trials contradicted each other: the reader kept up in all trials below the interval, " +
    "fell behind in all trials above it, and did both in between",
  ],
  ["its trials took too long to be clear", REASONS.outOfTime],
  ["it keeps up with the highest rate that was asked for", REASONS.highestRate],
  ["it keeps up with all that this sender can make", REASONS.senderLimit],
  ["it falls behind at the lowest rate already", REASONS.tooSlow],
]);

/**
 * Parses the JSON of a result file of schema version 1 or 2, and returns it as version 2. In
 * version 1 a trial had `kept` (now `achieved`) and the verdict `irregular` (now `inconclusive`),
 * and the figures of a reader had `kept` (now `keepsUpAt`). Throws a SyntaxError as JSON.parse
 * does. Whoever wrote the file, its texts come without control characters.
 */
export function parseResult(text: string): unknown {
  return JSON.parse(text, (key, value) => {
    if (key === "schema") return RENAMED_SCHEMAS[value] ?? value;
    if (key === "message") return REWORDED_MESSAGES.get(value) ?? value;
    if (key === "verdict" && value === "irregular") return "inconclusive";
    if (typeof value === "string") return printable(value);
    if (typeof value !== "object" || value === null || !("kept" in value)) return value;
    const { kept, ...rest } = value;
    if ("purpose" in value) return { ...rest, achieved: kept };
    if ("trials" in value) return { ...rest, keepsUpAt: kept };
    return value;
  });
}
