// The split servers and the fed server: how much they do, how often their cache helps, who had to take over.

import { get, runPath } from "./api.js";
import { LiveTable, el, setText } from "./dom.js";
import { bytes, count, percent } from "./format.js";
import { ROLES, fillHealth, fillSeen, isAlive, sorted } from "./participants.js";

const WINDOW_S = 10; // over which units/s is measured
const LOOK_BACK = 20; // rounds in which failovers are looked for
const PAUSE_MS = 4000;

const COLUMNS = [
  { label: "Server", cell: (one) => one.id },
  { label: "Role", cell: (one) => ROLES[one.role] },
  { label: "Health", fill: fillHealth },
  { label: "Now", cell: (one) => one.doing || "–" },
  { label: "Last seen", fill: fillSeen },
  { label: "Units/s", kind: "number", cell: (one) => (one.rate === null ? "–" : one.rate.toFixed(1)) },
  { label: "Units", kind: "number", cell: (one) => count(one.info.units) },
  { label: "Cache hits", kind: "number", cell: hits },
  { label: "Commits", kind: "number", cell: (one) => count(one.info.commits) },
  { label: "Cached", kind: "number", cell: (one) => bytes(sum(one.info.graph_cache_bytes, one.info.weights_cache_bytes)) },
  { label: "Failovers", kind: "number", cell: (one) => count(one.failovers) },
  { label: "Restarts", kind: "number", cell: (one) => count(one.restarts) },
];

const sum = (...values) => (values.every((value) => typeof value === "number") ? values.reduce((a, b) => a + b, 0) : null);

/** Share of the backwards that found their forward's graph. */
function hits(one) {
  const found = one.info.graph_hits;
  const all = sum(found, one.info.recomputed);
  return all ? percent(found / all) : "–";
}

export class Servers {
  constructor(name) {
    this.name = name;
    this.seen = new Map(); // server -> [{at, units}], of the last seconds
    this.failovers = new Map(); // server -> answers to what another one was asked first
    this.table = new LiveTable("Split servers and fed server", COLUMNS, { empty: "No server is registered." });
    this.note = el("p", { class: "note" });
    this.element = el(
      "section",
      { class: "card", "aria-label": "Servers" },
      el("header", {}, el("h2", {}, "Servers"), el("span", { class: "note" }, "figures since each process started, of all runs")),
      this.table.element,
      this.note,
    );
    this.askedAt = 0;
  }

  close() {}

  take(participants) {
    this.participants = sorted(participants.filter((one) => one.role !== "client"));
    for (const one of this.participants) this._measure(one);
  }

  _measure(one) {
    const units = one.info.units;
    if (typeof units !== "number") return;
    const seen = this.seen.get(one.id) || [];
    const last = seen[seen.length - 1];
    if (last && last.at === one.last_seen) return;
    const kept = last && units < last.units ? [] : seen.filter((sample) => one.last_seen - sample.at <= WINDOW_S);
    this.seen.set(one.id, [...kept, { at: one.last_seen, units }]);
  }

  _rate(one) {
    const seen = this.seen.get(one.id) || [];
    if (seen.length < 2 || !isAlive(one)) return null;
    const [first, last] = [seen[0], seen[seen.length - 1]];
    return (last.units - first.units) / (last.at - first.at);
  }

  update(history) {
    if (!this.participants) return;
    const rows = this.participants.map((one) => {
      const isSplit = one.role === "split-server";
      return { ...one, rate: this._rate(one), failovers: isSplit ? this.failovers.get(one.id) || 0 : null };
    });
    this.table.set(rows);
    setText(
      this.note,
      `Failovers: how often, in the last ${LOOK_BACK} rounds, a server answered what another one had been asked first.`,
    );
    this._lookForFailovers(history);
  }

  async _lookForFailovers(history) {
    if (Date.now() - this.askedAt < PAUSE_MS || history.last < 0) return;
    this.askedAt = Date.now();
    const from = Math.max(0, history.last - LOOK_BACK);
    try {
      const { profile } = await get(`${runPath(this.name)}/profile?from_round=${from}`);
      this.failovers = failovers(profile);
    } catch {
      // The next look will tell; nothing is shown that was not answered.
    }
  }
}

/** Server -> how often it answered a client that had asked another one first. */
export function failovers(profile) {
  const found = new Map();
  for (const row of profile) {
    if (row.role !== "client") continue;
    for (const [name, count] of Object.entries(row.spent)) {
      const server = /^split\/([^/]+)\/failovers$/.exec(name)?.[1];
      if (server) found.set(server, (found.get(server) || 0) + count);
    }
  }
  return found;
}
