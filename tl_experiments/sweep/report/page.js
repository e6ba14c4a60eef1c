"use strict";
(() => {
  const drawings = JSON.parse(document.getElementById("drawings").textContent);
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const charts = [...document.querySelectorAll(".chart")];
  const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const short = (text) => (text.length > 14 ? text.slice(0, 7) + "…" + text.slice(-6) : text);

  function theme() {
    const ink = css("--ink"), line = css("--line");
    const axis = { gridcolor: line, zerolinecolor: line, linecolor: line };
    return { font: { color: ink, family: getComputedStyle(document.body).fontFamily, size: 12 }, axis, card: css("--card") };
  }

  function layoutOf(layout) {
    const { font, axis, card } = theme();
    return {
      margin: { l: 56, r: 16, t: 24, b: 44 }, showlegend: false, modebar: { bgcolor: "rgba(0,0,0,0)" }, hovermode: "closest", ...layout, font,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hoverlabel: { align: "left", bgcolor: card, font },
      xaxis: { automargin: true, ...axis, ...layout.xaxis }, yaxis: { automargin: true, ...axis, ...layout.yaxis },
    };
  }

  // Colour by the square root of the share of the true class, so that a few mistakes among many images can be seen.
  function matrix({ names, counts }) {
    const shares = counts.map((row) => { const sum = row.reduce((a, b) => a + b, 0) || 1; return row.map((n) => n / sum); });
    const few = names.length <= 10;
    const places = names.map((_, i) => i);
    const step = Math.ceil(names.length / (names.length <= 20 ? 20 : 15));
    const ticks = places.filter((i) => i % step === 0);
    const axis = { tickvals: ticks, ticktext: ticks.map((i) => escaped(short(names[i]))), showgrid: false, zeroline: false, tickfont: { size: 11 } };
    const trace = {
      type: "heatmap", x: places, y: places, z: shares.map((row) => row.map(Math.sqrt)), zmin: 0, zmax: 1,
      colorscale: "Cividis", showscale: false, xgap: few ? 1 : 0, ygap: few ? 1 : 0, hoverinfo: "text",
      hovertext: counts.map((row, i) => row.map((n, j) =>
        `true ${escaped(names[i])}<br>said ${escaped(names[j])}<br>${n.toLocaleString("en")} images, ${(100 * shares[i][j]).toFixed(1)} % of the class`)),
      ...(few ? { text: counts.map((row) => row.map((n) => (n ? n.toLocaleString("en") : ""))), texttemplate: "%{text}" } : {}),
    };
    return {
      traces: [trace],
      layout: {
        xaxis: { ...axis, tickangle: -40, title: { text: "predicted" }, constrain: "domain" },
        yaxis: { ...axis, title: { text: "true" }, autorange: "reversed", scaleanchor: "x", constrain: "domain" },
        margin: { l: 40, r: 8, t: 8, b: 40 },
      },
    };
  }

  function draw(chart) {
    const what = chart.dataset.plot ? drawings.plots[chart.dataset.plot] : matrix(drawings.matrices[chart.dataset.matrix]);
    chart.plotted = what.layout;
    const config = { responsive: true, displaylogo: false, displayModeBar: "hover", modeBarButtons: [["toImage"]] };
    return Plotly.newPlot(chart, what.traces, layoutOf(what.layout), config);
  }

  function repaint() {
    for (const chart of charts) {
      if (chart.plotted) { Plotly.relayout(chart, layoutOf(chart.plotted)); }
    }
  }

  // One chart at a time, so that the page can be read and scrolled meanwhile.
  (async () => {
    for (const chart of charts) {
      await new Promise((resolve) => setTimeout(resolve));
      try { await draw(chart); } catch (error) { chart.textContent = "This chart could not be drawn: " + error.message; }
    }
    document.documentElement.dataset.ready = "true";
  })();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  addEventListener("beforeprint", repaint);
  addEventListener("afterprint", repaint);

  function showRows(shown) {
    for (const chart of charts) {
      if (!(chart.dataset.plot || "").startsWith("curves") || !chart.data) { continue; }
      Plotly.restyle(chart, { visible: chart.data.map((trace) => shown.has(trace.legendgroup)) });
    }
  }

  const keys = [...document.querySelectorAll(".legend button")];
  function press(chosen) {
    for (const key of keys) { key.setAttribute("aria-pressed", String(chosen(key))); }
    showRows(new Set(keys.filter((key) => key.getAttribute("aria-pressed") === "true").map((key) => key.dataset.row)));
  }
  const pressed = (key) => key.getAttribute("aria-pressed") === "true";
  for (const key of keys) {
    key.addEventListener("click", (event) => {
      if (event.detail < 2) { press((other) => (other === key ? !pressed(other) : pressed(other))); }
    });
    key.addEventListener("dblclick", () => {
      const alone = keys.every((other) => other === key || !pressed(other)) && keys.length > 1 && key.dataset.alone;
      for (const other of keys) { delete other.dataset.alone; }
      if (!alone) { key.dataset.alone = "true"; }
      press((other) => alone || other === key);
    });
  }

  for (const fold of document.querySelectorAll(".fold")) {
    fold.addEventListener("click", () => {
      const open = fold.getAttribute("aria-expanded") !== "true";
      fold.setAttribute("aria-expanded", String(open));
      fold.closest("tbody").querySelector(".runs").hidden = !open;
    });
  }

  function order(a, b) {
    const x = Number(a), y = Number(b);
    if (!Number.isNaN(x) && !Number.isNaN(y)) { return x - y; }
    return a.localeCompare(b, "en", { numeric: true });
  }

  const table = document.querySelector(".results");
  for (const head of table ? table.tHead.rows[0].cells : []) {
    const button = head.querySelector("button");
    if (!button) { continue; }
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) { other.removeAttribute("aria-sort"); }
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (body) => body.rows[0].cells[head.cellIndex].dataset.value;
      const bodies = [...table.tBodies].sort((a, b) => {
        const x = value(a), y = value(b);
        if (x === "" || y === "") { return (x === "") - (y === ""); } // what is not known comes last either way
        return down ? order(y, x) : order(x, y);
      });
      table.append(...bodies);
    });
  }
})();
