/// <reference lib="dom" />
/** A page's tables, and the script that sorts them when a column head is clicked. */
import { escapeMarkup } from "../text/escape.ts";
import type { TableCell } from "./table.ts";

/** A table as markup. The first cell of each row is its head. */
export function table(
  caption: string,
  head: readonly string[],
  rows: readonly (readonly TableCell[])[],
): string {
  const cell = ({ text, sort }: TableCell, column: number) => {
    const tag = column === 0 ? "th" : "td";
    const by = sort === undefined ? "" : ` data-sort="${escapeMarkup(String(sort))}"`;
    const scope = column === 0 ? ' scope="row"' : "";
    return `<${tag}${scope}${by}>${escapeMarkup(text)}</${tag}>`;
  };
  return `<div class="scroll"><table aria-label="${caption}"><thead><tr>${
    head.map((what) => `<th scope="col"><button type="button">${escapeMarkup(what)}</button></th>`)
      .join("")
  }</tr></thead><tbody>${
    rows.map((cells) => `<tr>${cells.map(cell).join("")}</tr>`).join("")
  }</tbody></table></div>`;
}

/**
 * Makes every table sortable. Refers to nothing outside itself, because pages embed its source
 * text.
 */
export function sortTables(): void {
  for (const table of document.querySelectorAll("table")) {
    const body = table.tBodies[0];
    const heads = [...table.querySelectorAll<HTMLElement>("th[scope=col]")];
    heads.forEach((head, column) => {
      head.querySelector("button")?.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const each of heads) each.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const keyOf = (row: HTMLTableRowElement) => row.cells[column]?.dataset.sort;
        const rows = [...body?.rows ?? []].sort((a, b) => {
          const left = keyOf(a);
          const right = keyOf(b);
          // Missing values come last in both orders.
          if (left === undefined || right === undefined) {
            return Number(left === undefined) - Number(right === undefined);
          }
          const [x, y] = [Number(left), Number(right)];
          const order = Number.isNaN(x) || Number.isNaN(y)
            ? left.localeCompare(right, "en", { numeric: true })
            : x === y
            ? 0
            : x - y;
          return down ? -order : order;
        });
        body?.append(...rows);
      });
    });
  }
}
