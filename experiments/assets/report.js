"use strict";
// The list of all images: filtered, sorted, and drawn a hundred rows at a time. Texts of files are set as text alone.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const STEP = 100, IN_PRINT = 600;
const [IDX, LABEL, PREDICT, RADIUS, SIGMA, PA, GAIN, COUNTS, DRAWN] = [0, 1, 2, 3, 4, 5, 6, 7, 8];
const state = { run: 0, key: IDX, down: false, drawn: 0, rows: [] };

const run = () => data.runs[state.run];
const pictures = () => data.sets[run().set].pictures;
const file = (row) => data.sets[run().set].files[row[IDX]] || "";
const named = (number) => run().classes[number] ?? String(number);
const digits = (value, places) => (value === null ? "-" : value.toFixed(places));
const answer = (row) => (row[PREDICT] === -1 ? "none" : row[PREDICT] === row[LABEL] ? "right" : "wrong");

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function picture(index, set, alt) {
  const uri = data.sets[set].pictures[index];
  if (!uri) return document.createTextNode("");
  const image = element("img");
  image.alt = alt;
  image.src = uri;
  return image;
}

const COLUMNS = [
  { title: "picture", there: () => Object.keys(pictures()).length > 0, kind: "picture",
    fill: (cell, row) => cell.append(picture(row[IDX], run().set, `image ${row[IDX]}`)) },
  { title: "image", key: IDX, kind: "name", text: (row) => `${row[IDX]} ${file(row)}`.trim() },
  { title: "label", key: LABEL, kind: "text", text: (row) => named(row[LABEL]), by: (row) => named(row[LABEL]) },
  { title: "answer", key: PREDICT, kind: "text", by: (row) => (row[PREDICT] === -1 ? null : named(row[PREDICT])),
    fill: (cell, row) => {
      const kind = answer(row);
      cell.textContent = { none: "no answer", right: `${named(row[PREDICT])}, right`,
        wrong: `${named(row[PREDICT])}, wrong` }[kind];
      if (kind === "wrong") cell.classList.add("wrong");
    } },
  { title: "radius", key: RADIUS, text: (row) => digits(row[RADIUS], 4) },
  { title: "sigma", key: SIGMA, text: (row) => (row[SIGMA] === null ? "-" : String(row[SIGMA])),
    there: () => run().rows.some((row) => row[SIGMA] !== null) },
  { title: "p_A", key: PA, text: (row) => digits(row[PA], 4), there: () => run().rows.some((row) => row[PA] !== null) },
  { title: "gain", key: GAIN, there: () => gained(),
    text: (row) => (row[GAIN] > 0 ? "+" : "") + digits(row[GAIN], 4) },
  { title: "counts of the certificate", kind: "text", there: () => run().rows.some((row) => row[COUNTS].length),
    text: (row) => {
      const shown = row[COUNTS].map(([k, count]) => `${named(k)} ${count}`);
      const rest = row[DRAWN] - row[COUNTS].reduce((sum, [, count]) => sum + count, 0);
      return shown.concat(rest > 0 ? [`others ${rest}`] : []).join(", ");
    } },
];
const gained = () => run().rows.some((row) => row[GAIN] !== null);
const shown = () => COLUMNS.filter((column) => !column.there || column.there());

function heading() {
  const line = element("tr");
  for (const column of shown()) {
    const cell = element("th", undefined, column.kind === "text" || column.kind === "name" ? "text" : "");
    cell.scope = "col";
    if (column.key === undefined) {
      cell.append(element("span", column.title));
    } else {
      const sorted = state.key === column.key;
      const button = element("button", column.title + (sorted ? (state.down ? " \u25bc" : " \u25b2") : ""));
      button.type = "button";
      button.dataset.key = column.key;
      if (sorted) cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      button.addEventListener("click", () => {
        state.down = sorted ? !state.down : [RADIUS, SIGMA, PA, GAIN].includes(column.key);
        state.key = column.key;
        update();
        document.querySelector(`#list button[data-key="${column.key}"]`).focus();
      });
      cell.append(button);
    }
    line.append(cell);
  }
  document.querySelector("#list thead").replaceChildren(line);
}

