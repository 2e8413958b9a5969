/** Where reports go: to standard output, which may be a terminal, and to files. */
import { writeFileSync } from "node:fs";
import process from "node:process";

/** Of a terminal that does not tell, and of a file. */
const USUAL_WIDTH = 80;

/** Throws an Error of one line where a file cannot be written. */
export function writeText(path: string, text: string): void {
  try {
    writeFileSync(path, text);
  } catch (cause) {
    throw new Error(`cannot write ${path}: ${(cause as Error).message}`, { cause });
  }
}

/** How standard output shows things: a file has no colours, nor has who asked for none. */
export function terminal(): { width: number; color: boolean } {
  const { stdout } = process;
  if (stdout.isTTY !== true) return { width: USUAL_WIDTH, color: false };
  return { width: stdout.columns ?? USUAL_WIDTH, color: !refusesColor() };
}

/** https://no-color.org: set and not empty. */
function refusesColor(): boolean {
  try {
    return (process.env.NO_COLOR ?? "") !== "" || process.env.TERM === "dumb";
  } catch {
    // Deno without --allow-env: it may have been asked for.
    return true;
  }
}
