// One run, live. Events fill the history; each part of the page draws itself from it when it is in sight.

import { Events, runPath } from "./api.js";
import { Head } from "./actions.js";
import { Clients } from "./clients.js";
import { Commits } from "./commits.js";
import { Curves } from "./curves.js";
import { el, setText } from "./dom.js";
import { setting } from "./format.js";
import { History } from "./history.js";
import { Partition } from "./partition.js";
import { Absences, Rounds } from "./rounds.js";
import { Servers } from "./servers.js";
import { Timeline } from "./timeline.js";
import { Traffic } from "./traffic.js";

const LEAST_PAUSE_MS = 120;
const REST = 3; // the page draws at most a quarter of the time

export function show(main, { name, section }) {
  const page = new RunPage(main, name);
  page.section(section, false);
  return page;
}

class RunPage {
  constructor(main, name) {
    this.main = main;
    this.name = name;
    this.history = new History();
    this.loading = el("p", { class: "empty" }, "Asking the coordinator …");
    main.append(this.loading);
    this.parts = null;
    this.dirty = new Set();
    this.inSight = new Set();
    this.byPlace = new Map();
    this.light = new Set();
    this.known = new Set(); // drawn before
    this.frame = null;
    this.pause = null;
    const path = runPath(name);
    this.events = [
      new Events(
        () => `${path}/events?from_round=${this.history.openRound()}`,
        {
          run: (run) => this._take(() => this.history.takeRun(run)),
          rounds: (data) => this._take(() => this.history.takeRounds(data.rounds)),
          metrics: (data) => this._take(() => this.history.takeMetrics(data.metrics)),
        },
        path,
        (error) => this._missing(error),
      ),
      new Events(() => "/api/events", { participants: (data) => this._participants(data.participants) }),
    ];
    this.clock = setInterval(() => this._tick(), 1000);
  }

  close() {
    for (const one of this.events) one.close();
    clearInterval(this.clock);
    clearTimeout(this.pause);
    cancelAnimationFrame(this.frame);
    if (this.observer) this.observer.disconnect();
    for (const one of this.parts ? Object.values(this.parts) : []) one.close?.();
  }

  /** Go to a part of the page. */
  section(id, byUser) {
    this.wanted = id;
    if (this.parts === null || !id) return;
    const target = this.main.querySelector(`#part-${CSS.escape(id)}`);
    if (target === null) return;
    target.scrollIntoView();
    if (byUser) target.focus({ preventScroll: true });
  }

  _missing(error) {
    this.close();
    this.main.replaceChildren(
      el("h1", {}, this.name),
      el("p", { class: "notice bad" }, error.message),
      el("p", {}, el("a", { href: "#/" }, "To the list of runs")),
    );
  }

  _take(change) {
    change();
    if (this.history.run === null) return;
    if (this.parts === null) this._build();
    this._mark(Object.values(this.parts));
  }

  _participants(participants) {
    this.participants = participants;
    if (this.parts === null) return;
    for (const part of [this.parts.clients, this.parts.servers]) part.take(participants);
    this._mark([this.parts.clients, this.parts.servers]);
  }

  _tick() {
    if (this.parts === null || document.hidden) return;
    this._mark([this.parts.clients, this.parts.servers, this.parts.head, this.parts.commits]);
  }

  _build() {
    const head = new Head(this.name);
    this.parts = {
      head,
      curves: new Curves(),
      timeline: new Timeline(),
      clients: new Clients(),
      servers: new Servers(this.name),
      commits: new Commits(this.name, (answer) => head.files(answer.files, answer.message)),
      data: new Partition(this.name),
      traffic: new Traffic(),
      rounds: new Rounds(),
      absences: new Absences(),
      settings: new Settings(),
    };
    const { clients, servers, commits, rounds, absences, settings } = this.parts;
    this.light = new Set([clients, servers, commits, rounds, absences, settings]);
    const titles = {
      curves: "Curves", timeline: "Timeline", clients: "Clients", servers: "Servers", commits: "Commits", data: "Data",
      traffic: "Bytes and seconds", absences: "Absences", settings: "Settings",
    };
    this.observer = new IntersectionObserver((entries) => this._sighted(entries), { rootMargin: "300px" });
    const links = Object.entries(titles).map(([id, title]) => el("a", { href: `#/runs/${encodeURIComponent(this.name)}/${id}` }, title));
    const places = Object.entries(this.parts).map(([id, part]) => {
      part.place = el("div", { id: `part-${id}`, tabindex: "-1" }, part.element);
      this.byPlace.set(part.place, part);
      return part.place;
    });
    places.splice(1, 0, el("nav", { class: "sections", "aria-label": "Parts of this page" }, links));
    this.main.replaceChildren(...places);
    for (const part of Object.values(this.parts)) this.observer.observe(part.place);
    if (this.participants) this._participants(this.participants);
    this.section(this.wanted, false);
  }

  _sighted(entries) {
    for (const entry of entries) {
      const part = this.byPlace.get(entry.target);
      if (entry.isIntersecting) this.inSight.add(part);
      else this.inSight.delete(part);
    }
    this._schedule();
  }

  _mark(parts) {
    for (const part of parts) this.dirty.add(part);
    this._schedule();
  }

  /** Draw with the next frame, unless the last drawing is too recent for how long it took. */
  _schedule() {
    if (this.frame !== null || this.pause !== null) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      const began = performance.now();
      this._draw();
      const pause = Math.max(LEAST_PAUSE_MS, REST * (performance.now() - began));
      this.pause = setTimeout(() => {
        this.pause = null;
        if ([...this.dirty].some((part) => this._isDue(part))) this._schedule();
      }, pause);
    });
  }

  /** What is in sight; the head always; and every part without a chart once, also for who reads by ear or searches. */
  _isDue(part) {
    return this.inSight.has(part) || part === this.parts.head || (this.light.has(part) && !this.known.has(part));
  }

  _draw() {
    for (const part of [...this.dirty]) {
      if (!this._isDue(part)) continue;
      this.dirty.delete(part);
      this.known.add(part);
      part.update(this.history);
    }
  }
}

/** The specification, as `run.toml` has it. */
class Settings {
  constructor() {
    this.body = el("tbody");
    this.made = false;
    this.element = el(
      "section",
      { class: "card", "aria-label": "Settings" },
      el(
        "details",
        {},
        el("summary", {}, "Settings of this run"),
        el(
          "div",
          { class: "scroll", role: "region", "aria-label": "Settings of this run", tabindex: "0" },
          el("table", {}, el("caption", {}, "Settings of this run"), el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Setting"), el("th", { scope: "col" }, "Value"))), this.body),
        ),
      ),
    );
  }

  update(history) {
    if (this.made || !history.run.spec) return;
    this.made = true;
    for (const [table, values] of Object.entries(history.run.spec)) {
      for (const [key, value] of Object.entries(values)) {
        const cell = el("td", { class: "text" });
        setText(cell, value === null ? "not set" : setting(value));
        this.body.append(el("tr", {}, el("th", { scope: "row" }, `${table}.${key}`), cell));
      }
    }
  }
}