function filtered() {
  const text = $("text").value.trim().toLowerCase(), label = $("label").value, kind = $("answer").value;
  const least = parseFloat($("least").value), most = parseFloat($("most").value), gain = $("gain").value;
  return run().rows.filter((row) =>
    (label === "all" || row[LABEL] === Number(label)) && (kind === "all" || answer(row) === kind) &&
    !(row[RADIUS] < least) && !(row[RADIUS] > most) &&
    (gain === "all" || !gained() || (gain === "more" ? row[GAIN] > 0 : row[GAIN] < 0)) &&
    (!text || String(row[IDX]) === text ||
      `${file(row)}\n${named(row[LABEL])}\n${row[PREDICT] === -1 ? "" : named(row[PREDICT])}`.toLowerCase().includes(text)));
}

function sorted(rows) {
  const column = COLUMNS.find((each) => each.key === state.key), by = column.by || ((row) => row[state.key]);
  const sign = state.down ? -1 : 1, names = new Intl.Collator("en", { numeric: true });
  return rows.map((row) => [by(row), row]).sort(([a, rowA], [b, rowB]) => {
    if (a === null || b === null) return (a === null) - (b === null) || rowA[IDX] - rowB[IDX];
    return sign * (typeof a === "string" ? names.compare(a, b) : a - b) || rowA[IDX] - rowB[IDX];
  }).map(([, row]) => row);
}

function draw(until) {
  const columns = shown(), lines = document.createDocumentFragment();
  for (const row of state.rows.slice(state.drawn, until)) {
    const line = element("tr");
    for (const column of columns) {
      const cell = element("td", undefined, column.kind);
      if (column.fill) column.fill(cell, row); else cell.textContent = column.text(row);
      line.append(cell);
    }
    lines.append(line);
  }
  document.querySelector("#list tbody").append(lines);
  state.drawn = Math.min(until, state.rows.length);
  const all = run().rows.length;
  const found = state.rows.length === all ? `${all} images` : `${state.rows.length} of ${all} images`;
  $("status").textContent = found + (state.drawn < state.rows.length ? `, the first ${state.drawn} of them shown` : "");
  $("further").hidden = state.drawn === state.rows.length;
}

function update() {
  heading();
  state.rows = sorted(filtered());
  state.drawn = 0;
  document.querySelector("#list tbody").replaceChildren();
  draw(STEP);
}

function choose() {
  state.run = Number($("run").value);
  if (state.key === GAIN && !gained()) state.key = IDX;
  $("gain-filter").hidden = !gained();
  const before = $("label").value;
  const labels = [...new Set(run().rows.map((row) => row[LABEL]))].sort((a, b) => a - b);
  $("label").replaceChildren(...[["all", "all"], ...labels.map((label) => [label, named(label)])].map(([value, text]) => {
    const option = element("option", text);
    option.value = value;
    return option;
  }));
  $("label").value = labels.map(String).includes(before) ? before : "all";
  update();
}

data.runs.forEach((each, place) => {
  const option = element("option", each.name);
  option.value = place;
  $("run").append(option);
});
const first = data.runs.findIndex((each) => each.rows.some((row) => row[GAIN] !== null));
$("run").value = Math.max(first, 0);
for (const cell of document.querySelectorAll("[data-picture]")) {
  const own = data.runs.find((each) => each.name === cell.dataset.run);
  cell.append(picture(cell.dataset.picture, own.set, ""));
}
$("run").addEventListener("change", choose);
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("filters").addEventListener("reset", () => {
  const before = $("run").value;
  setTimeout(() => { $("run").value = before; choose(); });
});
for (const id of ["text", "label", "answer", "least", "most", "gain"]) $(id).addEventListener("input", update);
$("further").addEventListener("click", () => draw(state.drawn + STEP));
new IntersectionObserver((seen) => {
  if (seen.some((each) => each.isIntersecting) && state.drawn < state.rows.length) draw(state.drawn + STEP);
}, { rootMargin: "600px" }).observe($("further"));
addEventListener("beforeprint", () => state.drawn < IN_PRINT && draw(IN_PRINT));
choose();
