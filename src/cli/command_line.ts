/**
 * Room: the commands: their command lines, their output, their exit statuses.
 * In: `process.argv`, and per command a table of options.
 * Out: typed values, help texts, results on standard output. This file parses command lines; for an
 * invalid one it throws a `UsageError`: one line that says what would be right.
 */
// @ts-types="../types/std_cli.d.ts"
import { parseArgs } from "#std/cli";
// @ts-types="../types/std_text.d.ts"
import { closestString, levenshteinDistance } from "#std/text";
import { UnitError } from "../text/units.ts";

/** The command line is invalid. The message is one line: what was given, and what would be right. */
export class UsageError extends Error {
  override name = "UsageError";
}

/** Not an error: the help was requested. The message is the help text. */
export class HelpRequest extends Error {
  override name = "HelpRequest";
}

/** One option, or one positional argument, with a value of type T. */
export interface Option<T> {
  /** The placeholder for its value in the help, such as `RATE`; undefined: a flag. */
  readonly value: string | undefined;
  /** The text for the help, without the default. It is wrapped. */
  readonly help: string;
  /** The default, as on the command line; it is parsed like a given value. */
  readonly default?: string | undefined;
  /** Names in earlier versions, without the dashes: accepted, but not in the help. */
  readonly oldNames?: readonly string[] | undefined;
  /** Of an earlier version, and accepted: it is not in the help. */
  readonly hidden?: boolean | undefined;
  /** Throws a UnitError whose message says what would be right: "must be ...". */
  readonly parse: (text: string) => T;
}

interface OptionSpec<T> {
  value: string;
  help: string;
  oldNames?: readonly string[];
  hidden?: boolean;
  parse: (text: string) => T;
}

/** An option with a value: `option({ value: "RATE", help: "...", default: "1M/s", parse: parseRate })`. */
export function option<T>(spec: OptionSpec<T> & { default: string }): Option<T>;
/** Without a default, the value is undefined when the option is not given. */
export function option<T>(spec: OptionSpec<T>): Option<T | undefined>;
export function option<T>(spec: OptionSpec<T> & { default?: string }): Option<T | undefined> {
  return spec;
}

/** An option whose value is one of a few words. */
export function choice<const T extends string>(
  spec: { help: string; choices: readonly T[]; default: NoInfer<T> },
): Option<T>;
/** Without a default, the value is undefined when the option is not given. */
export function choice<const T extends string>(
  spec: { help: string; choices: readonly T[] },
): Option<T | undefined>;
export function choice<const T extends string>(
  spec: { help: string; choices: readonly T[]; default?: T },
): Option<T | undefined> {
  const { help, choices } = spec;
  return {
    value: choices.join("|"),
    help,
    default: spec.default,
    parse(text) {
      const found = choices.find((word) => word === text);
      if (found !== undefined) return found;
      const closest = suggestion(text, choices);
      const hint = closest === undefined ? "" : `; did you mean ${closest}?`;
      throw new UnitError(`must be ${listed(choices)}${hint}`);
    },
  };
}

/** An option without a value: true when given, else false. */
export function flag(help: string): Option<boolean> {
  return { value: undefined, help, parse: () => true };
}

/** Options by name, in camelCase: `readSize` is `--read-size` on the command line. */
export type OptionTable = Readonly<Record<string, Option<unknown>>>;

/** The values of a table of options. */
export type Values<Table extends OptionTable> = {
  [Name in keyof Table]: Table[Name] extends Option<infer T> ? T : never;
};

/** The command line that a command accepts. */
export interface CommandSpec<
  Options extends OptionTable,
  Positionals extends OptionTable = Record<never, never>,
> {
  /** The command's name in messages: `client`. */
  name: string;
  /** What the command does. Lines of at most 80 characters; not wrapped. */
  summary: string;
  /** Usage lines. */
  usage: readonly string[];
  options: Options;
  /** Positional arguments in their order. All are optional; without a default they are undefined. */
  positionals?: Positionals;
  /** Help on the command that may follow `--`; undefined: nothing may follow. */
  command?: string;
}

/** A parsed command line. */
export interface CommandLine<Options extends OptionTable, Positionals extends OptionTable> {
  options: Values<Options>;
  positionals: Values<Positionals>;
  /** The options that were given, as opposed to defaulted. */
  given: ReadonlySet<keyof Options>;
  /** The arguments after `--`, unchanged; undefined when there was no `--`. */
  command: string[] | undefined;
}

/**
 * Parses a command line. Throws a UsageError, or a HelpRequest when `--help` or `-h` is given before
 * any `--`.
 */
export function parseCommandLine<
  Options extends OptionTable,
  Positionals extends OptionTable = Record<never, never>,
