/** Shares and differences, formatted as percentages. */

/** A share (0.0012) as a percentage with its sign: `+0.12 %`. Zero is always `+0.00 %`. */
export function formatDeviation(share: number, digits = 2): string {
  const percent = (share * 100).toFixed(digits).replace(/^-(?=[0.]*$)/, "");
  return `${percent.startsWith("-") ? "" : "+"}${percent} %`;
}

/** A share (0.05) as a percentage with at most four significant digits: `5 %`. */
export function formatPercent(share: number): string {
  return `${Number((share * 100).toPrecision(4))} %`;
}
