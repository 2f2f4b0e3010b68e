"use strict";
for (const section of document.querySelectorAll(".layers")) {
  const body = section.querySelector("tbody");
  const form = section.querySelector("form");
  const output = form.querySelector("output");
  const rows = [...body.rows];
  const filter = () => {
    const words = form.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const marked = form.elements.marked.checked;
    let shown = 0;
    for (const row of rows) {
      const text = (row.cells[1].textContent + " " + row.cells[2].textContent + " "
        + row.lastElementChild.textContent).toLowerCase();
      row.hidden = !words.every((word) => text.includes(word))
        || (marked && !row.classList.contains("marked"));
      shown += !row.hidden;
    }
    output.textContent = (shown < rows.length ? shown + " of " : "") + rows.length
      + (rows.length === 1 ? " layer" : " layers");
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());

  const heads = [...section.querySelectorAll("thead th")];
  const value = (row, column) => {
    const cell = row.cells[column];
    if (column === 0) return Number(cell.textContent);
    if (heads[column].classList.contains("n")) {
      const words = cell.dataset.v;
      if (words === undefined) return null;
      if (words === "nan" || words === "inf") return Infinity;
      return words === "-inf" ? -Infinity : Number(words);
    }
    return cell.textContent || null;
  };
  const order = (a, b) => {
    if (typeof a === "string") return a.localeCompare(b, "en", { numeric: true });
    return a < b ? -1 : a > b ? 1 : 0;
  };
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keyed = rows.map((row) => [value(row, column), row]);
      keyed.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        return down ? order(b, a) : order(a, b);
      });
      body.append(...keyed.map(([, row]) => row));
    });
  });
}
