/** How far one figure is from another. */

/** A share in percent, with its sign: `+0.12 %`. */
export function formatDeviation(share: number, digits = 2): string {
  const percent = (share * 100).toFixed(digits).replace(/^-(?=[0.]*$)/, "");
  return `${percent.startsWith("-") ? "" : "+"}${percent} %`;
}

/** A share in percent, as short as it goes: `5 %`. */
export function formatPercent(share: number): string {
  return `${Number((share * 100).toPrecision(4))} %`;
}
