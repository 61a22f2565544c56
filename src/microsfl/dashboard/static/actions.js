// The head of a run's page: its state in figures, and what can be done with it.

import { get, now, post, runPath } from "./api.js";
import { el, meter, setHidden, setMark, setMeter, setText } from "./dom.js";
import { bytes, count, plural, rate, seconds } from "./format.js";
import { TONES, roundsDone } from "./runs.js";
import { operates } from "./session.js";

const VERBS = { start: ["created"], stop: ["created", "waiting", "running"], resume: ["failed", "stopped"] };
const LABELS = { start: "Start", stop: "Stop", resume: "Resume" };

export class Head {
  constructor(name) {
    this.name = name;
    this.state = el("span");
    this.about = el("p", { class: "muted" });
    this.buttons = Object.fromEntries(
      Object.keys(VERBS).map((verb) => [
        verb,
        el("button", { type: "button", class: verb === "stop" ? null : "primary", hidden: true, onclick: () => this._do(verb) }, LABELS[verb]),
      ]),
    );
    this.error = el("p", { class: "notice bad", role: "alert", hidden: true });
    this.gone = el("p", { class: "notice", hidden: true });
    this.figures = figures();
    this.element = el(
      "div",
      {},
      el(
        "div",
        { class: "head" },
        el("div", {}, el("h1", {}, name), el("p", {}, this.state), this.about),
        el(
          "div",
          { class: "actions" },
          operates() ? Object.values(this.buttons) : null,
          el("a", { class: "button", href: `${runPath(name)}/results.zip`, download: `${name}.zip` }, "Download results"),
          operates() ? this._weights() : null,
        ),
      ),
      this.error,
      this.gone,
      el("dl", { class: "figures" }, Object.values(this.figures).map((one) => one.element)),
    );
  }

  async _do(verb) {
    this.buttons[verb].disabled = true;
    try {
      await post(`${runPath(this.name)}/${verb}`);
      this._fail("");
    } catch (error) {
      this._fail(error.message);
    }
    this.buttons[verb].disabled = false;
  }

  _fail(message) {
    setText(this.error, message);
    setHidden(this.error, !message);
  }

  /** The files of the run in the stores, as whoever looked at them last found them. */
  files(files, message) {
    const text = files === "gone" ? message || "The files of this run were deleted. What you see is what the coordinator remembers." : "";
    setText(this.gone, text);
    setHidden(this.gone, !text);
  }

  /** Weights come from the servers that have them, as no tensor passes the coordinator. */
  _weights() {
    const list = el("ul", { class: "plain" });
    const details = el("details", { class: "menu" }, el("summary", { class: "button" }, "Weights"), list);
    details.addEventListener("toggle", async () => {
      if (!details.open) return;
      try {
        const { parts } = await get(`${runPath(this.name)}/weights`);
        list.replaceChildren(...parts.map((one) => el("li", {}, this._link(one, list))));
        if (parts.length === 0) list.replaceChildren(el("li", { class: "muted" }, "There are none yet."));
      } catch (error) {
        list.replaceChildren(el("li", { class: "error" }, error.message));
      }
    });
    return details;
  }

  /** An address is right for a minute, so it is asked for when it is wanted. */
  _link({ part, url }, list) {
    const fresh = async (event) => {
      event.preventDefault();
      try {
        const { parts } = await get(`${runPath(this.name)}/weights`);
        const now = parts.find((one) => one.part === part);
        if (now) location.assign(now.url);
      } catch (error) {
        list.append(el("li", { class: "error", role: "alert" }, error.message));
      }
    };
    return el("a", { href: url, download: `${part}.safetensors`, onclick: fresh }, part);
  }

  update(history) {
    const { run } = history;
    setMark(this.state, TONES[run.state] || "idle", stateText(run));
    for (const [verb, states] of Object.entries(VERBS)) setHidden(this.buttons[verb], !states.includes(run.state));
    const { strategy, data, model } = run.spec;
    setText(this.about, `${strategy.name} · ${model.name} on ${data.partition === "own" ? "the clients' own data" : `${data.dataset}, ${data.partition}`} · ${plural(data.clients, "client")}`);
    this._figures(history);
  }

  _figures(history) {
    const { run } = history;
    const { figures: shown } = this;
    const latest = history.latest();
    const done = roundsDone(run);
    const current = run.state === "finished" ? done : Math.min(run.round + 1, run.rounds);
    shown.round.set(`${count(current)} of ${count(run.rounds)}`);
    setMeter(shown.round.bar, done / run.rounds);
    shown.accuracy.set(rate(latest?.accuracy), latest ? `mean over clients ${rate(latest.accuracy_mean)}` : "");
    shown.loss.set(rate(latest?.loss), latest ? `in training ${rate(latest.train_loss)}` : "");
    const first = history.rounds.find(Boolean);
    const until = run.state === "running" ? now() : latest?.ended_at;
    const took = first && until ? until - first.started_at : null;
    shown.time.set(seconds(took === null ? null : Math.max(0, took)), latest?.samples_per_s ? `${count(latest.samples_per_s)} samples/s` : "");
    const sent = history.bytes();
    shown.traffic.set(bytes(sent.up + sent.down), `${bytes(sent.up)} up, ${bytes(sent.down)} down`);
  }
}

function stateText(run) {
  if (run.state === "waiting") return "waiting for clients";
  if (run.state !== "running") return run.state;
  const parts = Object.values(run.progress);
  const done = parts.filter((one) => one === "done").length;
  const text = run.phase ? `${run.phase}${parts.length ? `, ${done} of ${plural(parts.length, "client")} done` : ""}` : "running";
  return run.overdue ? `${text}; the deadline has passed` : text;
}

function figures() {
  const figure = (label, bar = null) => {
    const value = el("span");
    const more = el("small");
    return {
      bar,
      element: el("div", {}, el("dt", {}, label), el("dd", {}, value, bar, more)),
      set(text, small = "") {
        setText(value, text);
        setText(more, small);
      },
    };
  };
  return {
    round: figure("Round", meter(0)),
    accuracy: figure("Accuracy"),
    loss: figure("Loss"),
    time: figure("Time"),
    traffic: figure("Traffic"),
  };
}
