// Which contributions went into each version, and which did not, and why.

import { get, now, runPath } from "./api.js";
import { LiveTable, el, setHidden, setText } from "./dom.js";
import { ago, count, moment, plural } from "./format.js";

const STEP = 25; // versions that are asked for at first, and with each click on "older"
const PAUSE_MS = 1500;
const LONG_PAUSE_MS = 10000; // where the files are gone, or nobody can be asked

const COLUMNS = [
  { label: "Version", kind: "number", cell: (one) => count(one.version) },
  { label: "Parent", kind: "number", cell: (one) => (one.parent === null ? "–" : count(one.parent)) },
  { label: "Round", kind: "number", cell: (one) => count(one.round + 1) },
  { label: "Made", fill: fillAge },
  { label: "Batches", kind: "number", cell: (one) => count(total(one, "batches")) },
  { label: "Samples", kind: "number", cell: (one) => count(total(one, "samples")) },
  { label: "What went in", fill: fillContributions },
  { label: "Left out", fill: fillLeftOut },
];

const total = (commit, field) => commit.contributions.reduce((sum, one) => sum + one[field], 0);

function fillAge(cell, one) {
  if (cell.firstChild === null) cell.append(el("time"));
  setText(cell.firstChild, ago(one.created_at, now()));
  cell.firstChild.title = moment(one.created_at);
}

function fillContributions(cell, one) {
  if (cell.firstChild !== null) return; // a commit never changes
  if (one.contributions.length === 0) {
    cell.append("nothing");
    return;
  }
  const lines = one.contributions.map((part) =>
    el("li", {}, `${part.client}: ${plural(part.units, "unit")}, ${plural(part.batches, "batch", "batches")}, ${plural(part.samples, "sample")}`),
  );
  const units = total(one, "units");
  const summary = `${plural(units, "unit")} of ${plural(one.contributions.length, "client")}${one.closes ? ", closes its round" : ""}`;
  cell.append(unfolding(summary, lines));
}

function fillLeftOut(cell, one) {
  if (cell.firstChild !== null) return;
  if (one.left_out.length === 0) {
    cell.append("–");
    return;
  }
  const lines = one.left_out.map((part) => el("li", {}, `${part.client}, unit ${part.unit}: ${part.reason}`));
  cell.append(unfolding(plural(one.left_out.length, "unit"), lines));
}

function unfolding(summary, lines) {
  return el("details", {}, el("summary", {}, summary), el("ul", { class: "plain" }, lines));
}

export class Commits {
  /** said: told {files, message} as often as the files are looked at. */
  constructor(name, said) {
    Object.assign(this, { name, said, commits: new Map(), asked: 0, from: null, newest: -1, busy: false });
    this.table = new LiveTable("Commits, newest first", COLUMNS, { empty: "No commit yet." });
    this.table.scroll.classList.add("limited");
    this.older = el("button", { type: "button", class: "quiet", hidden: true, onclick: () => this._ask(this.from - STEP) }, "Older commits");
    this.error = el("p", { class: "note", hidden: true });
    this.element = el(
      "section",
      { class: "card", "aria-label": "Commits" },
      el("header", {}, el("h2", {}, "Commits"), el("span", { class: "note" }, "each is one step of the body")),
      this.error,
      this.table.element,
      this.older,
    );
  }

  close() {
    clearTimeout(this.timer);
  }

  update(history) {
    const version = history.run.body_version;
    if (this.from === null) this._ask(version - STEP);
    else if (version > this.newest) this._ask(this.newest);
  }

  /** Commits after version `after`; one question at a time, and not too many. */
  async _ask(after) {
    if (this.busy) return;
    this.busy = true;
    let pause = PAUSE_MS;
    let since = Math.max(0, after);
    this.from = this.from === null ? since : Math.min(this.from, since);
    let answer;
    try {
      do {
        answer = await get(`${runPath(this.name)}/commits?after=${since}`); // as many as fit in an answer
        this._take(answer);
        since = answer.commits.length ? answer.commits[answer.commits.length - 1].version : answer.newest;
      } while (since < answer.newest);
      if (answer.files === "gone") pause = LONG_PAUSE_MS;
      this._tell(answer.files === "there" ? answer.message || "" : "");
    } catch (error) {
      pause = LONG_PAUSE_MS;
      this._tell(error.message);
    }
    this.timer = setTimeout(() => {
      this.busy = false;
    }, pause);
  }

  _tell(message) {
    setText(this.error, message);
    setHidden(this.error, !message);
  }

  _take(answer) {
    for (const one of answer.commits) this.commits.set(one.version, one);
    this.newest = Math.max(this.newest, answer.newest);
    this.table.set([...this.commits.values()].sort((a, b) => b.version - a.version), (one) => one.version);
    setHidden(this.older, this.from === 0);
    this.said(answer);
  }
}
