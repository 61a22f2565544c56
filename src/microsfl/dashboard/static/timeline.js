// What each client did when: the last rounds second by second, or all rounds at a glance.

import { Chart, plain } from "./charts.js";
import { el, setHidden } from "./dom.js";
import { plural, seconds } from "./format.js";

const SPANS = { 1: "Last round", 3: "Last 3", 10: "Last 10", all: "All rounds" };
const [ROW_PX, MANY, LOW_ROW_PX] = [18, 40, 9]; // so that a hundred clients fit on a screen

export class Timeline {
  constructor() {
    this.span = "3";
    this.until = null;
    this.chart = new Chart("Timeline of the clients", { tall: true });
    this.field = el("input", {
      type: "number", min: "1", placeholder: "newest", "aria-label": "Last round to show; empty: the newest",
      oninput: () => this._until(),
    });
    this.asked = el("label", {}, "up to round ", this.field);
    this.element = el(
      "section",
      { class: "card", "aria-label": "Timeline" },
      el("header", {}, el("h2", {}, "Timeline"), this._controls()),
      this.chart.element,
    );
  }

  close() {
    this.chart.close();
  }

  _controls() {
    const radios = Object.entries(SPANS).map(([value, label]) =>
      el(
        "label",
        {},
        el("input", { type: "radio", name: "span", value, checked: value === this.span, onchange: () => this._show(value) }),
        label,
      ),
    );
    return el("div", { class: "choices", role: "group", "aria-label": "Rounds to show" }, radios, this.asked);
  }

  _show(span) {
    this.span = span;
    setHidden(this.asked, span === "all");
    this._draw();
  }

  _until() {
    const number = Number.parseInt(this.field.value, 10);
    this.until = Number.isInteger(number) && number >= 1 ? number - 1 : null;
    this._draw();
  }

  update(history) {
    this.history = history;
    this._draw();
  }

  _draw() {
    if (!this.history) return;
    this.chart.draw((colours) => {
      const clients = [...new Set([...this.history.run.clients, ...this.history.clients])].sort();
      const height = Math.max(180, clients.length * (clients.length > MANY ? LOW_ROW_PX : ROW_PX) + 100);
      const drawn = this.span === "all" ? atAGlance(colours, this.history, clients) : this._bySecond(colours, clients);
      drawn.layout.yaxis = {
        type: "category",
        categoryorder: "array",
        categoryarray: [...clients].reverse(),
        range: [-0.7, clients.length - 0.3],
        gridcolor: "rgba(0,0,0,0)",
        tickfont: { size: clients.length > MANY ? 10 : 12 },
        dtick: clients.length > MANY ? 5 : 1,
        tick0: (clients.length - 1) % 5,
        ...drawn.layout.yaxis,
      };
      return { ...drawn, height };
    });
  }

  _bySecond(colours, clients) {
    const { history } = this;
    const last = Math.min(this.until ?? history.last, history.last);
    const first = Math.max(0, last - Number(this.span) + 1);
    const rounds = history.rounds.slice(first, last + 1).filter((row) => row && row.started_at);
    const zero = rounds.length ? rounds[0].started_at : 0;
    const kinds = kindsOf(colours);
    for (const round of rounds) for (const client of clients) spans(kinds, history, round, client);
    const data = Object.values(kinds).map((kind) => ({
      type: "bar",
      orientation: "h",
      name: kind.name,
      y: kind.bars.map((bar) => bar.client),
      x: kind.bars.map((bar) => bar.seconds),
      base: kind.bars.map((bar) => bar.from - zero),
      text: kind.bars.map((bar) => bar.text),
      textposition: "none",
      marker: { color: kind.colour, pattern: kind.pattern ? { shape: "/", size: 5, solidity: 0.35 } : undefined, line: { width: 0 } },
      width: kind.width,
      hovertemplate: "%{y}, %{text}<extra></extra>",
    }));
    return {
      data,
      layout: {
        barmode: "overlay",
        xaxis: { title: { text: "seconds" }, rangemode: "tozero", autorange: true },
        shapes: rounds.map((row) => boundary(colours, row.started_at - zero)),
        annotations: rounds.map((row) => label(colours, row.started_at - zero, `round ${row.round + 1}`)),
        margin: { t: 48 },
        legend: { y: 1, yref: "container", yanchor: "top" },
        showlegend: true,
        uirevision: `${first}-${last}`,
      },
      says: rounds.length
        ? `Rounds ${first + 1} to ${last + 1}: ${kinds.trained.bars.length} trainings, ` +
          `${plural(kinds.late.bars.length, "late")}, ${kinds.without.bars.length} left out otherwise.`
        : "No round has begun yet.",
    };
  }
}

