"use strict";
// The page's data, its theme, and every plot that is only looked at. map.js and traversals.js come after.
const REPORT = JSON.parse(document.getElementById("data").textContent);
const PALETTE = ["#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e",
  "#9498a0", "#1b9e77", "#d95f02", "#7570b3", "#e7298a", "#66a61e", "#e6ab02", "#a6761d", "#666666", "#386cb0", "#f0027f"];
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const redraws = [];

// Theme ---------------------------------------------------------------------------------------------------------
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme || (prefersDark.matches ? "dark" : "light")) === "dark";
const redrawAll = () => redraws.forEach((redraw) => redraw());
document.getElementById("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  redrawAll();
});
prefersDark.addEventListener("change", redrawAll);

// Plots ---------------------------------------------------------------------------------------------------------
const CONFIG = { displaylogo: false, responsive: true, displayModeBar: false };
const SCALES = {
  sequential: () => (isDark()
    ? [[0, "#1a1d23"], [0.35, "#2c4590"], [0.7, "#6f8cf0"], [1, "#e6ecff"]]
    : [[0, "#ffffff"], [0.35, "#b9c7f3"], [0.7, "#4a67cf"], [1, "#16246b"]]),
  diverging: () => (isDark()
    ? [[0, "#ff8a70"], [0.5, "#1a1d23"], [1, "#7d9bff"]]
    : [[0, "#c8452c"], [0.5, "#ffffff"], [1, "#2f52c0"]]),
};

function axis(given, extra) {
  return {
    gridcolor: colour("--grid"), zerolinecolor: colour("--grid"), linecolor: colour("--line"), automargin: true,
    tickfont: { size: 11 }, ...extra, ...given,
    title: { font: { size: 12 }, standoff: 6, ...(given && given.title) },
  };
}

function themed(plot, small) {
  const { equal, square, xaxis, yaxis, ...layout } = plot.layout || {};
  const heat = plot.data.some((trace) => trace.type === "heatmap");
  const shown = layout.showlegend ?? plot.data.length > 1;
  const result = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", colorway: PALETTE,
    font: { family: "system-ui, sans-serif", size: 12, color: colour("--soft") },
    margin: small ? { l: 44, r: 12, t: 8, b: 32 } : { l: 52, r: 18, t: 14, b: 44 },
    showlegend: shown, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 11 } },
    hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--line"), font: { color: colour("--ink") } },
    xaxis: axis(xaxis, heat ? { showgrid: false } : {}), yaxis: axis(yaxis, heat ? { showgrid: false } : {}), ...layout,
  };
  if (small && shown) result.margin.t = 26;
  if (equal) Object.assign(result.yaxis, { scaleanchor: "x" });
  if (equal) result.xaxis.constrain = result.yaxis.constrain = square ? "domain" : "range";
  if (square && heat) Object.assign(result.yaxis, { scaleanchor: "x", constrain: "domain" }), (result.xaxis.constrain = "domain");
  result.shapes = (layout.shapes || []).map((shape) => ({ ...shape, line: { color: colour("--soft"), ...shape.line } }));
  return result;
}

// A split has one colour in every plot.
const SPLITS = { train: 0, validation: 1, test: 2 };

function dressed(trace) {
  const { scale, ...rest } = trace;
  if (trace.name in SPLITS) return { ...rest, line: { ...rest.line, color: PALETTE[SPLITS[trace.name]] } };
  if (scale) return { ...rest, colorscale: SCALES[scale](), colorbar: { thickness: 10, len: 0.8, outlinewidth: 0, tickfont: { size: 10 } } };
  return rest;
}

function draw(place) {
  const plot = REPORT.plots[place.dataset.plot], small = place.classList.contains("small");
  Plotly.react(place, plot.data.map(dressed), themed(plot, small), CONFIG);
}

// Plots in a closed fold have no size: they are drawn when it opens.
for (const place of document.querySelectorAll("[data-plot]")) {
  const fold = place.closest("details");
  const visible = () => !fold || fold.open;
  const show = () => visible() && draw(place);
  if (fold) fold.addEventListener("toggle", show);
  redraws.push(show);
  show();
}

// Pictures out of a sheet -----------------------------------------------------------------------------------------
function loadSheet(sheet) {
  const image = new Image();
  image.src = sheet.src;
  return { ...sheet, image, ready: image.decode() };
}

function paint(canvas, sheet, number, count = 1) {
  const { width, height, columns, image } = sheet;
  canvas.width = width * count;
  canvas.height = height;
  const context = canvas.getContext("2d");
  for (let i = 0; i < count; i++) {
    const place = number + i, x = (place % columns) * width, y = Math.floor(place / columns) * height;
    context.drawImage(image, x, y, width, height, i * width, 0, width, height);
  }
}

// Choices: one button of a group is on -----------------------------------------------------------------------------
function choice(id, changed) {
  const buttons = [...document.querySelectorAll(`#${id} button`)];
  const choose = (value) => {
    buttons.forEach((button) => {
      button.classList.toggle("on", button.value === value);
      button.setAttribute("aria-pressed", button.value === value);
    });
    changed(value);
  };
  buttons.forEach((button) => button.addEventListener("click", () => choose(button.value)));
  return { choose, first: buttons.length ? buttons[0].value : "" };
}

// Where we are ------------------------------------------------------------------------------------------------------
const links = new Map([...document.querySelectorAll("nav .links a")].map((link) => [link.hash.slice(1), link]));
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    links.forEach((link) => link.classList.remove("here"));
    links.get(entry.target.id)?.classList.add("here");
  }
}, { rootMargin: "-20% 0px -70% 0px" });
document.querySelectorAll("main section").forEach((section) => watcher.observe(section));
