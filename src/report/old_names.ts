/** Results of schema version 1, read as version 2: the same figures under other names. */

const RENAMED_SCHEMAS: Record<string, string> = {
  "speedlimit/limit@1": "speedlimit/limit@2",
  "speedlimit/limits@1": "speedlimit/limits@2",
  "speedlimit/bench@1": "speedlimit/bench@2",
};

/**
 * A result file's JSON with the names of version 2, whichever version it has. In version 1 a trial
 * had `kept` (now `achieved`) and the verdict `irregular` (now `inconclusive`), and the figures of a
 * reader had `kept` (now `keepsUpAt`). Throws a SyntaxError as JSON.parse does.
 */
export function parseResult(text: string): unknown {
  return JSON.parse(text, (key, value) => {
    if (key === "schema") return RENAMED_SCHEMAS[value] ?? value;
    if (key === "verdict" && value === "irregular") return "inconclusive";
    if (typeof value !== "object" || value === null || !("kept" in value)) return value;
    const { kept, ...rest } = value;
    if ("purpose" in value) return { ...rest, achieved: kept };
    if ("trials" in value) return { ...rest, keepsUpAt: kept };
    return value;
  });
}
