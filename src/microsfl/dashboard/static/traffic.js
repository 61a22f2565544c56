// Bytes and seconds of each round.

import { Chart } from "./charts.js";
import { el } from "./dom.js";
import { bytes, seconds } from "./format.js";

const rounds = (values) => values.map((_, round) => round + 1);

export class Traffic {
  constructor() {
    this.bytes = new Chart("Bytes of all clients by round");
    this.seconds = new Chart("Seconds by round");
    this.element = el(
      "div",
      { class: "pair" },
      el("section", { class: "card", "aria-label": "Traffic" }, el("header", {}, el("h2", {}, "Bytes of a round"), el("span", { class: "note" }, "all clients together")), this.bytes.element),
      el("section", { class: "card", "aria-label": "Time" }, el("header", {}, el("h2", {}, "Seconds of a round"), el("span", { class: "note" }, "wall time")), this.seconds.element),
    );
  }

  close() {
    this.bytes.close();
    this.seconds.close();
  }

  update(history) {
    this.bytes.draw((colours) => bytesChart(colours, history));
    this.seconds.draw((colours) => secondsChart(colours, history));
  }
}

function bytesChart(colours, history) {
  const { up, down } = history.totals;
  const area = (values, name, colour) => ({
    type: "bar",
    x: rounds(values),
    y: values,
    customdata: values.map(bytes),
    name,
    marker: { color: colour },
    hovertemplate: `round %{x}: %{customdata} ${name}<extra></extra>`,
  });
  const all = history.bytes();
  return {
    data: [area(up, "up", colours.accent), area(down, "down", colours.thin)],
    layout: {
      barmode: "stack",
      bargap: up.length > 60 ? 0 : 0.25,
      xaxis: { title: { text: "round" }, tickformat: ",d", range: [0.5, Math.max(10, up.length) + 0.5] },
      yaxis: { title: { text: "bytes" }, tickformat: "~s", rangemode: "tozero" },
      showlegend: true,
      legend: { traceorder: "normal" },
    },
    says: `${bytes(all.up)} up and ${bytes(all.down)} down in all.`,
  };
}

function secondsChart(colours, history) {
  const rows = history.rounds.filter((row) => row && row.started_at);
  const line = (name, colour, value) => {
    const found = rows.filter((row) => value(row) !== null);
    return {
      type: "scatter",
      mode: found.length < 3 ? "lines+markers" : "lines",
      x: found.map((row) => row.round + 1),
      y: found.map(value),
      name,
      line: { color: colour, width: 2 },
      hovertemplate: `round %{x}: %{y:.2f} s ${name}<extra></extra>`,
    };
  };
  const evaluation = (row) => (row.ended_at && row.synced_at ? Math.max(0, row.ended_at - row.synced_at) : null);
  const last = history.latest();
  return {
    data: [line("training and sync", colours.accent, (row) => row.seconds ?? null), line("evaluation", colours.warn, evaluation)],
    layout: {
      xaxis: { title: { text: "round" }, tickformat: ",d", range: [0.5, Math.max(10, history.rounds.length) + 0.5] },
      yaxis: { title: { text: "seconds" }, rangemode: "tozero" },
      showlegend: true,
    },
    says: last ? `Round ${last.round + 1} took ${seconds(last.seconds)} without its evaluation.` : "No round is over yet.",
  };
}
