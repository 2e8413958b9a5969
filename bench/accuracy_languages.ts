/**
 * The readers in other languages (readers/languages/) among the rows of bench/accuracy.ts: which of them
 * hoard, and what a results file says of their compilers.
 */
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

/** One of these readers. */
export interface LanguageCase {
  language: Language;
  /** The program's first argument. */
  kind: string;
  /** What the result should say of it. */
  expected: "hoards" | "limit";
  /** Its rate, bytes a second. */
  rate: number;
  /** Bytes of a line, with its newline. */
  size: number;
}

export const LANGUAGE_CASES: readonly LanguageCase[] = LANGUAGES.flatMap((language) =>
  (["hoards", "limit"] as const).flatMap((expected) =>
    KINDS[language][expected].map((kind) => {
      return { language, kind, expected, rate: LINES * LINE, size: LINE };
    })
  )
);

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
