/** The options for the messages of a flood, which all commands with a flood share. */
import { resolve } from "node:path";
import { parseFrame } from "../message/frame.ts";
import type { Frame } from "../message/framer.ts";
import { ARTICLE_MESSAGE, fillerMessage, type Message, textMessage } from "../message/message.ts";
import { describeRecording, readRecording, RecordingError } from "../message/recording.ts";
import { TemplateError, templateMessage } from "../message/template.ts";
import { unescape } from "../text/escapes.ts";
import { parseBytes } from "../text/units.ts";
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
  replay: option({
    value: "FILE",
    help: "the messages of this file instead, in order, and again from its start",
    parse: (text) => resolve(text),
  }),
  template: option({
    value: "TEXT",
    help: "messages made from this text instead; {seq}, {time}, {crc}, {pad:N} and {pick:a|b|c} " +
      "in it are replaced in each message",
    parse: unescape,
  }),
};

/** For the commands whose `--frame` is only for these messages. */
export const FRAME_OPTION = option({
  value: "FRAME",
  help:
    "how messages of --replay and --template are delimited: line, fixed:N bytes, u32 or octet " +
    "(a length before each message) or none (default line)",
  parse: parseFrame,
});

/** What the options above give. */
export interface MessageChoice {
  message?: Message | undefined;
  size?: number | undefined;
  replay?: string | undefined;
  template?: string | undefined;
  frame?: Frame | undefined;
}

/** A message from the command line, with escapes as in C. Throws a UnitError. */
export function parseMessage(text: string): Message {
  return textMessage(unescape(text));
}

const LINE: Frame = { kind: "line" };

/**
 * The messages that the options specify. `say` takes a line about them. Throws a UsageError when more than one
 * of the options is given, or nothing can be sent.
 */
export function chooseMessage(choice: MessageChoice, say: (line: string) => void): Message {
  const { message, size, replay, template, frame } = choice;
  const given = (["message", "size", "replay", "template"] as const)
    .filter((name) => choice[name] !== undefined);
  if (given.length > 1) {
    throw new UsageError(`--${given[0]} and --${given[1]} exclude each other: give one of them`);
  }
  try {
    if (replay !== undefined) {
      const recording = readRecording(replay, frame ?? LINE);
      say(describeRecording(replay, recording));
      return recording.message;
    }
    if (template !== undefined) return templateMessage(template, frame ?? LINE);
  } catch (error) {
    if (error instanceof RecordingError) throw new UsageError(`--replay: ${error.message}`);
    if (error instanceof TemplateError) throw new UsageError(`--template ${error.message}`);
    throw error;
  }
  if (frame !== undefined) throw new UsageError("--frame needs --replay FILE or --template TEXT");
  return message ?? (size === undefined ? textMessage(ARTICLE_MESSAGE) : fillerMessage(size));
}
