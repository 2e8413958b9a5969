/** The text exposition format of Prometheus, version 0.0.4. */

export interface Metric {
  /** A counter's name ends in `_total`, every other in its base unit where it has one. */
  name: string;
  help: string;
  type: "counter" | "gauge";
  samples: readonly Sample[];
}

export interface Sample {
  /** By name; default: none. No two samples of a metric may have the same. */
  labels?: Readonly<Record<string, string>>;
  value: number;
}

/** The content type of the format. */
export const EXPOSITION_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/** All metrics that have samples: each with its help and type, then its samples. */
export function formatExposition(metrics: readonly Metric[]): string {
  const lines: string[] = [];
  for (const { name, help, type, samples } of metrics) {
    if (samples.length === 0) continue;
    lines.push(`# HELP ${name} ${escapeHelp(help)}`, `# TYPE ${name} ${type}`);
    for (const { labels = {}, value } of samples) {
      const pairs = Object.entries(labels).map(([key, text]) => `${key}="${escapeLabel(text)}"`);
      lines.push(`${name}${pairs.length === 0 ? "" : `{${pairs.join()}}`} ${formatValue(value)}`);
    }
  }
  return lines.map((line) => `${line}\n`).join("");
}

const escapeHelp = (text: string) => text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
const escapeLabel = (text: string) => escapeHelp(text).replaceAll('"', '\\"');

/** As Go's strconv.ParseFloat takes it. */
function formatValue(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (Number.isFinite(value)) return String(value);
  return value > 0 ? "+Inf" : "-Inf";
}
