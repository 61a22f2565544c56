// The list of runs.

import { Events, now } from "./api.js";
import { LiveTable, el, meter, setHidden, setMark, setMeter, setText } from "./dom.js";
import { ago, count, moment, rate, seconds } from "./format.js";
import { operates } from "./session.js";

export const TONES = {
  created: "idle",
  waiting: "warn",
  running: "busy",
  finished: "good",
  failed: "bad",
  stopped: "idle",
};

export const runLink = (name) => `#/runs/${encodeURIComponent(name)}`;

/** Rounds that are over; a run that is in round 3 of 20 has finished as many as the number of the round, from 0. */
export const roundsDone = (run) => (run.state === "finished" ? run.rounds : run.round);

const COLUMNS = [
  { label: "Run", fill: fillName },
  { label: "State", fill: fillState },
  { label: "Progress", fill: fillProgress },
  { label: "Accuracy", kind: "number", cell: (run) => rate(run.accuracy) },
  { label: "Loss", kind: "number", cell: (run) => rate(run.loss) },
  { label: "Strategy", cell: (run) => run.strategy },
  { label: "Data set", cell: (run) => run.dataset },
  { label: "Clients", kind: "number", cell: (run) => count(run.clients) },
  { label: "Started", fill: fillAge },
];

function fillName(cell, run) {
  if (cell.firstChild === null) cell.append(el("a", { href: runLink(run.name) }, run.name));
}

function fillState(cell, run) {
  if (cell.firstChild === null) cell.append(el("div", {}, el("span"), el("div", { class: "why" })));
  const [state, why] = cell.firstChild.children;
  setMark(state, TONES[run.state] || "idle", run.state === "running" && run.phase ? run.phase : run.state);
  setText(why, run.reason || "");
  setHidden(why, !run.reason);
}

function fillProgress(cell, run) {
  if (cell.firstChild === null) cell.append(el("div", { class: "progress" }, meter(0), el("span")));
  const [bar, text] = cell.firstChild.children;
  setMeter(bar, roundsDone(run) / run.rounds);
  setText(text, `${count(roundsDone(run))} of ${count(run.rounds)}`);
}

function fillAge(cell, run) {
  if (cell.firstChild === null) cell.append(el("time"));
  const time = cell.firstChild;
  setText(time, ago(run.created_at, now()));
  const took = run.ended_at ? `, took ${seconds(run.ended_at - run.created_at)}` : "";
  time.title = `${moment(run.created_at)}${took}`;
}

export function show(main) {
  let overview = null;
  const table = new LiveTable("Runs", COLUMNS, { cards: true, empty: "" });
  const none = howToStart();
  const loading = el("p", { class: "empty" }, "Asking the coordinator …");
  const about = el("p", { class: "muted" });
  table.element.hidden = true;
  none.hidden = true;
  main.append(
    el(
      "div",
      { class: "head" },
      el("div", {}, el("h1", {}, "Runs"), about),
      operates() ? el("a", { class: "button primary", href: "#/new" }, "New run") : null,
    ),
    loading,
    el("div", { class: "card bare" }, table.element),
    none,
  );

  const draw = () => {
    if (overview === null) return;
    const runs = [...overview.runs].sort((a, b) => b.created_at - a.created_at);
    loading.hidden = true;
    setHidden(table.element.parentElement, runs.length === 0);
    setHidden(table.element, runs.length === 0);
    setHidden(none, runs.length !== 0);
    table.set(runs, (run) => run.name);
    const { version, started_at: since } = overview.coordinator;
    setText(about, `Coordinator ${version}, up since ${moment(since)}`);
  };

  const events = new Events(() => "/api/events", {
    overview(data) {
      overview = data;
      draw();
    },
  });
  const timer = setInterval(draw, 5000);
  return {
    close() {
      events.close();
      clearInterval(timer);
    },
  };
}

function howToStart() {
  if (!operates()) return el("p", { class: "empty" }, "No run yet. An operator can start one.");
  return el(
    "div",
    { class: "card start" },
    el("h2", {}, "No run yet"),
    el("p", {}, "Choose a data set, a model and a strategy, and watch it train."),
    el("p", {}, el("a", { class: "button primary", href: "#/new" }, "Start a run")),
    el("p", { class: "muted" }, "From a terminal, with this coordinator:"),
    el(
      "pre",
      { tabindex: "0" },
      `microsfl run mnist.toml --coordinator ${location.origin}`,
    ),
  );
}
