"use strict";
// Draws the figures in the page's colours and fills the two tables; the numbers are those of the JSON twin.
const data = JSON.parse(document.getElementById("data").textContent);
const charts = [...document.querySelectorAll(".chart")];

// Tick labels as many as fit: every one where there is room, else every second, third, ...
function thinned(axis, px) {
  const every = Math.ceil((15 * axis.tickvals.length) / px);
  const kept = (_, index) => index % every === 0;
  return { ...axis, tickvals: axis.tickvals.filter(kept), ticktext: axis.ticktext.filter(kept) };
}

// A cell of a matrix that is below 0 is empty: numbers of one byte know no null.
function withGaps(trace) {
  if (trace.type !== "heatmap" || !trace.z.bdata) return trace;
  const bytes = Int8Array.from(atob(trace.z.bdata), (letter) => letter.charCodeAt(0));
  const width = trace.x.length;
  const row = (_, index) => Array.from(bytes.subarray(index * width, (index + 1) * width), (value) => (value < 0 ? null : value));
  return { ...trace, z: Array.from({ length: bytes.length / width }, row) };
}

function themed(figure, chart) {
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--ink").trim();
  const line = style.getPropertyValue("--line").trim();
  const layout = structuredClone(figure.layout);
  layout.font = { ...layout.font, color: ink, family: "system-ui, sans-serif", size: 12 };
  for (const axis of ["xaxis", "yaxis"]) {
    if (layout[axis]?.visible !== false && !layout.scene) {
      layout[axis] = { gridcolor: line, zerolinecolor: line, ...layout[axis] };
    }
    if (layout[axis]?.tickvals && layout[axis].ticktext) {
      layout[axis] = thinned(layout[axis], 0.7 * (axis === "xaxis" ? chart.clientWidth : Math.min(chart.clientWidth, chart.clientHeight)));
    }
  }
  if (layout.scene) {
    // The field of view is that of the height, so a narrow chart needs a step back.
    const back = Math.max(1, (1.25 * chart.clientHeight) / chart.clientWidth);
    const eye = layout.scene.camera.eye;
    for (const axis of ["x", "y", "z"]) eye[axis] *= back;
  }
  layout.hoverlabel = { font: { color: ink }, bgcolor: style.getPropertyValue("--panel").trim(), bordercolor: line };
  return layout;
}

function draw(chart) {
  const figure = data.figures[chart.dataset.figure];
  const config = { responsive: true, displayModeBar: false, scrollZoom: Boolean(figure.layout.scene) };
  return Plotly.react(chart, figure.data.map(withGaps), themed(figure, chart), config);
}

// One after another, so that the page can be read and scrolled meanwhile.
async function drawAll() {
  for (const chart of charts) {
    await draw(chart);
    await new Promise((next) => setTimeout(next));
  }
  document.documentElement.dataset.drawn = charts.length;
}

function cell(row, value, { kind, title }) {
  const made = row.insertCell();
  made.dataset.title = title;
  if (kind === "number") {
    made.className = "number";
    made.textContent = value === null ? "–" : typeof value === "number" ? value.toLocaleString("en") : value;
  } else if (kind === "image") {
    made.className = kind;
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
    made.className = kind;
    made.textContent = value;
  }
}

// A table sorted by a click on a heading; only the first rows are in the page until more are asked for.
function fill(table, { columns, rows: stored, sorted: first }) {
  const words = { image: data.names, state: data.states };
  const rows = stored.map((row) => row.map((value, index) => words[columns[index].kind]?.[value] ?? value));
  const step = 200;
  const body = table.createTBody();
  const tools = table.closest("section").querySelector(".tools");
  const [filter, more, count] = [tools.querySelector("input"), tools.querySelector("button"), tools.querySelector("span")];
  const state = tools.querySelector("select");
  const stateColumn = columns.findIndex((column) => column.kind === "state");
  const named = columns.flatMap((column, index) => (column.kind === "image" ? [index] : []));
  let sorted = { column: first, sign: 1 };
  let shown = step;
  let kept = rows;

  function render() {
    const wanted = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    kept = rows.filter((row) => wanted.every((word) => named.some((index) => row[index].toLowerCase().includes(word))));
    if (state.value) kept = kept.filter((row) => row[stateColumn] === state.value);
    const { column, sign } = sorted;
    const isNumber = columns[column].kind === "number";
    kept = [...kept].sort((one, other) => {
      const [a, b] = [one[column], other[column]];
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (isNumber ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
    });
    [...headings.cells].forEach((heading, index) => {
      if (index === column) heading.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      else heading.removeAttribute("aria-sort");
    });
    body.replaceChildren();
    for (const row of kept.slice(0, shown)) {
      const made = body.insertRow();
      row.forEach((value, index) => cell(made, value, columns[index]));
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
    heading.addEventListener("click", () => {
      // Numbers are wanted largest first.
      const first = column.kind === "number" ? -1 : 1;
      sorted = { column: index, sign: sorted.column === index ? -sorted.sign : first };
      render();
    });
    heading.append(button);
    headings.append(heading);
  });
  if (stateColumn >= 0) {
    state.hidden = false;
    state.add(new Option("all states", ""));
    for (const word of data.states) {
      const count = rows.filter((row) => row[stateColumn] === word).length;
      if (count) state.add(new Option(`${word} (${count.toLocaleString("en")})`, word));
    }
    state.addEventListener("change", () => { shown = step; render(); });
  }
  filter.addEventListener("input", () => { shown = step; render(); });
  more.addEventListener("click", () => { shown += 5 * step; render(); });
  render();
}

for (const table of document.querySelectorAll("table[data-table]")) fill(table, data.tables[table.dataset.table]);

// A picture enlarges at a click, and a click or Escape closes it.
const enlarged = document.getElementById("enlarged");
for (const button of document.querySelectorAll(".gallery button")) {
  button.addEventListener("click", () => {
    enlarged.replaceChildren(button.querySelector("img").cloneNode());
    enlarged.showModal();
  });
}
enlarged.addEventListener("click", () => enlarged.close());

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth !== width) drawAll();
  width = innerWidth;
});
// Paper is narrower and light, and does not wait.
matchMedia("print").addEventListener("change", () => charts.forEach(draw));
drawAll();
