// A new run: every setting with its meaning, checked by the coordinator as it is typed, in the coordinator's words.

import { ApiError, get, post, runPath } from "./api.js";
import { el, setHidden, setText } from "./dom.js";
import { plural, setting } from "./format.js";
import { runLink } from "./runs.js";

const COMMON = [
  "run.name", "run.rounds", "data.dataset", "data.clients", "data.partition", "data.alpha", "data.batch_size",
  "model.name", "model.u_shaped", "strategy.name", "strategy.sync", "run.seed",
];
const TITLES = {
  run: "Run", data: "Data", model: "Model", strategy: "Strategy", privacy: "Privacy", wire: "Wire formats",
  servers: "Servers", store: "Store", records: "Records",
};
const CHECK_AFTER_MS = 250;
const WORD = /^[A-Za-z0-9_.:-]+$/;

/** The choices that a description of allowed values lists, and whether others are possible as well. */
export function choices(allowed) {
  const words = allowed.split(", ").map((word) => word.trim());
  if (words.length < 2) return null;
  const listed = words.filter((word) => WORD.test(word) && !word.includes(":"));
  const open = words.length !== listed.length;
  if (open && !words.every((word) => WORD.test(word) || word === "…")) return null;
  return { listed, open: open || words.includes("…") };
}

