"""The page's script: tables that sort, and the table of cases that filters.

Rows of cases are made from the page's data as they are asked for: ten thousand at once
would take seconds. Text is set as text, never as HTML, whatever a case is called.
"""

SCRIPT = """
"use strict";
(() => {
const MINUS = "\\u2212";
const value = (text) => {
  const plain = text.trim().replaceAll(MINUS, "-").replaceAll(",", "");
  const found = plain.match(/^[+<]?\\s*-?\\d*\\.?\\d+(e-?\\d+)?/i);
  return found ? Number(found[0].replace(/^[+<]\\s*/, "")) : null;
};
const compare = (a, b, sign) => {
  const noA = a === null || a === "" || a === "\\u2013";
  const noB = b === null || b === "" || b === "\\u2013";
  if (noA || noB) return noA - noB;
  const numbers = typeof a === "number" && typeof b === "number";
  return sign * (numbers ? a - b : String(a).localeCompare(String(b), "en",
    {numeric: true}));
};
const sortable = (table, sort) => {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      sort(column, sign);
    });
  });
};
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  sortable(table, (column, sign) => {
    const keyed = [...body.rows].map((row) => {
      const text = row.cells[column].textContent;
      return [value(text) ?? text.trim(), row];
    });
    keyed.sort((a, b) => compare(a[0], b[0], sign));
    body.append(...keyed.map((pair) => pair[1]));
  });
}

const source = document.getElementById("case-data");
if (!source) return;
const data = JSON.parse(source.textContent);
const section = document.getElementById("cases");
const table = section.querySelector("table");
const get = (name) => section.querySelector(`[name=${name}]`);
const count = section.querySelector("output");
const PAGE = 100;
let shown = PAGE, order = [0, 1];
const named = data.names.length;
const lists = data.names;
const cell = (row, column) => column < named ? lists[column][row[column]] : row[column];
const written = (number) => {
  if (number === null) return "\\u2013";
  const size = Math.abs(number);
  return number.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : 3).replace("-", MINUS);
};
let rows = data.rows;
const fill = () => {
  const part = get("case").value.toLowerCase();
  const organ = get("organ").value, network = get("network").value;
  const limit = get("most").value === "" ? null : Number(get("most").value);
  const dice = data.columns.findIndex((c) => c.key === "dice");
  rows = data.rows.filter((row) =>
    (!part || cell(row, 0).toLowerCase().includes(part))
    && (!organ || cell(row, 1) === organ) && (!network || cell(row, 2) === network)
    && (limit === null || (row[dice] !== null && row[dice] <= limit)));
  const [column, sign] = order;
  rows.sort((a, b) => compare(cell(a, column), cell(b, column), sign));
  draw();
};
const draw = () => {
  const all = get("all").checked;
  const body = document.createElement("tbody");
  for (const row of rows.slice(0, shown)) {
    const line = body.insertRow();
    data.columns.forEach((column, i) => {
      const place = line.insertCell();
      place.textContent = i < named ? cell(row, i) : written(row[i]);
      if (i >= named) place.className = "number";
      place.hidden = !all && !column.first;
    });
  }
  [...table.tHead.rows[0].cells].forEach((head, i) => {
    head.hidden = !all && !data.columns[i].first;
  });
  table.tBodies[0].replaceWith(body);
  const seen = Math.min(shown, rows.length);
  count.textContent = `${seen} of ${rows.length} rows`
    + (rows.length < data.rows.length ? ` (${data.rows.length} without a filter)` : "");
  get("more").hidden = seen === rows.length;
};
sortable(table, (column, sign) => { order = [column, sign]; fill(); });
for (const name of ["case", "organ", "network", "most"]) {
  get(name).addEventListener("input", () => { shown = PAGE; fill(); });
}
get("all").addEventListener("input", draw);
get("more").addEventListener("click", () => { shown += 10 * PAGE; draw(); });
const first = data.columns.findIndex((c) => c.key === "dice");
table.tHead.rows[0].cells[first < 0 ? 0 : first].querySelector("button").click();
})();
"""