>(
  spec: CommandSpec<Options, Positionals>,
  args: readonly string[],
): CommandLine<Options, Positionals> {
  const { own: asGiven, command } = splitCommand(spec, args);
  const own = withCurrentNames(asGiven, spec.options);
  if (own.includes("--help") || own.includes("-h")) throw new HelpRequest(formatHelp(spec));
  const names = new Map(Object.keys(spec.options).map((name) => [dashed(name), name]));
  const isFlag = (name: string) => spec.options[names.get(name)!]!.value === undefined;
  const strings = [...names.keys()].filter((name) => !isFlag(name));
  const parsed = parseArgs(joinValues(own, new Set(strings), names), {
    string: ["_", ...strings],
    boolean: [...names.keys()].filter(isFlag),
    collect: [...names.keys()],
    unknown(argument, key) {
      if (key === undefined) return true;
      throw new UsageError(unknownOption(argument, [...names.keys()]));
    },
  });

  const given = new Set<keyof Options>();
  const options: Record<string, unknown> = {};
  for (const [flagName, name] of names) {
    const texts = parsed[flagName] as (string | boolean)[];
    const { value, default: fallback, parse } = spec.options[name]!;
    if (texts.length > 1) throw new UsageError(`--${flagName} is given ${times(texts.length)}`);
    const [text] = texts;
    if (text !== undefined) given.add(name);
    if (value === undefined) options[name] = text === true;
    else if (text === "") throw new UsageError(`--${flagName} needs a value: ${value}`);
    else options[name] = valueOf(`--${flagName}`, (text as string | undefined) ?? fallback, parse);
  }

  const positionals: Record<string, unknown> = {};
  const rest = parsed._.map(String);
  for (
    const [name, { value, default: fallback, parse }] of Object.entries(spec.positionals ?? {})
  ) {
    positionals[name] = valueOf(value ?? name, rest.shift() ?? fallback, parse);
  }
  if (rest.length > 0) {
    const accepted = Object.values(spec.positionals ?? {}).map(({ value }) => value).join(" ");
    throw new UsageError(
      `${quoted(rest[0]!)} is one argument too many: takes ${accepted || "options only"}`,
    );
  }
  if (command !== undefined && spec.command === undefined) {
    throw new UsageError("nothing may follow --");
  }
  return {
    options: options as Values<Options>,
    positionals: positionals as Values<Positionals>,
    given,
    command,
  };
}

/**
 * Separates our own arguments from the command after `--`. If we accept no positional arguments, the
 * first one starts the command even without `--`, because `bun run` and `npm run` remove a leading `--`
 * (Bun 1.4.5).
 */
function splitCommand<Options extends OptionTable, Positionals extends OptionTable>(
  spec: CommandSpec<Options, Positionals>,
  args: readonly string[],
): { own: readonly string[]; command: string[] | undefined } {
  let at = 0;
  if (spec.command === undefined || spec.positionals !== undefined) {
    at = args.indexOf("--");
    if (at < 0) return { own: args, command: undefined };
  } else {
    const withValue = Object.keys(spec.options)
      .filter((name) => spec.options[name]!.value !== undefined)
      .flatMap((name) => [dashed(name), ...spec.options[name]!.oldNames ?? []])
      .map((name) => `--${name}`);
    while (args[at]?.startsWith("-") && args[at] !== "--") {
      const next = args[at + 1];
      const hasValue = withValue.includes(args[at]!) &&
        (!next?.startsWith("-") || DASHED_VALUE.test(next));
      at += hasValue ? 2 : 1;
    }
    if (at >= args.length) return { own: args, command: undefined };
    if (args[at] !== "--") return { own: args.slice(0, at), command: args.slice(at) };
  }
  return { own: args.slice(0, at), command: args.slice(at + 1) };
}

/** Replaces names of earlier versions with the current ones. */
function withCurrentNames(args: readonly string[], options: OptionTable): readonly string[] {
  const currentNames = new Map(
    Object.entries(options).flatMap(([name, { oldNames = [] }]) =>
      oldNames.map((old) => [old, dashed(name)] as const)
    ),
  );
  return args.map((argument) => {
    const [, old, value = ""] = /^--([^=]+)(=.*)?$/s.exec(argument) ?? [];
    const name = old === undefined ? undefined : currentNames.get(old);
    return name === undefined ? argument : `--${name}${value}`;
  });
}

/**
 * Joins an option and its value with `=` where parseArgs would misread them: it would take `-5` in
 * `--rate -5` for an option, and so `-` in `--source -`, and an empty value for a positional argument.
 * Throws a UsageError for a flag with a value, which parseArgs would accept as true.
 */