function kindsOf(colours) {
  const kind = (name, colour, more = {}) => ({ name, colour, bars: [], width: 0.62, ...more });
  return {
    waited: kind("waited", colours.line, { width: 0.2 }),
    trained: kind("trained", colours.accent),
    evaluated: kind("evaluated", colours.good),
    late: kind("late", colours.warn, { pattern: true }),
    without: kind("left out", colours.bad, { pattern: true }),
  };
}

const isLate = (absence) => absence.reason.startsWith("late:");

/** Bars of one client in one round. */
function spans(kinds, history, round, client) {
  const add = (kind, from, until, text) => {
    if (until > from) kind.bars.push({ client, from, seconds: until - from, text: plain(text) });
  };
  const get = (field) => history.value(client, field, round.round);
  const named = `round ${round.round + 1}`;
  const absences = (round.absent || []).filter((one) => one.client === client);
  for (const one of absences) {
    const evaluating = one.phase === "evaluating" && round.synced_at;
    const until = (evaluating ? round.ended_at : round.synced_at) || round.ended_at;
    const from = evaluating ? round.synced_at : round.started_at;
    if (until) add(isLate(one) ? kinds.late : kinds.without, from, until, `${named}: ${one.reason}`);
  }
  const [start, took] = [get("started_at"), get("seconds")];
  const trained = start === null || took === null ? null : start + took;
  if (trained !== null) {
    add(kinds.trained, start, trained, `${named}: trained ${seconds(took)}`);
    add(kinds.waited, round.started_at, start, `${named}: waited ${seconds(start - round.started_at)} for its turn`);
    if (round.synced_at) add(kinds.waited, trained, round.synced_at, `${named}: waited ${seconds(round.synced_at - trained)} for the others and the sync`);
  }
  const [evalStart, evalTook] = [get("eval_started_at"), get("eval_seconds")];
  if (evalStart !== null && evalTook !== null) {
    add(kinds.evaluated, evalStart, evalStart + evalTook, `${named}: evaluated ${seconds(evalTook)}`);
  }
}

function boundary(colours, x) {
  return { type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, line: { color: colours["strong-line"], width: 1, dash: "dot" } };
}

function label(colours, x, text) {
  return { x, yref: "paper", y: 1, text, showarrow: false, xanchor: "left", yanchor: "bottom", font: { size: 11, color: colours.muted } };
}

/** A cell for each client and round, the darker the longer it trained; who was left out has a cross. */
function atAGlance(colours, history, clients) {
  const rounds = history.rounds.map((_, round) => round + 1);
  const z = clients.map((client) => rounds.map((round) => history.value(client, "seconds", round - 1)));
  const absences = history.absences();
  return {
    data: [
      {
        type: "heatmap",
        x: rounds,
        y: clients,
        z,
        colorscale: [[0, colours["accent-soft"]], [1, colours.accent]],
        zmin: 0,
        colorbar: { title: { text: "seconds of training", side: "right" }, thickness: 10, outlinewidth: 0, tickcolor: colours.line },
        hovertemplate: "%{y}, round %{x}: trained %{z:.2f} s<extra></extra>",
        hoverongaps: false,
        xgap: rounds.length > 80 ? 0 : 1,
        ygap: 1,
      },
      {
        type: "scatter",
        mode: "markers",
        x: absences.map((one) => one.round + 1),
        y: absences.map((one) => one.client),
        text: absences.map((one) => plain(one.reason)),
        marker: { symbol: "x-thin", size: 7, line: { width: 1.6, color: absences.map((one) => (isLate(one) ? colours.warn : colours.bad)) } },
        hovertemplate: "%{y}, round %{x}<br>%{text}<extra></extra>",
      },
    ],
    layout: {
      xaxis: { title: { text: "round" }, tickformat: ",d", range: [0.5, Math.max(1, rounds.length) + 0.5], autorange: false },
      shapes: [],
      annotations: [],
      showlegend: false,
      uirevision: "all",
    },
    says: `${plural(clients.length, "client")} in ${plural(rounds.length, "round")}, ${plural(absences.length, "absence")}.`,
  };
}
