// Who takes part: in the whole federation, and the parts of the table that a run's page shows.

import { Events, now } from "./api.js";
import { LiveTable, el, setMark, setText } from "./dom.js";
import { ago, moment, plural } from "./format.js";

export const ROLES = { client: "client", "split-server": "split server", "fed-server": "fed server" };

const ORDER = ["split-server", "fed-server", "client"];

/** Alive or silent; what does not say counts by its lease. */
export const isAlive = (one) => (one.health ? one.health === "alive" : one.alive);

export function sorted(participants) {
  return [...participants].sort((a, b) => ORDER.indexOf(a.role) - ORDER.indexOf(b.role) || a.id.localeCompare(b.id));
}

const versionOf = (one) => {
  const version = one.info && one.info.version;
  return typeof version === "string" ? version : "–";
};

export function fillHealth(cell, one) {
  if (cell.firstChild === null) cell.append(el("span"));
  setMark(cell.firstChild, isAlive(one) ? "good" : "bad", isAlive(one) ? "up" : one.role === "client" ? "silent" : "down");
}

export function fillSeen(cell, one) {
  if (cell.firstChild === null) cell.append(el("time"));
  setText(cell.firstChild, ago(one.last_seen, now()));
  const title = moment(one.last_seen);
  if (cell.firstChild.title !== title) cell.firstChild.title = title;
}

const COLUMNS = [
  { label: "Name", cell: (one) => one.id },
  { label: "Role", cell: (one) => ROLES[one.role] || one.role },
  { label: "Health", fill: fillHealth },
  { label: "Now", cell: (one) => one.doing || "–" },
  { label: "Last seen", fill: fillSeen },
  { label: "Restarts", kind: "number", cell: (one) => one.restarts ?? "–" },
  { label: "Version", cell: versionOf },
  { label: "Address", cell: (one) => one.address || "calls only out" },
];

export function show(main) {
  let known = null;
  const about = el("p", { class: "muted" }, "Asking the coordinator …");
  const table = new LiveTable("Participants", COLUMNS, {
    cards: true,
    empty: "Nobody has registered yet. Split servers, a fed server and clients do so by themselves when they start with "
      + `--coordinator ${location.origin}.`,
  });
  main.append(
    el("div", { class: "head" }, el("div", {}, el("h1", {}, "Participants"), about)),
    el("div", { class: "card bare" }, table.element),
  );
  const draw = () => {
    if (known === null) return;
    table.set(sorted(known));
    const alive = known.filter(isAlive).length;
    setText(about, `${plural(known.length, "participant")}, ${alive} up`);
  };
  const events = new Events(() => "/api/events", {
    participants(data) {
      known = data.participants;
      draw();
    },
  });
  const timer = setInterval(draw, 1000);
  return {
    close() {
      events.close();
      clearInterval(timer);
    },
  };
}
