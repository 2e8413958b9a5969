/**
 * What a reader and its server say to each other before messages come, and meanwhile: a file with a statement a
 * line. Empty lines and lines that begin with `#` are ignored.
 *
 *     timeout 5s                        # of the statements below; default 10s
 *     expect SUBSCRIBE \w+\n            # waits until the reader has said that (a regular expression)
 *     send +OK\n                        # says this; escapes as in C: \n \r \t \0 \\ \xHH
 *     every 30s send PING\n             # from now on, also between messages
 *     answer ACK (\d+)\n with OK\n      # from now on, each time when the reader says that
 */
import { unescapeBytes } from "../text/escapes.ts";
import { parseDuration, UnitError } from "../text/units.ts";

/** A statement cannot be understood; the message is one line, with its number. */
export class ScriptError extends Error {
  override name = "ScriptError";
}

export type Statement =
  & { line: number }
  & (
    | { kind: "expect"; pattern: RegExp; timeoutMs: number }
    | { kind: "send"; bytes: Uint8Array }
    | { kind: "every"; everyMs: number; bytes: Uint8Array }
    | { kind: "answer"; pattern: RegExp; bytes: Uint8Array }
  );

export type Script = readonly Statement[];

const TIMEOUT_MS = 10_000;
/** More often than this, a heartbeat would be a feed of its own. */
const LEAST_EVERY_MS = 10;
const FORMS = "a statement is expect REGEX, send TEXT, every TIME send TEXT, " +
  "answer REGEX with TEXT or timeout TIME";

/** Throws a ScriptError. */
export function parseScript(text: string): Script {
  const script: Statement[] = [];
  let timeoutMs = TIMEOUT_MS;
  for (const [index, written] of text.split(/\r?\n/).entries()) {
    const line = index + 1;
    const [, word = "", rest = ""] = /^\s*(\S+)(?: (.*))?$/s.exec(written) ?? [];
    if (word === "" || word.startsWith("#")) continue;
    try {
      if (word === "timeout") timeoutMs = parseDuration(rest.trim());
      else script.push({ line, ...parseStatement(word, rest, timeoutMs) });
    } catch (error) {
      if (!(error instanceof UnitError || error instanceof SyntaxError)) throw error;
      throw new ScriptError(`line ${line}: ${error.message}`);
    }
  }
  if (script.length === 0) throw new ScriptError(`has no statement; ${FORMS}`);
  return script;
}

type Parsed = Statement extends infer S ? S extends Statement ? Omit<S, "line"> : never : never;

function parseStatement(word: string, rest: string, timeoutMs: number): Parsed {
  if (word === "expect" && rest !== "") {
    return { kind: "expect", pattern: pattern(rest), timeoutMs };
  }
  if (word === "send" && rest !== "") return { kind: "send", bytes: unescapeBytes(rest) };
  const every = word === "every" ? /^(\S+) send (.+)$/s.exec(rest) : null;
  if (every !== null) {
    const everyMs = parseDuration(every[1]!, { least: LEAST_EVERY_MS });
    return { kind: "every", everyMs, bytes: unescapeBytes(every[2]!) };
  }
  const answer = word === "answer" ? /^(.+) with (.+)$/s.exec(rest) : null;
  if (answer !== null) {
    return { kind: "answer", pattern: pattern(answer[1]!), bytes: unescapeBytes(answer[2]!) };
  }
  throw new UnitError(FORMS);
}

/** Of bytes as characters from 0 to 255. Throws a SyntaxError. */
function pattern(source: string): RegExp {
  const made = new RegExp(source, "g");
  // It would match for ever.
  if (made.test("")) {
    throw new UnitError(`/${source}/ matches nothing at all, too: add what must come`);
  }
  return made;
}
