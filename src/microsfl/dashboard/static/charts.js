// Charts by plotly, which the coordinator serves from the installed package. Without it the pages show tables alone.

import { el, setText } from "./dom.js";

const LIBRARY = "/static/plotly.min.js";
const CONFIG = { displayModeBar: false, responsive: true, doubleClick: "reset", showTips: false };

let loading = null;

/** Plotly, or null where it is not installed. */
export function plotly() {
  loading ??= new Promise((resolve) => {
    const script = el("script", { src: LIBRARY });
    script.addEventListener("load", () => resolve(window.Plotly || null));
    script.addEventListener("error", () => resolve(null));
    document.head.append(script);
  });
  return loading;
}

/** The page's colours as they are now, light or dark. */
export function palette() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const names = ["ink", "muted", "line", "grid", "surface", "accent", "accent-soft", "good", "warn", "bad", "thin", "strong-line"];
  return Object.fromEntries(names.map((name) => [name, colour(name)]));
}

export const isDark = () => getComputedStyle(document.documentElement).colorScheme === "dark";

/** Colours that tell things apart, also for who sees few of them; each has a contrast of 3 with its ground. */
export function categories() {
  return isDark()
    ? ["#7fbce6", "#e8a860", "#7fcaa2", "#e58fb5", "#b6a4ee", "#d8cc6a", "#6fd0d0", "#f09080", "#a8b4bf", "#c3a58a"]
    : ["#1d6494", "#b8661b", "#2a7d55", "#ae3f74", "#6a55b5", "#857517", "#1b7f86", "#c04a37", "#67727c", "#8a6242"];
}

/** A text as plotly shows it unchanged: it knows a little markup of its own, as <b>. */
export const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function merged(base, more) {
  const result = { ...base };
  for (const [key, value] of Object.entries(more || {})) {
    const both = value && typeof value === "object" && !Array.isArray(value) && typeof base[key] === "object";
    result[key] = both ? merged(base[key], value) : value;
  }
  return result;
}

function layoutOf(colours, own) {
  const axis = {
    color: colours.muted,
    gridcolor: colours.grid,
    linecolor: colours.line,
    zeroline: false,
    automargin: true,
    title: { font: { size: 12 }, standoff: 10 },
    fixedrange: false,
  };
  const base = {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colours.muted },
    margin: { l: 52, r: 14, t: 8, b: 44 },
    xaxis: axis,
    yaxis: axis,
    hovermode: "closest",
    hoverlabel: { bgcolor: colours.surface, bordercolor: colours["strong-line"], font: { color: colours.ink, size: 12 } },
    showlegend: false,
    legend: { orientation: "h", x: 0, y: 1.02, xanchor: "left", yanchor: "bottom", font: { color: colours.ink } },
    dragmode: "zoom",
    uirevision: "kept", // a zoom stays when data comes
  };
  return merged(base, own);
}

/** One chart in a figure. `draw(make)` takes a function to {data, layout, says}; `says` is the chart in a sentence. */
export class Chart {
  constructor(title, { tall = false } = {}) {
    this.title = title;
    this.place = el("div", { class: tall ? "chart tall" : "chart", role: "img", "aria-label": title });
    this.missing = el("p", { class: "note", hidden: true }, "Charts need plotly on the coordinator: pip install 'microsfl[dashboard]'.");
    this.caption = el("figcaption", { class: "sr" });
    this.element = el("figure", { class: "figure" }, this.place, this.missing, this.caption);
    this.make = null;
    this.drawn = 0; // how often, and so whether
    this.busy = false;
    this.again = false;
    this.onTheme = () => this.redraw();
    document.addEventListener("theme", this.onTheme);
  }

  close() {
    document.removeEventListener("theme", this.onTheme);
    if (window.Plotly && this.drawn) window.Plotly.purge(this.place);
    this.make = null;
  }

  draw(make) {
    this.make = make;
    this.redraw();
  }

  async redraw() {
    if (this.make === null) return;
    if (this.busy) {
      this.again = true;
      return;
    }
    this.busy = true;
    try {
      await this._react();
    } finally {
      this.busy = false;
    }
    if (this.again) {
      this.again = false;
      requestAnimationFrame(() => this.redraw());
    }
  }

  async _react() {
    const library = await plotly();
    if (this.make === null || !this.place.isConnected) return;
    if (library === null) {
      this.place.hidden = true;
      this.missing.hidden = false;
      return;
    }
    const colours = palette();
    const { data, layout, says, height } = this.make(colours);
    if (height) this.place.style.height = `${height}px`;
    await library.react(this.place, data, layoutOf(colours, layout), CONFIG);
    setText(this.caption, says || "");
    const label = says ? `${this.title}. ${says}` : this.title;
    if (this.place.getAttribute("aria-label") !== label) this.place.setAttribute("aria-label", label);
    this.drawn += 1;
    this.place.dataset.drawn = String(this.drawn);
  }

  /** Tell `handler` of a point that was clicked. */
  async onClick(handler) {
    if ((await plotly()) !== null && this.place.on) this.place.on("plotly_click", (event) => handler(event.points[0]));
  }
}
