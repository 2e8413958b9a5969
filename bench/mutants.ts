/**
 * Mutants of a source file: small changes, each of which a test should notice.
 *
 * The types are taken out first, and leave spaces: so `<` and `|` are operators, and each position is
 * that of the source. Then tokens are enough: this project's code is formatted and has few forms.
 */
import * as nodeModule from "node:module";

/** One change of one file. */
export interface Mutant {
  /** The file, its line and the changed line: the same as long as that line stays as it is. */
  key: string;
  /** From the project's folder on. */
  file: string;
  /** From 1. */
  line: number;
  operator: string;
  /** Index into the source, and what stands there. */
  at: number;
  before: string;
  after: string;
}

interface Token {
  kind: "word" | "number" | "text" | "regex" | "sign";
  text: string;
  at: number;
}

const TOKEN = new RegExp(
  [
    /(?<space>\s+|\/\/.*|\/\*[\s\S]*?\*\/)/,
    /(?<word>[#\w$]*[#A-Za-z_$][\w$]*)/,
    /(?<number>0[xb][\da-f_]+|\d[\d_]*(?:\.\d+)?(?:e[+-]?\d+)?)/,
    /(?<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')/,
    /(?<sign>\?\?=|&&=|\|\|=|\*\*|===|!==|>>>|<<|>>|=>|\.\.\.|\?\.|\?\?|&&|\|\||[<>=!+\-*\/%&|^]=|\+\+|--|[\s\S])/,
  ].map(({ source }) => source).join("|"),
  "y",
);
// A number is tried before a word that begins with a digit.
const NUMBER = /(?:0[xb][\da-f_]+|\d[\d_]*(?:\.\d+)?(?:e[+-]?\d+)?)/y;
const REGEX = /\/(?![/*])(?:\\.|\[(?:\\.|[^\]\\])*\]|[^/\\[\n])+\/[a-z]*/y;

const KEYWORDS = new Set(
  ("if for while do switch case return const let var function class import export throw try catch " +
    "finally new typeof void await in of else break continue default static get set async yield")
    .split(" "),
);

/** Statements that begin with one of these can be left out, as those that begin with a name. */
const REMOVABLE = new Set(["await", "void", "break", "continue"]);

/** Whether an operand ends here, so that an operator after it has two operands. */
function endsOperand(token: Token | undefined): boolean {
  if (token === undefined) return false;
  if (token.kind === "word") return !KEYWORDS.has(token.text);
  return token.kind !== "sign" || token.text === ")" || token.text === "]" || token.text === "}";
}

/** The end of a template literal that begins there: behind its last backtick. */
function endOfTemplate(code: string, at: number): number {
  for (let i = at + 1; i < code.length; i++) {
    if (code[i] === "\\") i++;
    else if (code[i] === "`") return i + 1;
    else if (code[i] === "$" && code[i + 1] === "{") {
      let depth = 1;
      for (i += 2; depth > 0; i++) {
        if (code[i] === "`") i = endOfTemplate(code, i) - 1;
        else if (code[i] === "{") depth++;
        else if (code[i] === "}") depth--;
      }
      i--;
    }
  }
  return code.length;
}

function tokensOf(code: string): Token[] {
  const tokens: Token[] = [];
  const add = (kind: Token["kind"], text: string, at: number) => {
    tokens.push({ kind, text, at });
    return at + text.length;
  };
  for (let at = 0; at < code.length;) {
    if (code[at] === "`") {
      // Texts are for people: what stands in them is not changed.
      at = add("text", code.slice(at, endOfTemplate(code, at)), at);
      continue;
    }
    NUMBER.lastIndex = REGEX.lastIndex = TOKEN.lastIndex = at;
    const number = NUMBER.exec(code);
    const regex = endsOperand(tokens.at(-1)) ? null : REGEX.exec(code);
    if (number !== null) at = add("number", number[0], at);
    else if (regex !== null) at = add("regex", regex[0], at);
    else {
      const groups = TOKEN.exec(code)!.groups!;
      const [kind, text] = Object.entries(groups).find(([, text]) => text !== undefined)!;
      if (kind === "space") at += text.length;
      else at = add(kind as Token["kind"], text, at);
    }
  }
  return tokens;
}

const BINARY: Record<string, readonly string[]> = {
  ...{ "+": ["-"], "-": ["+"], "*": ["/"], "/": ["*"], "%": ["*"], "<<": [">>"], ">>": ["<<"] },
  ...{ "+=": ["-="], "-=": ["+="], "*=": ["/="], "/=": ["*="], "??=": ["="] },
  ...{ "<": ["<=", ">="], "<=": ["<", ">"], ">": [">=", "<="], ">=": [">", "<"] },
  ...{ "===": ["!=="], "!==": ["==="], "&&": ["||"], "||": ["&&"], "??": ["&&"] },
};
const WORDS: Record<string, string> = {
  ...{ true: "false", false: "true", min: "max", max: "min", floor: "ceil", ceil: "floor" },
};

/** A number twice as large, and a twentieth of it; 1 for 0. */
function otherNumbers(text: string): string[] {
  const value = Number(text.replaceAll("_", ""));
  return value === 0 ? ["1"] : [String(value * 2), String(value / 20)];
}

/** The tokens that stand directly in the body of a class: they declare, and are no statements. */
function declarations(tokens: readonly Token[]): Set<Token> {
  const found = new Set<Token>();
  tokens.forEach((token, i) => {
    if (token.kind !== "word" || token.text !== "class") return;
    const open = tokens.findIndex(({ text }, at) => at > i && text === "{");
    for (let at = open + 1, last = closing(tokens, open); at < last; at++) {
      found.add(tokens[at]!);
      if ("([{".includes(tokens[at]!.text)) at = closing(tokens, at);
    }
  });
  return found;
}

/** Index of the token that closes the bracket at `open`. */
function closing(tokens: readonly Token[], open: number): number {
  let depth = 0;
  for (let i = open; i < tokens.length; i++) {
    const { kind, text } = tokens[i]!;
    if (kind !== "sign") continue;
    if ("([{".includes(text)) depth++;
    else if (")]}".includes(text) && --depth === 0) return i;
  }
  return tokens.length - 1;
}

/** Index of the token that ends the statement which begins at `from`: its `;`, else undefined. */
function endOfStatement(tokens: readonly Token[], from: number): number | undefined {
  for (let i = from; i < tokens.length; i++) {
    const { kind, text } = tokens[i]!;
    if (kind !== "sign") continue;
    if ("([{".includes(text)) i = closing(tokens, i);
    else if (text === ";") return i;
    else if (")]}".includes(text)) return undefined;
  }
  return undefined;
}

/**
 * All mutants of a file, in the order of the source. A line that signals processes has none: a mutant
 * could signal other ones. Throws an Error where the runtime is not Node.
 */
export function mutantsOf(file: string, source: string): Mutant[] {
  const code = withoutTypes(source);
  if (code.length !== source.length) {
    throw new Error(`${file}: positions are not those of the source`);
  }
  const tokens = tokensOf(code);
  const declared = declarations(tokens);
  const changes: Pick<Mutant, "operator" | "at" | "before" | "after">[] = [];
  const add = (operator: string, at: number, end: number, after: string) =>
    changes.push({ operator, at, before: source.slice(at, end), after });

  tokens.forEach((token, i) => {
    const { kind, text, at } = token;
    const end = at + text.length;
    const before = tokens[i - 1];
    const next = tokens[i + 1];
    if (kind === "number") {
      for (const other of otherNumbers(text)) add("constant", at, end, other);
    } else if (kind === "word" && WORDS[text] !== undefined && next?.text !== ":") {
      if (/true|false/.test(text) || before?.text === ".") add("word", at, end, WORDS[text]!);
    } else if (kind === "sign" && BINARY[text] !== undefined && endsOperand(before)) {
      const joins = text.startsWith("+") && [before, next].some((each) => each?.kind === "text");
      if (!joins) { for (const other of BINARY[text]!) add("operator", at, end, other); }
    } else if (text === "++" || text === "--") {
      add("operator", at, end, text === "++" ? "--" : "++");
    } else if (text === "!" && !endsOperand(before)) {
      add("negation", at, end, "");
    }
    if (kind === "word" && (text === "if" || text === "while") && next?.text === "(") {
      const last = closing(tokens, i + 1);
      const [from, to] = [next.at + 1, tokens[last]!.at];
      add("condition", from, to, "false");
      if (text === "if") add("condition", from, to, "true");
    }
    const begins = before === undefined || /^[;{}]$/.test(before.text) || before.text === "else";
    const last = begins || before.text === ")" ? endOfStatement(tokens, i) : undefined;
    if (kind === "word" && last !== undefined && !declared.has(token)) {
      const stop = tokens[last]!.at;
      // Without a value it returns undefined.
      const same = last === i + 2 && next?.text === "undefined";
      if (text === "return" && last > i + 1 && !same) add("return", at, stop, "return");
      if (!KEYWORDS.has(text) || REMOVABLE.has(text)) add("statement", at, stop, "");
    }
    if (text === "{" && next?.text !== "}" && (before?.text === "=>" || opensFunction(tokens, i))) {
      add("early return", end, end, " return;");
    }
  });
  return named(file, source, changes).filter((mutant) => isValid(mutated(source, mutant)));
}

/** Whether this brace opens the body of a function or method with a name. */
function opensFunction(tokens: readonly Token[], brace: number): boolean {
  if (tokens[brace - 1]?.text !== ")") return false;
  for (let i = brace - 1, depth = 0; i > 0; i--) {
    if (tokens[i]!.text === ")") depth++;
    else if (tokens[i]!.text === "(" && --depth === 0) {
      const { kind, text } = tokens[i - 1]!;
      return kind === "word" && (!KEYWORDS.has(text) || text === "function") &&
        text !== "constructor";
    }
  }
  return false;
}

/** The source with this change. */
export function mutated(source: string, { at, before, after }: Mutant): string {
  return source.slice(0, at) + after + source.slice(at + before.length);
}

function withoutTypes(source: string): string {
  const { stripTypeScriptTypes } = nodeModule;
  if (stripTypeScriptTypes === undefined) throw new Error("mutants are made on Node only");
  return stripTypeScriptTypes(source);
}

function isValid(source: string): boolean {
  try {
    withoutTypes(source);
    return true;
  } catch {
    return false;
  }
}

/** Gives each change its place and its key. */
function named(
  file: string,
  source: string,
  changes: readonly Pick<Mutant, "operator" | "at" | "before" | "after">[],
): Mutant[] {
  const seen = new Map<string, number>();
  return changes.flatMap((change) => {
    const { at, before, after } = change;
    const from = source.lastIndexOf("\n", at - 1) + 1;
    const newline = source.indexOf("\n", at + before.length);
    const end = newline < 0 ? source.length : newline;
    const oneLine = (text: string) => text.trim().replace(/\s+/g, " ");
    const line = oneLine(source.slice(from, end));
    const changed = oneLine(source.slice(from, at) + after + source.slice(at + before.length, end));
    if (/\bkill\(/.test(line) || line === changed) return [];
    const text = `${file}: ${line} => ${changed}`;
    const count = (seen.get(text) ?? 0) + 1;
    seen.set(text, count);
    const key = count === 1 ? text : `${text} (${count})`;
    return [{ key, file, line: source.slice(0, at).split("\n").length, ...change }];
  });
}
