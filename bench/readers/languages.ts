/**
 * The readers of lines in other languages (languages/), compiled when they are first used.
 *
 * @module
 */
import { promises as fs } from "node:fs";
import { hasCode, keepCompiled, run } from "./compile.ts";

export const LANGUAGES = ["go", "java", "erlang", "rust"] as const;
export type Language = typeof LANGUAGES[number];

/** How a language's reader is compiled and started. */
interface Toolchain {
  source: string;
  /** What prints its version, and shows that it is there. */
  version: readonly string[];
  /** Compiles the source into an empty folder. */
  compile(source: string, folder: string): string[];
  /** Starts what is in that folder; the reader's arguments follow. */
  start(folder: string): string[];
}

/** The number of the release, which `erl` has no option for. */
const PRINT_OTP = 'io:format("Erlang/OTP ~s~n", [erlang:system_info(otp_release)]), halt().';

const TOOLCHAINS: Record<Language, Toolchain> = {
  go: {
    source: "lines.go",
    version: ["go", "version"],
    compile: (source, folder) => ["go", "build", "-o", `${folder}/lines`, source],
    start: (folder) => [`${folder}/lines`],
  },
  java: {
    source: "Lines.java",
    version: ["java", "--version"],
    compile: (source, folder) => ["javac", "-d", folder, source],
    start: (folder) => ["java", "-cp", folder, "Lines"],
  },
  erlang: {
    source: "lines.erl",
    version: ["erl", "-noinput", "-eval", PRINT_OTP],
    compile: (source, folder) => ["erlc", "-o", folder, source],
    start: (folder) => ["erl", "-noinput", "-pa", folder, "-run", "lines", "main"],
  },
  rust: {
    source: "lines.rs",
    version: ["rustc", "--version"],
    compile: (source, folder) => {
      return ["rustc", "--edition", "2021", "-O", "-o", `${folder}/lines`, source];
    },
    start: (folder) => [`${folder}/lines`],
  },
};

/** The reader of a language: what starts it, before its arguments, and what compiled it. */
export interface LanguageReader {
  command: string[];
  /** Such as `rustc 1.91.0 (f8297e351 2025-10-28)`. */
  version: string;
}

/**
 * Compiles the reader of a language unless that was done before (see `compileC`). Where a program that
 * this needs is not installed: says so, instead of a reader.
 *
 * On Deno this needs what `compileC` needs, with the programs of the language instead of `cc`.
 *
 * @param runs Runs a program and resolves to its standard output.
 * @throws {Error} With a message of one line, where compiling fails.
 */
export async function languageReader(
  language: Language,
  runs: (command: readonly string[]) => Promise<string> = run,
): Promise<LanguageReader | { missing: string }> {
  const { source, version, compile, start } = TOOLCHAINS[language];
  const path = decodeURIComponent(new URL(`languages/${source}`, import.meta.url).pathname);
  const text = await fs.readFile(path, "utf8");
  let program = version[0]!;
  try {
    const [printed = ""] = (await runs(version)).split("\n");
    const madeFrom = [text, printed, compile("", "")];
    const folder = await keepCompiled(`lines-${language}`, madeFrom, async (unfinished) => {
      await fs.mkdir(unfinished);
      const command = compile(path, unfinished);
      program = command[0]!;
      await runs(command);
    });
    return { command: start(folder), version: printed };
  } catch (cause) {
    if (hasCode(cause, "ENOENT")) return { missing: `no ${program}` };
    const lines = (cause instanceof Error ? cause.message : String(cause)).trim().split("\n");
    const reason = lines.find((line) => /\berror\b/.test(line)) ?? lines.at(-1);
    throw new Error(`cannot compile ${source} with ${program}: ${reason}`, { cause });
  }
}
