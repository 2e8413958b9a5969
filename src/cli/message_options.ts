/** The options --message and --size, which all commands with a flood share. */
import { ARTICLE_MESSAGE, fillerMessage, type Message, textMessage } from "../message/message.ts";
import { parseBytes, UnitError } from "../text/units.ts";
import { option, UsageError } from "./command_line.ts";

/** The largest message: a whole message is kept in memory. Bytes. */
export const MOST_MESSAGE = 2 ** 28;
/** Pass the values to `chooseMessage`. */
export const MESSAGE_OPTIONS = {
  message: option({
    value: "TEXT",
    help: "text of each message, with the escapes \\n \\t \\r \\0 \\\\ (default Hello World!\\0)",
    parse: parseMessage,
  }),
  size: option({
    value: "SIZE",
    help: "messages of this size instead, of printable filler without a newline",
    parse: (text) => parseBytes(text, { most: MOST_MESSAGE }),
  }),
};

const ESCAPES: Record<string, string> = { n: "\n", t: "\t", r: "\r", "0": "\0", "\\": "\\" };

/** A message from the command line, with escapes as in C. Throws a UnitError. */
export function parseMessage(text: string): Message {
  return textMessage(text.replace(/\\(.?)/gs, (_, letter: string) => {
    const escaped = ESCAPES[letter];
    if (escaped === undefined) {
      throw new UnitError("must use \\n, \\t, \\r, \\0 or \\\\ as escapes");
    }
    return escaped;
  }));
}

/** The message that --message or --size specifies. Throws a UsageError when both are given. */
export function chooseMessage(message: Message | undefined, size: number | undefined): Message {
  if (message !== undefined && size !== undefined) {
    throw new UsageError("--message and --size exclude each other: give one of them");
  }
  return message ?? (size === undefined ? textMessage(ARTICLE_MESSAGE) : fillerMessage(size));
}
