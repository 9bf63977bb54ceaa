"use strict";
// The map: which projection, which colour; pointing at a point shows its example, a click keeps it.
(async () => {
  const data = REPORT.sections.map;
  if (!data) return;
  const place = document.getElementById("map-plot"), tip = document.getElementById("tip");
  const sheet = data.sheet && loadSheet(data.sheet), copies = data.copies && loadSheet(data.copies);
  await Promise.all([sheet, copies].filter(Boolean).map((one) => one.ready));
  const state = { map: data.maps[0], colour: data.colours[0], point: 0 };

  function traces() {
    const [x, y] = state.map.points, { kind, names, values } = state.colour;
    const marker = { size: x.length > 800 ? 5.5 : 8, opacity: 0.85, line: { width: 0 } };
    const base = { type: "scatter", mode: "markers", hoverinfo: "none" };
    if (kind === "number") {
      const bar = { thickness: 10, outlinewidth: 0, title: { text: state.colour.title, side: "right" } };
      return [{ ...base, x, y, customdata: x.map((_, i) => i),
        marker: { ...marker, color: values, colorscale: "Viridis", showscale: true, colorbar: bar } }];
    }
    return names.map((name, group) => {
      const rows = values.flatMap((value, i) => (value === group ? [i] : []));
      return { ...base, name, x: rows.map((i) => x[i]), y: rows.map((i) => y[i]), customdata: rows,
        marker: { ...marker, color: PALETTE[group % PALETTE.length] } };
    });
  }

  // The name of a group at the middle of its points.
  function labels(drawn) {
    if (!state.colour.labels) return [];
    const middle = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];
    return drawn.filter((trace) => trace.x.length).map((trace) => ({
      x: middle(trace.x), y: middle(trace.y), text: `<b>${trace.name}</b>`, showarrow: false, captureevents: false,
      font: { size: 12, color: colour("--ink") }, bgcolor: colour("--card"), bordercolor: trace.marker.color,
      borderpad: 2, borderwidth: 1.5, opacity: 0.88,
    }));
  }

  function redraw() {
    const drawn = traces(), bare = { showgrid: false, zeroline: false, showticklabels: state.map.key === "codes", showline: false, constrain: "range" };
    const layout = themed({ data: drawn, layout: {
      equal: true, xaxis: bare, yaxis: bare, hovermode: "closest", dragmode: "pan", showlegend: drawn.length > 1,
      margin: { l: 12, r: 12, t: 30, b: 12 }, annotations: labels(drawn), uirevision: state.map.key,
    } });
    Plotly.react(place, drawn, layout, { ...CONFIG, scrollZoom: true });
    document.getElementById("map-note").textContent = state.map.note;
  }

  const told = (option, i) => (option.kind === "number" ? option.values[i] : option.names[option.values[i]]);

  function show(i) {
    state.point = i;
    if (sheet) paint(document.getElementById("map-picture"), sheet, i);
    if (copies) {
      document.getElementById("map-copy-figure").hidden = false;
      paint(document.getElementById("map-copy"), copies, i);
    }
    const facts = document.getElementById("map-facts");
    const rows = [["", data.caption[i]], ...data.colours.map((option) => [option.title, told(option, i)])];
    facts.replaceChildren(...rows.flatMap(([name, value]) => {
      const term = document.createElement("dt"), text = document.createElement("dd");
      term.textContent = name || "which";
      text.textContent = value;
      return [term, text];
    }));
    document.getElementById("map-near-title").textContent = `Nearest ${data.space}`;
    document.getElementById("map-near").replaceChildren(...(sheet ? data.neighbours[i].map((other) => {
      const canvas = document.createElement("canvas");
      paint(canvas, sheet, other);
      return canvas;
    }) : [document.createTextNode(data.neighbours[i].map((other) => data.caption[other]).join(", "))]));
  }

  choice("map-method", (key) => { state.map = data.maps.find((map) => map.key === key); redraw(); }).choose(state.map.key);
  choice("map-colour", (key) => { state.colour = data.colours.find((one) => one.key === key); redraw(); }).choose(state.colour.key);
  show(0);
  redraws.push(redraw);

  place.on("plotly_hover", ({ points, event }) => {
    const i = points[0].customdata;
    show(i);
    const canvas = tip.querySelector("canvas");
    canvas.hidden = !sheet;
    if (sheet) paint(canvas, sheet, i);
    tip.querySelector("span").textContent = `${state.colour.title} ${told(state.colour, i)}`;
    tip.hidden = false;
    const left = Math.min(event.clientX + 18, innerWidth - tip.offsetWidth - 8);
    tip.style.left = `${left}px`;
    tip.style.top = `${Math.max(8, event.clientY - tip.offsetHeight - 14)}px`;
  });
  place.on("plotly_unhover", () => { tip.hidden = true; });
})();
