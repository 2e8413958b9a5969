/**
 * The readers in other languages (readers/languages/) among the rows of bench/accuracy.ts: which of them
 * hoard, what they are started with, and the messages that they need.
 */
import type { KindCase } from "./accuracy_kinds.ts";
import { type Language, LANGUAGES } from "./readers/languages.ts";

/** Bytes of a line, with its newline. */
const LINE = 64;
/** Lines a second. */
const LINES = 4000;

/** The kinds of each program. */
const KINDS: Record<Language, { hoards: readonly string[]; limit: readonly string[] }> = {
  go: {
    hoards: ["goroutines", "queue", "queue-busy"],
    limit: ["plain", "plain-busy", "channel"],
  },
  java: {
    hoards: ["queue", "queue-busy", "executor"],
    limit: ["plain", "plain-busy", "garbage"],
  },
  erlang: {
    hoards: ["mailbox", "mailbox-busy", "relay"],
    limit: ["plain", "plain-busy", "once"],
  },
  rust: {
    hoards: ["channel", "channel-busy", "pool"],
    limit: ["plain", "plain-busy", "bounded"],
  },
};

export const LANGUAGE_CASES: readonly KindCase[] = LANGUAGES.flatMap((language) =>
  (["hoards", "limit"] as const).flatMap((expected) =>
    KINDS[language][expected].map((kind): KindCase => ({
      ...{ part: "languages", language, kind, expected, args: [] },
      ...{ rate: LINES * LINE, size: LINE },
    }))
  )
);

/** What the program of a case is started with; `seed`: what it draws from, if it draws. */
export function argumentsOf(each: KindCase, seed: number): string[] {
  const { language, kind, rate, args, size = LINE } = each;
  const start = [kind, "{host}", "{port}"];
  // It is told what a line costs, in microseconds, and draws nothing.
  if (language !== undefined) return [...start, String(1e6 * size / rate), ...args];
  return [...start, String(rate), ...args, "--seed", String(seed)];
}

/** The options of `limit` for the messages of a case. */
export function messageOptions({ language, size }: KindCase): string[] {
  if (size === undefined) return [];
  if (language === undefined) return ["--size", String(size)];
  return ["--message", `${"x".repeat(size - 1)}\\n`];
}

/** What a results file says of the programs that are not in C. */
export interface Compilers {
  /** The versions of those that compiled readers. */
  compilers?: readonly string[];
  /** What was not measured, and why. */
  skipped?: readonly string[];
}

/** `Compilers: go version go1.25.4. Skipped: the readers in rust (no rustc). `; empty without any. */
export function formatCompilers({ compilers = [], skipped = [] }: Compilers): string {
  return (compilers.length === 0 ? "" : `Compilers: ${compilers.join(", ")}. `) +
    (skipped.length === 0 ? "" : `Skipped: ${skipped.join(", ")}. `);
}