/** A value as TOML reads it after `--set key=`: a number, true, a list, a table; else it is a text. */
export function parsed(text) {
  const trimmed = text.trim();
  if (/^[+-]?[\d_]+$/.test(trimmed)) return Number(trimmed.replaceAll("_", ""));
  if (/^[+-]?(\d[\d_]*)(\.\d[\d_]*)?([eE][+-]?\d+)?$/.test(trimmed)) return Number(trimmed.replaceAll("_", ""));
  if (trimmed === "true" || trimmed === "false") return trimmed === "true";
  if (/^[[{"]/.test(trimmed)) {
    try {
      return JSON.parse(trimmed);
    } catch {
      return trimmed;
    }
  }
  return trimmed;
}

export function show(main) {
  const page = new Form(main);
  page.load();
  return page;
}

class Form {
  constructor(main) {
    this.main = main;
    this.fields = new Map(); // setting -> {input, error, wrap, default}
    this.timer = null;
    this.turn = 0;
    this.checked = {}; // values -> specification
  }

  close() {
    clearTimeout(this.timer);
    this.turn += 1;
    this.closed = true;
  }

  async load() {
    this.main.append(el("div", { class: "head" }, el("h1", {}, "New run")));
    try {
      const [{ settings }, { runs }, { participants }] = await Promise.all([
        get("/api/settings"), get("/api/overview"), get("/api/participants"),
      ]);
      if (!this.closed) this._build(settings, runs, participants);
    } catch (error) {
      this.main.append(el("p", { class: "notice bad", role: "alert" }, error.message));
    }
  }

  _build(settings, runs, participants) {
    const byKey = new Map(settings.map((one) => [one.key, one]));
    const common = COMMON.filter((key) => byKey.has(key));
    const rest = settings.filter((one) => !common.includes(one.key));
    const tables = [...new Set(rest.map((one) => one.key.split(".")[0]))];
    this.problem = el("p", { class: "notice bad", role: "alert", hidden: true });
    this.submit = el("button", { type: "submit", class: "primary" }, "Create and start");
    this.state = el("p", { class: "note", role: "status" });
    this.command = el("pre", { tabindex: "0", "aria-label": "The same from a terminal" });
    const form = el(
      "form",
      { class: "form", novalidate: true, onsubmit: (event) => this._submit(event), oninput: () => this._changed() },
      el(
        "div",
        {},
        this.problem,
        el("section", { class: "card" }, this._fields("The essentials", common.map((key) => byKey.get(key)))),
        tables.map((table) => {
          const own = rest.filter((one) => one.key.startsWith(`${table}.`));
          const title = TITLES[table] || table;
          const details = el("details", { class: "card" }, el("summary", {}, `${title}: ${own.length} more`), this._fields(title, own, true));
          return details;
        }),
      ),
      el(
        "aside",
        { class: "card", "aria-label": "Start" },
        this._clients(participants),
        this.submit,
        this.state,
        el("h2", {}, "The same from a terminal"),
        this.command,
      ),
    );
    this.main.append(form);
    this._name(runs);
    this._changed();
  }

  _fields(title, settings, hiddenTitle = false) {
    return el("fieldset", {}, el("legend", { class: hiddenTitle ? "sr" : null }, title), el("div", { class: "fields" }, settings.map((one) => this._field(one))));
  }

  _field({ key, default: initial, meaning, allowed }) {
    const id = `field-${key}`;
    const error = el("p", { class: "error", id: `${id}-error`, hidden: true });
    const help = el("p", { class: "help", id: `${id}-help` }, `${meaning} Allowed: ${allowed}.`);
    const input = this._input(id, setting(initial), typeof initial === "boolean" ? "true, false" : allowed);
    const described = `${id}-error ${id}-help`;
    (input.select || input.box).setAttribute("aria-describedby", described);
    this.fields.set(key, { input: input.box, error, initial: setting(initial) });
    return el("div", { class: "field" }, el("label", { for: id }, key), input.box, input.list || null, error, help);
  }

  _input(id, value, allowed) {
    const found = choices(allowed);
    if (found === null) return { box: el("input", { id, type: "text", value, autocomplete: "off", spellcheck: "false" }) };
    if (!found.open && found.listed.includes(value)) {
      const options = found.listed.map((one) => el("option", { value: one }, one));
      const box = el("select", { id }, options);
      box.value = value;
      return { box };
    }
    const list = el("datalist", { id: `${id}-list` }, found.listed.map((one) => el("option", { value: one })));
    return { box: el("input", { id, type: "text", value, list: list.id, autocomplete: "off", spellcheck: "false" }), list };
  }

  /** The default name, or the next that no run has. */
  _name(runs) {
    const field = this.fields.get("run.name");
    if (!field) return;
    const taken = new Set(runs.map((one) => one.name));
    let name = field.initial;
    for (let number = 2; taken.has(name); number += 1) name = `${field.initial}-${number}`;
    field.input.value = name;
  }

  _clients(participants) {
    const clients = participants.filter((one) => one.role === "client" && one.alive).length;
    const field = this.fields.get("data.clients");
    if (field && clients && clients < Number(field.initial)) field.input.value = String(clients);
    return el(
      "p",
      { class: "note" },
      clients ? `${plural(clients, "client")} ${clients === 1 ? "is" : "are"} there.` : "No client is there yet: the run will wait for them.",
    );
  }

  /** What differs from the defaults, in tables. */
  _values() {
    const values = {};
    for (const [key, field] of this.fields) {
      if (field.input.value.trim() === field.initial) continue;
      const [table, name] = key.split(".");
      values[table] ??= {};
      values[table][name] = parsed(field.input.value);
    }
    return values;
  }

  _changed() {
    const given = [...this.fields].filter(([, field]) => field.input.value.trim() !== field.initial);
    const words = given.map(([key, field]) => ` \\\n  --set ${quoted(`${key}=${field.input.value.trim()}`)}`);
    setText(this.command, `microsfl run${words.join("")}`);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this._check(), CHECK_AFTER_MS);
    setText(this.state, "Checking …");
  }

  /** The resolved specification, or null after the sentence that says why there is none. */
  async _check() {
    clearTimeout(this.timer);
    this.turn += 1;
    const turn = this.turn;
    const values = this._values();
    const known = JSON.stringify(values);
    try {
      // The coordinator builds the model and divides the data in a process of its own, which takes a second or two.
      this.checked[known] ??= (await post("/api/resolve", values)).spec;
      if (turn === this.turn) this._complain(null);
      return this.checked[known];
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (turn === this.turn) this._complain(error.message);
      return null;
    }
  }

  /** Show a sentence beside the field that it names, or on top of the form. */
  _complain(message) {
    let beside = null;
    if (message !== null) {
      const named = [...this.fields.keys()].filter((key) => message.includes(key));
      beside = named.sort((a, b) => message.indexOf(a) - message.indexOf(b) || b.length - a.length)[0] || null;
    }
    for (const [key, { input, error }] of this.fields) {
      const here = key === beside;
      if (here) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
      setText(error, here ? message : "");
      setHidden(error, !here);
      if (here) {
        const details = input.closest("details");
        if (details) details.open = true;
      }
    }
    const general = message !== null && beside === null;
    setText(this.problem, general ? message : "");
    setHidden(this.problem, !general);
    setText(this.state, message === null ? "These settings make a run." : `Not yet: see ${beside || "the top of the page"}.`);
  }

  async _submit(event) {
    event.preventDefault();
    this.submit.disabled = true;
    try {
      const spec = await this._check();
      if (spec === null) {
        this.main.querySelector("[aria-invalid]")?.focus();
        return;
      }
      const run = await post("/api/runs", spec);
      await post(`${runPath(run.name)}/start`);
      location.hash = runLink(run.name);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this._complain(error.message);
    } finally {
      this.submit.disabled = false;
    }
  }
}

/** A word for a POSIX shell. */
function quoted(word) {
  return /^[A-Za-z0-9_./:=@%+,-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
