// Accuracy and loss by round: the mean bold, each client thin, those who are picked in a colour of their own.

import { Chart, categories } from "./charts.js";
import { el, setHidden, setText } from "./dom.js";
import { rate } from "./format.js";

const PICK_LIMIT = 10; // as many as there are colours to tell apart

export class Curves {
  constructor() {
    this.picked = new Set();
    this.thin = true;
    this.logarithmic = false;
    this.offered = "";
    this.accuracy = new Chart("Accuracy by round");
    this.loss = new Chart("Loss by round");
    this.element = el(
      "div",
      {},
      el(
        "div",
        { class: "pair" },
        el("section", { class: "card", "aria-label": "Accuracy" }, el("header", {}, el("h2", {}, "Accuracy")), this.accuracy.element),
        el(
          "section",
          { class: "card", "aria-label": "Loss" },
          el("header", {}, el("h2", {}, "Loss"), el("div", { class: "choices" }, this._toggle("Logarithmic", "logarithmic"))),
          this.loss.element,
        ),
      ),
      el("div", { class: "card" }, this._controls()),
    );
    this.listening = false;
  }

  close() {
    this.accuracy.close();
    this.loss.close();
  }

  _toggle(label, name) {
    const box = el("input", { type: "checkbox", checked: this[name] });
    box.addEventListener("change", () => {
      this[name] = box.checked;
      this._draw();
    });
    return el("label", {}, box, label);
  }

  _controls() {
    this.picks = el("div", { class: "picks", role: "group", "aria-label": "Clients to show in colour" });
    this.chosen = el("span", {}, "Pick clients");
    this.clear = el("button", { type: "button", class: "quiet", hidden: true, onclick: () => this._pick(null) }, "None");
    this.full = el("p", { class: "note", hidden: true }, `At most ${PICK_LIMIT} clients have a colour at a time.`);
    return [
      el(
        "div",
        { class: "choices" },
        this._toggle("Each client", "thin"),
        el("span", {}, "Bold: the mean over all test samples. Click a thin line to pick its client."),
      ),
      el("details", { class: "more" }, el("summary", {}, this.chosen), this.full, this.picks, this.clear),
    ];
  }

  /** Add a client to those in colour, or take it away; null takes all away. */
  _pick(client) {
    if (client === null) this.picked.clear();
    else if (this.picked.has(client)) this.picked.delete(client);
    else if (this.picked.size < PICK_LIMIT) this.picked.add(client);
    for (const box of this.picks.querySelectorAll("input")) {
      box.checked = this.picked.has(box.value);
      box.disabled = !box.checked && this.picked.size >= PICK_LIMIT;
    }
    setText(this.chosen, this.picked.size ? `Picked: ${[...this.picked].join(", ")}` : "Pick clients");
    setHidden(this.clear, this.picked.size === 0);
    setHidden(this.full, this.picked.size < PICK_LIMIT);
    this._draw();
  }

  update(history) {
    this.history = history;
    this._offer(history.clients);
    this._draw();
  }

  _offer(clients) {
    const offered = clients.join("\n");
    if (offered === this.offered) return;
    this.offered = offered;
    this.picks.replaceChildren(
      ...clients.map((client) =>
        el(
          "label",
          {},
          el("input", { type: "checkbox", value: client, checked: this.picked.has(client), onchange: () => this._pick(client) }),
          client,
        ),
      ),
    );
  }

  _draw() {
    if (!this.history) return;
    this.accuracy.draw((colours) => this._chart(colours, "Accuracy", "accuracy", "test_accuracy"));
    this.loss.draw((colours) => this._chart(colours, "Loss", "loss", "test_loss", true));
    if (!this.listening) {
      this.listening = true;
      for (const chart of [this.accuracy, this.loss]) this._listen(chart);
    }
  }

  async _listen(chart) {
    while (chart.make !== null && !chart.drawn) await new Promise(requestAnimationFrame);
    chart.onClick((point) => typeof point.text === "string" && this._pick(point.text));
  }

  _chart(colours, title, field, ofClient, isLoss = false) {
    const { history } = this;
    const data = [];
    if (this.thin) data.push(this._thin(colours, ofClient));
    const shades = categories();
    [...this.picked].forEach((client, number) => data.push(this._client(client, ofClient, shades[number])));
    if (isLoss) data.push(this._mean("train_loss", "training", colours.warn, { dash: "dot", width: 1.8 }));
    data.push(this._mean(field, isLoss ? "test" : "mean of all", colours.accent, { width: 3 }));
    const last = history.latest();
    const layout = {
      xaxis: { title: { text: "round" }, range: this._range(), tickformat: ",d" },
      yaxis: {
        title: { text: title.toLowerCase() },
        type: isLoss && this.logarithmic ? "log" : "linear",
        rangemode: isLoss ? "tozero" : "normal",
      },
      showlegend: true,
    };
    const says = last ? `After round ${last.round + 1} of ${history.run.rounds}: ${rate(last[field])}.` : "No round is over yet.";
    return { data, layout, says };
  }

  /** All rounds that the run is to have, so that the curve grows into its chart; for long runs only what there is. */
  _range() {
    const planned = this.history.run.rounds;
    const done = Math.max(1, this.history.rounds.length);
    const shown = Math.min(planned, Math.max(10, Math.ceil(done * 1.15)));
    return [0.5, shown + 0.5];
  }

  /** One trace for all clients, with a gap after each: a trace a client would take seconds for a hundred. */
  _thin(colours, field) {
    const [x, y, text] = [[], [], []];
    for (const client of this.history.clients) {
      const values = this.history.columns.get(client)[field];
      for (let round = 0; round < values.length; round += 1) {
        const value = values[round];
        if (value === null || value === undefined) continue;
        x.push(round + 1);
        y.push(value);
        text.push(client);
      }
      x.push(null);
      y.push(null);
      text.push("");
    }
    const few = this.history.rounds.length < 3;
    return {
      type: "scatter",
      mode: few ? "lines+markers" : "lines",
      x,
      y,
      text,
      name: "each client",
      line: { color: colours.thin, width: 1 },
      marker: { size: 4, color: colours.thin },
      showlegend: true,
      opacity: this.history.clients.length > 20 ? 0.45 : 0.8,
      hovertemplate: "%{text}<br>round %{x}: %{y:.4f}<extra></extra>",
    };
  }

  _client(client, field, colour) {
    const values = this.history.columns.get(client)?.[field] || [];
    const rounds = [...values.keys()].filter((round) => typeof values[round] === "number");
    return {
      type: "scatter",
      mode: rounds.length < 3 ? "lines+markers" : "lines",
      x: rounds.map((round) => round + 1),
      y: rounds.map((round) => values[round]),
      name: client,
      line: { color: colour, width: 1.8 },
      hovertemplate: `round %{x}: %{y:.4f}<extra>%{fullData.name}</extra>`,
    };
  }

  _mean(field, name, colour, line) {
    const rows = this.history.rounds.filter((row) => row && typeof row[field] === "number");
    return {
      type: "scatter",
      mode: rows.length < 3 ? "lines+markers" : "lines",
      x: rows.map((row) => row.round + 1),
      y: rows.map((row) => row[field]),
      name,
      line: { color: colour, ...line },
      hovertemplate: `${name}, round %{x}: %{y:.4f}<extra></extra>`,
    };
  }
}
