// The clients of one run: health, what each is at, and its newest results.

import { LiveTable, el } from "./dom.js";
import { bytes, count, plural, rate, seconds } from "./format.js";
import { fillHealth, fillSeen, isAlive } from "./participants.js";

const WORDS = { train: "to train", evaluate: "to evaluate", done: "done, waits", left_out: "left out" };

const COLUMNS = [
  { label: "Client", cell: (one) => one.id },
  { label: "Health", fill: fillHealth },
  { label: "Now", cell: (one) => one.doing },
  { label: "Last seen", fill: fillSeen },
  { label: "Round", kind: "number", cell: (one) => (one.round === null ? "–" : count(one.round + 1)) },
  { label: "Accuracy", kind: "number", cell: (one) => rate(one.accuracy) },
  { label: "Loss", kind: "number", cell: (one) => rate(one.loss) },
  { label: "Samples", kind: "number", cell: (one) => count(one.samples) },
  { label: "Trained", kind: "number", cell: (one) => seconds(one.seconds) },
  { label: "Traffic", kind: "number", cell: (one) => bytes(one.bytes) },
  { label: "Restarts", kind: "number", cell: (one) => count(one.restarts) },
  { label: "Outlier", cell: (one) => (one.outlierIn === undefined ? "–" : `in round ${count(one.outlierIn + 1)}`) },
];

export class Clients {
  constructor() {
    this.known = new Map();
    this.table = new LiveTable("Clients of this run", COLUMNS, { empty: "The run has no clients yet; it begins when enough of them are there." });
    this.table.scroll.classList.add("limited");
    this.note = el("span", { class: "note" });
    this.element = el("section", { class: "card", "aria-label": "Clients" }, el("header", {}, el("h2", {}, "Clients"), this.note), this.table.element);
  }

  close() {}

  take(participants) {
    this.known = new Map(participants.filter((one) => one.role === "client").map((one) => [one.id, one]));
  }

  update(history) {
    const { run } = history;
    const outliers = history.outliers();
    const rows = [...new Set([...run.clients, ...history.clients])].sort().map((id) => ({ ...this._row(history, id), outlierIn: outliers.get(id) }));
    this.table.set(rows);
    const up = rows.filter(isAlive).length;
    const unlike = outliers.size ? `; ${plural(outliers.size, "outlier")}, whose updates are far longer or shorter than the others'` : "";
    this.note.textContent = rows.length ? `${plural(rows.length, "client")}, ${up} up; results of the newest round of each${unlike}` : "";
  }

  _row(history, id) {
    const known = this.known.get(id) || { id, role: "client", last_seen: null, alive: false };
    const columns = history.columns.get(id);
    const round = columns === undefined ? null : lastWith(columns.test_loss) ?? lastWith(columns.train_loss);
    const get = (field) => (round === null ? null : history.value(id, field, round));
    const doing = WORDS[history.run.progress[id]];
    const sent = ["bytes_up", "bytes_down", "eval_bytes_up", "eval_bytes_down"].map(get);
    return {
      ...known,
      doing: known.doing || doing || "–",
      round,
      accuracy: get("test_accuracy"),
      loss: get("test_loss"),
      samples: get("samples"),
      seconds: get("seconds"),
      bytes: sent.every((value) => value === null) ? null : sent.reduce((a, b) => a + (b || 0), 0),
    };
  }
}

function lastWith(values) {
  for (let round = values.length - 1; round >= 0; round -= 1) if (typeof values[round] === "number") return round;
  return null;
}
