// All rounds as a table, and whom they went on without.

import { LiveTable, el, setHidden } from "./dom.js";
import { bytes, count, plural, rate, seconds } from "./format.js";

const ROW_LIMIT = 100; // absences that are shown; there may be one for each client and round

const ROUNDS = [
  { label: "Round", kind: "number", cell: (one) => count(one.round + 1) },
  { label: "Accuracy", kind: "number", cell: (one) => rate(one.accuracy) },
  { label: "Client mean", kind: "number", cell: (one) => rate(one.accuracy_mean) },
  { label: "Loss", kind: "number", cell: (one) => rate(one.loss) },
  { label: "Training loss", kind: "number", cell: (one) => rate(one.train_loss) },
  { label: "Samples", kind: "number", cell: (one) => count(one.samples) },
  { label: "Seconds", kind: "number", cell: (one) => seconds(one.seconds) },
  { label: "Samples/s", kind: "number", cell: (one) => count(one.samples_per_s) },
  { label: "Up", kind: "number", cell: (one) => bytes(one.up) },
  { label: "Down", kind: "number", cell: (one) => bytes(one.down) },
  { label: "Version", kind: "number", cell: (one) => count(one.body_version) },
  { label: "Contributions", kind: "number", cell: (one) => count(one.contributions) },
  { label: "Left out", kind: "number", cell: (one) => count(one.left_out) },
  { label: "Outliers", cell: (one) => one.outliers.join(", ") || "–" },
];

export class Rounds {
  constructor() {
    this.table = new LiveTable("Rounds, newest first", ROUNDS, { empty: "No round has begun." });
    this.table.scroll.classList.add("limited");
    this.details = el("details", {}, el("summary", {}, "All rounds as a table"), this.table.element);
    this.details.addEventListener("toggle", () => this._draw());
    this.element = el("section", { class: "card", "aria-label": "Rounds" }, this.details);
  }

  close() {}

  update(history) {
    this.history = history;
    this._draw();
  }

  _draw() {
    if (!this.details.open || !this.history) return;
    const { up, down } = this.history.totals;
    const rows = this.history.rounds.filter(Boolean).map((row) => ({ ...row, up: up[row.round], down: down[row.round] }));
    this.table.set(rows.reverse(), (row) => row.round);
  }
}

const ABSENCES = [
  { label: "Round", kind: "number", cell: (one) => count(one.round + 1) },
  { label: "Client", cell: (one) => one.client },
  { label: "In", cell: (one) => one.phase },
  { label: "Why", fill: fillReason },
];

function fillReason(cell, one) {
  cell.className = "text";
  if (cell.textContent !== one.reason) cell.textContent = one.reason;
}

export class Absences {
  constructor() {
    this.table = new LiveTable("Clients that rounds went on without", ABSENCES, { empty: "Every round had all of its clients." });
    this.table.scroll.classList.add("limited");
    this.failure = el("p", { class: "notice bad", hidden: true });
    this.note = el("span", { class: "note" });
    this.element = el(
      "section",
      { class: "card", "aria-label": "Errors and absences" },
      el("header", {}, el("h2", {}, "Errors and absences"), this.note),
      this.failure,
      this.table.element,
    );
  }

  close() {}

  update(history) {
    const { run } = history;
    this.failure.textContent = run.reason ? `The run failed: ${run.reason}` : "";
    setHidden(this.failure, !run.reason);
    const all = history.absences();
    this.note.textContent = all.length > ROW_LIMIT ? `the newest ${ROW_LIMIT} of ${plural(all.length, "absence")}` : plural(all.length, "absence");
    this.table.set(all.slice(0, ROW_LIMIT), (one) => `${one.round}/${one.client}/${one.phase}`);
  }
}
