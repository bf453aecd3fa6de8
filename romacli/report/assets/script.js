"use strict";
// Draws the figures in the page's colours and fills the two tables; the numbers are those of the JSON twin.
const data = JSON.parse(document.getElementById("data").textContent);
const charts = [...document.querySelectorAll(".chart")];

function themed(figure) {
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--ink").trim();
  const line = style.getPropertyValue("--line").trim();
  const layout = structuredClone(figure.layout);
  layout.font = { ...layout.font, color: ink, family: "system-ui, sans-serif", size: 12 };
  for (const axis of ["xaxis", "yaxis"]) {
    if (layout[axis]?.visible !== false && !layout.scene) {
      layout[axis] = { gridcolor: line, zerolinecolor: line, ...layout[axis] };
    }
  }
  layout.hoverlabel = { font: { color: ink }, bgcolor: style.getPropertyValue("--panel").trim(), bordercolor: line };
  return layout;
}

function draw(chart) {
  const figure = data.figures[chart.dataset.figure];
  const config = { responsive: true, displayModeBar: false, scrollZoom: Boolean(figure.layout.scene) };
  return Plotly.react(chart, figure.data, themed(figure), config);
}

// One after another, so that the page can be read and scrolled meanwhile.
async function drawAll() {
  for (const chart of charts) {
    await draw(chart);
    await new Promise((next) => setTimeout(next));
  }
  document.documentElement.dataset.drawn = charts.length;
}

function cell(row, value, kind) {
  const made = row.insertCell();
  if (kind === "number") {
    made.className = "number";
    made.textContent = value === null ? "–" : typeof value === "number" ? value.toLocaleString("en") : value;
  } else if (kind === "image") {
    const source = data.thumbnails[value];
    if (source) {
      const picture = document.createElement("img");
      picture.className = "thumbnail";
      picture.src = source;
      picture.alt = "";
      made.append(picture);
    }
    made.append(value);
  } else {
    made.textContent = value;
  }
}

// A table sorted by a click on a heading; only the first rows are in the page until more are asked for.
function fill(table, { columns, rows: stored }) {
  const words = { image: data.names, state: data.states };
  const rows = stored.map((row) => row.map((value, index) => words[columns[index].kind]?.[value] ?? value));
  const step = 200;
  const body = table.createTBody();
  const tools = table.closest("section").querySelector(".tools");
  const [filter, more, count] = [tools.querySelector("input"), tools.querySelector("button"), tools.querySelector("span")];
  let sorted = { column: -1, sign: 1 };
  let shown = step;
  let kept = rows;

  function render() {
    const wanted = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    kept = rows.filter((row) => wanted.every((word) => row.some((value) => String(value).toLowerCase().includes(word))));
    if (sorted.column >= 0) {
      const { column, sign } = sorted;
      const isNumber = columns[column].kind === "number";
      kept = [...kept].sort((one, other) => {
        const [a, b] = [one[column], other[column]];
        if (a === null || b === null) return (a === null) - (b === null);
        return sign * (isNumber ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
      });
    }
    body.replaceChildren();
    for (const row of kept.slice(0, shown)) {
      const made = body.insertRow();
      row.forEach((value, index) => cell(made, value, columns[index].kind));
    }
    more.hidden = kept.length <= shown;
    count.textContent = `${Math.min(shown, kept.length).toLocaleString("en")} of ${rows.length.toLocaleString("en")}`;
  }

  const headings = table.createTHead().insertRow();
  columns.forEach((column, index) => {
    const heading = document.createElement("th");
    heading.scope = "col";
    heading.className = column.kind;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = column.title;
    button.addEventListener("click", () => {
      // Numbers are wanted largest first.
      const first = column.kind === "number" ? -1 : 1;
      sorted = { column: index, sign: sorted.column === index ? -sorted.sign : first };
      for (const other of headings.cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", sorted.sign > 0 ? "ascending" : "descending");
      render();
    });
    heading.append(button);
    headings.append(heading);
  });
  filter.addEventListener("input", () => { shown = step; render(); });
  more.addEventListener("click", () => { shown += 5 * step; render(); });
  render();
}

for (const table of document.querySelectorAll("table[data-table]")) fill(table, data.tables[table.dataset.table]);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
// Paper is narrower and light, and does not wait.
matchMedia("print").addEventListener("change", () => charts.forEach(draw));
drawAll();