function joinValues(
  args: readonly string[],
  strings: ReadonlySet<string>,
  names: ReadonlyMap<string, string>,
): string[] {
  const joined: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const argument = args[i]!;
    const next = args[i + 1];
    const name = argument.startsWith("--") ? argument.slice(2) : "";
    // parseArgs would take this for its own list of positional arguments.
    if (/^--?_/.test(argument)) throw new UsageError(unknownOption(argument, [...names.keys()]));
    const flagName = /^--([^=]+)=/.exec(argument)?.[1] ?? name;
    if (names.has(flagName) && !strings.has(flagName)) {
      if (flagName !== name || next === "true" || next === "false") {
        throw new UsageError(`--${flagName} takes no value`);
      }
    }
    if (strings.has(name) && next !== undefined && (next === "" || DASHED_VALUE.test(next))) {
      joined.push(`${argument}=${next}`);
      i++;
    } else {
      joined.push(argument);
    }
  }
  return joined;
}

function valueOf<T>(what: string, text: string | undefined, parse: (text: string) => T) {
  if (text === undefined) return undefined;
  try {
    return parse(text);
  } catch (error) {
    if (!(error instanceof UnitError)) throw error;
    throw new UsageError(`${what} ${quoted(text)} ${error.message}`, { cause: error });
  }
}

function unknownOption(argument: string, known: readonly string[]): string {
  const name = /^-*(?:no-)?([^=]*)/.exec(argument)![1]!;
  const closest = suggestion(name, ["help", ...known]);
  const hint = closest === undefined ? "" : `; did you mean --${closest}?`;
  return `unknown option ${quoted(argument.replace(/=.*/s, ""))}${hint}`;
}

/** The known word that was probably meant; undefined if none is similar. */
function suggestion(word: string, known: readonly string[]): string | undefined {
  if (word.length < 2 || word.length > 30) return undefined;
  const longer = known.filter((each) => each.startsWith(word));
  if (longer.length === 1) return longer[0];
  const closest = closestString(word, known);
  // Two swapped letters have a distance of two.
  const maxDistance = word.length < 4 ? 1 : Math.max(2, Math.floor(word.length / 3));
  return levenshteinDistance(word.toLowerCase(), closest) <= maxDistance ? closest : undefined;
}

/** What was typed, quoted for an error message, and shortened to 60 characters. */
function quoted(text: string): string {
  return JSON.stringify(text.length > 60 ? `${text.slice(0, 57)}...` : text);
}

/** A value that begins with a dash: a negative number, or `-` for standard input. */
const DASHED_VALUE = /^-(?:[\d.]|$)/;
const dashed = (name: string) => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
const times = (count: number) => count === 2 ? "twice" : `${count} times`;
/** `a, b or c` */
export const listed = (words: readonly string[]): string =>
  words.length < 2 ? words.join() : `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`;

/** Help texts are wrapped to this width. */
const HELP_COLUMNS = 80;
/** Longer option names are on a line of their own. */
const MAX_NAME_COLUMNS = 26;

/** Lines of at most `columns` characters. A longer word gets a line of its own. */
function wrap(text: string, columns: number): string[] {
  const lines = [""];
  for (const word of text.split(" ")) {
    const line = lines.at(-1)!;
    if (line === "") lines[lines.length - 1] = word;
    else if (line.length + 1 + word.length <= columns) lines[lines.length - 1] = `${line} ${word}`;
    else lines.push(word);
  }
  return lines;
}

/** The help text: summary, usage, and the options with their defaults. */
export function formatHelp<Options extends OptionTable, Positionals extends OptionTable>(
  spec: CommandSpec<Options, Positionals>,
): string {
  const rows: [string, string][] = [];
  const add = (
    left: string,
    { help, default: fallback }: Pick<Option<unknown>, "help" | "default">,
  ) => rows.push([left, fallback === undefined ? help : `${help} (default ${fallback})`]);
  for (const entry of Object.values<Option<unknown>>(spec.positionals ?? {})) {
    add(entry.value!, entry);
  }
  for (const [name, entry] of Object.entries<Option<unknown>>(spec.options)) {
    if (entry.hidden) continue;
    add(`--${dashed(name)}${entry.value === undefined ? "" : ` ${entry.value}`}`, entry);
  }
  if (spec.command !== undefined) add("-- COMMAND", { help: spec.command });
  add("--help, -h", { help: "prints this help" });
  const width = Math.min(MAX_NAME_COLUMNS, Math.max(...rows.map(([left]) => left.length)));
  const gap = " ".repeat(width + 4);
  const lines = rows.flatMap(([left, help]) => {
    const text = wrap(help, HELP_COLUMNS - gap.length).map((line) => gap + line);
    if (left.length > width) return [`  ${left}`, ...text];
    return [`  ${left.padEnd(width)}  ${text[0]!.trimStart()}`, ...text.slice(1)];
  });
  return `${spec.summary}\n\nUsage:\n${
    spec.usage.map((line) => `  ${line}\n`).join("")
  }\nOptions:\n${lines.join("\n")}\n`;
}
