// Elements and tables. Every text goes in as text: nothing here, or anywhere in the page, sets markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes, listeners (`onclick`) and children; null children are left out. */
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "value" || key === "checked") made[key] = value;
    else made.setAttribute(key, value === true ? "" : String(value));
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/** Set a text only where it differs: an untouched node costs no layout and keeps a selection. */
export function setText(node, text) {
  const value = String(text);
  if (node.textContent !== value) node.textContent = value;
}

export function setHidden(node, hidden) {
  if (node.hidden !== hidden) node.hidden = hidden;
}

/** A word with a dot of its colour; `tone` is good, busy, warn, bad or idle. */
export function mark(tone, text) {
  return el("span", { class: `mark ${tone}` }, text);
}

export function setMark(node, tone, text) {
  const name = `mark ${tone}`;
  if (node.className !== name) node.className = name;
  setText(node, text);
}

/**
 * A table whose rows come and go by key, and whose cells change one by one.
 *
 * columns: {name, label, kind ("text", "number"), cell(row) -> text or an element's content by `fill(td, row)`}.
 */
export class LiveTable {
  constructor(caption, columns, { cards = false, empty = "Nothing yet." } = {}) {
    this.columns = columns;
    this.rows = new Map();
    const heads = columns.map((one) => el("th", { scope: "col", class: one.kind === "number" ? "number" : null }, one.label));
    this.body = el("tbody");
    this.table = el(
      "table",
      { class: cards ? "cards" : null },
      el("caption", {}, caption),
      el("thead", {}, el("tr", {}, heads)),
      this.body,
    );
    // On a phone its rows are laid out as cards, after which a browser would not take it for a table any more.
    this.roles = cards;
    if (cards) giveRoles(this.table);
    this.empty = el("p", { class: "empty" }, empty);
    this.scroll = el("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: "0" }, this.table);
    this.element = el("div", {}, this.scroll, this.empty);
    // Neither is shown before the first rows, or the word that there are none.
    this.scroll.hidden = true;
    this.empty.hidden = true;
  }

  /** rows: in the order to be shown; `key(row)` tells them apart. */
  set(rows, key = (row) => row.id) {
    setHidden(this.scroll, rows.length === 0);
    setHidden(this.empty, rows.length !== 0);
    const gone = new Set(this.rows.keys());
    let place = this.body.firstElementChild;
    for (const row of rows) {
      const id = key(row);
      gone.delete(id);
      let line = this.rows.get(id);
      if (line === undefined) {
        line = this._line();
        this.rows.set(id, line);
      }
      if (line === place) place = place.nextElementSibling;
      else this.body.insertBefore(line, place);
      this._fill(line, row);
    }
    for (const id of gone) {
      this.rows.get(id).remove();
      this.rows.delete(id);
    }
  }

  _line() {
    const cells = this.columns.map((one, number) =>
      number === 0
        ? el("th", { scope: "row", class: one.kind === "number" ? "number" : null, "data-label": one.label })
        : el("td", { class: one.kind === "number" ? "number" : null, "data-label": one.label }),
    );
    const line = el("tr", {}, cells);
    if (this.roles) giveRoles(line);
    return line;
  }

  _fill(line, row) {
    this.columns.forEach((column, number) => {
      const cell = line.children[number];
      if (column.fill) column.fill(cell, row);
      else setText(cell, column.cell(row));
    });
  }
}

function giveRoles(node) {
  const roles = { TABLE: "table", THEAD: "rowgroup", TBODY: "rowgroup", TR: "row", TD: "cell" };
  for (const one of [node, ...node.querySelectorAll("*")]) {
    const role = one.tagName === "TH" ? (one.scope === "col" ? "columnheader" : "rowheader") : roles[one.tagName];
    if (role) one.setAttribute("role", role);
  }
}

/** A bar that is filled from the left, for looks: what it shows stands beside it as text. */
export function meter(share) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "meter");
  svg.setAttribute("aria-hidden", "true");
  const rail = document.createElementNS(SVG, "rect");
  const fill = document.createElementNS(SVG, "rect");
  rail.setAttribute("class", "rail");
  fill.setAttribute("class", "fill");
  for (const one of [rail, fill]) {
    one.setAttribute("height", "100%");
    one.setAttribute("rx", "2");
    svg.append(one);
  }
  rail.setAttribute("width", "100%");
  setMeter(svg, share);
  return svg;
}

export function setMeter(svg, share) {
  const width = `${(100 * Math.max(0, Math.min(1, share || 0))).toFixed(1)}%`;
  const fill = svg.lastElementChild;
  if (fill.getAttribute("width") !== width) fill.setAttribute("width", width);
}
