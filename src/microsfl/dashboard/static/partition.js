// How the classes are divided: a stacked bar for each client.

import { get, runPath } from "./api.js";
import { Chart, categories } from "./charts.js";
import { el, setHidden, setText } from "./dom.js";
import { count, plural } from "./format.js";

const CLASS_LIMIT = 30; // above it, colours repeat so often that a legend says nothing

export class Partition {
  constructor(name) {
    this.name = name;
    this.chart = new Chart("Training samples of each client by class", { tall: true });
    this.none = el("p", { class: "empty", hidden: true });
    this.element = el(
      "section",
      { class: "card", "aria-label": "Data" },
      el("header", {}, el("h2", {}, "Data of each client"), el("span", { class: "note" }, "training samples by class")),
      this.chart.element,
      this.none,
    );
    this.asked = "";
  }

  close() {
    this.chart.close();
  }

  /** The division is fixed once the clients are: it is asked for when they change. */
  async update(history) {
    const asked = `${history.run.state === "created"}/${history.run.clients.length}`;
    if (this.asked === asked) return;
    this.asked = asked;
    try {
      this._show(await get(`${runPath(this.name)}/partition`));
    } catch (error) {
      this.asked = "";
      this._say(error.message);
    }
  }

  _say(text) {
    setText(this.none, text);
    setHidden(this.none, !text);
    setHidden(this.chart.element, Boolean(text));
  }

  _show(partition) {
    const clients = Object.keys(partition.clients).sort();
    if (!partition.classes || clients.length === 0) {
      this._say("Nobody has said yet how many samples of each class the clients hold.");
      return;
    }
    this._say("");
    this.chart.draw((colours) => this._chart(colours, partition, clients));
  }

  _chart(colours, partition, clients) {
    const shades = categories();
    const data = Array.from({ length: partition.classes }, (_, number) => ({
      type: "bar",
      x: clients,
      y: clients.map((client) => partition.clients[client][number]),
      name: `class ${number}`,
      marker: { color: shades[number % shades.length], line: { width: clients.length > 60 ? 0 : 1, color: colours.surface } },
      hovertemplate: `%{x}<br>class ${number}: %{y:,d}<extra></extra>`,
    }));
    const sizes = clients.map((client) => partition.clients[client].reduce((a, b) => a + b, 0));
    return {
      data,
      layout: {
        barmode: "stack",
        bargap: clients.length > 60 ? 0.1 : 0.3,
        xaxis: { type: "category", automargin: true, gridcolor: "rgba(0,0,0,0)" },
        yaxis: { title: { text: "samples" } },
        showlegend: partition.classes <= CLASS_LIMIT,
        legend: { traceorder: "normal" },
      },
      says:
        `${plural(clients.length, "client")}, ${count(Math.min(...sizes))} to ${count(Math.max(...sizes))} samples, ` +
        `${plural(partition.classes, "class", "classes")}.`,
    };
  }
}
