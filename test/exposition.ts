/** A strict parser of Prometheus' text exposition format 0.0.4, for tests. */

export interface Parsed {
  /** The type of each metric. */
  types: Map<string, string>;
  /** The value of each series: its name with its labels in their order, as `name{a="b"}`. */
  series: Map<string, number>;
}

const METRIC = /^[a-zA-Z_:][a-zA-Z0-9_:]*/;
const LABEL = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"/;
const VALUE = /^(?:NaN|[+-]Inf|[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)$/;
const TYPES = ["counter", "gauge", "histogram", "summary", "untyped"];

/**
 * Throws an Error for a line that is not of the format, and for what the format does not forbid but
 * is a mistake here: samples without HELP and TYPE before them, metrics that are not in one piece,
 * series that come twice, counters whose names do not end in `_total`, and others whose names do.
 */
export function parseExposition(text: string): Parsed {
  if (!text.endsWith("\n")) throw new Error("the last line has no end");
  const helps = new Set<string>();
  const types = new Map<string, string>();
  const series = new Map<string, number>();
  const closed = new Set<string>();
  let current: string | undefined;
  for (const line of text.slice(0, -1).split("\n")) {
    const fail = (why: string): never => {
      throw new Error(`${why}: ${JSON.stringify(line)}`);
    };
    const enter = (name: string) => {
      if (name === current) return;
      if (current !== undefined) closed.add(current);
      if (closed.has(name)) fail("a metric in two pieces");
      current = name;
    };
    const comment = /^# (HELP|TYPE) (\S+) (.+)$/.exec(line);
    if (comment !== null) {
      const [, kind, name, rest] = comment as unknown as [string, string, string, string];
      if (METRIC.exec(name)?.[0] !== name) fail("no name of a metric");
      enter(name);
      if (kind === "HELP") {
        if (helps.has(name)) fail("a second HELP");
        if (/\\(?![\\n])/.test(rest)) fail("a wrong escape");
        helps.add(name);
      } else {
        if (types.has(name)) fail("a second TYPE");
        if (!TYPES.includes(rest)) fail("no type");
        if ((rest === "counter") !== name.endsWith("_total")) fail("a name against its type");
        types.set(name, rest);
      }
      continue;
    }
    const name = METRIC.exec(line)?.[0] ?? fail("no sample");
    enter(name);
    if (!helps.has(name) || !types.has(name)) fail("a sample without HELP and TYPE before it");
    let rest = line.slice(name.length);
    const labels: string[] = [];
    if (rest.startsWith("{")) {
      rest = rest.slice(1);
      while (!rest.startsWith("}")) {
        const [whole, label] = LABEL.exec(rest) ?? fail("no label");
        if (labels.some((each) => each.startsWith(`${label}=`))) fail("a label twice");
        labels.push(whole!);
        rest = rest.slice(whole!.length);
        if (rest.startsWith(",")) rest = rest.slice(1);
        else if (!rest.startsWith("}")) fail("no end of the labels");
      }
      rest = rest.slice(1);
    }
    const value = /^ (\S+)$/.exec(rest)?.[1] ?? fail("no value");
    if (!VALUE.test(value)) fail("no number");
    const key = labels.length === 0 ? name : `${name}{${labels.join()}}`;
    if (series.has(key)) fail("a series twice");
    const number = Number(value.replace("Inf", "Infinity"));
    if (types.get(name) === "counter" && !(number >= 0)) fail("a counter below zero");
    series.set(key, number);
  }
  for (const name of types.keys()) {
    if (![...series.keys()].some((key) => key === name || key.startsWith(`${name}{`))) {
      throw new Error(`${name} has no sample`);
    }
  }
  return { types, series };
}
