/** What a flood sends, as the options say that every command with a flood takes. */
import { option, UsageError } from "./command_line.ts";
import { ARTICLE_MESSAGE, fillerMessage, type Message, textMessage } from "../message/message.ts";
import { parseBytes, UnitError } from "../text/units.ts";

/** A message is kept in memory, and is the unit of every policy. */
export const MOST_MESSAGE = 2 ** 28;
/** See `chooseMessage`. */
export const MESSAGE_OPTIONS = {
  message: option({
    value: "TEXT",
    help: "what each message says; \\n, \\t, \\0 and \\\\ as in C (default Hello World!\\0)",
    parse: parseMessage,
  }),
  size: option({
    value: "SIZE",
    help: "messages of so many bytes instead",
    parse: (text) => parseBytes(text, { most: MOST_MESSAGE }),
  }),
};

const ESCAPES: Record<string, string> = { n: "\n", t: "\t", r: "\r", "0": "\0", "\\": "\\" };

/** A message from the command line, with C's escapes. Throws a UnitError. */
export function parseMessage(text: string): Message {
  return textMessage(text.replace(/\\(.?)/gs, (_, letter: string) => {
    const escaped = ESCAPES[letter];
    if (escaped === undefined) {
      throw new UnitError("must use \\n, \\t, \\r, \\0 or \\\\ as escapes");
    }
    return escaped;
  }));
}

/** The message that two options choose. Throws a UsageError when both do. */
export function chooseMessage(message: Message | undefined, size: number | undefined): Message {
  if (message !== undefined && size !== undefined) {
    throw new UsageError("--message and --size exclude each other: give one of them");
  }
  return message ?? (size === undefined ? textMessage(ARTICLE_MESSAGE) : fillerMessage(size));
}
