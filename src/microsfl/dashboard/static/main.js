// Which page is shown, by the part of the address after #; and the word about a lost connection.

import { connected } from "./api.js";
import { plotly } from "./charts.js";
import { el } from "./dom.js";
import * as form from "./form.js";
import * as participants from "./participants.js";
import * as run from "./run.js";
import * as runs from "./runs.js";
import * as session from "./session.js";

const main = document.getElementById("main");
const banner = document.getElementById("banner");

let page = null;
let place = null;
let inside = false; // whether somebody is logged in, or nobody needs to be

function route(hash) {
  const [head = "", name = "", section = ""] = hash.replace(/^#\/?/, "").split("/").map(decoded);
  if (head === "") return { key: "runs", page: runs, title: "Runs" };
  if (head === "new" && session.operates()) return { key: "new", page: form, title: "New run" };
  if (head === "participants") return { key: "participants", page: participants, title: "Participants" };
  if (head === "runs" && name) return { key: `run/${name}`, page: run, title: name, name, section };
  return null;
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function go() {
  if (!inside) return;
  const target = route(location.hash);
  if (target !== null && place !== null && place.key === target.key) {
    if (page.section) page.section(target.section, true);
    return;
  }
  if (page !== null) page.close();
  const first = place === null;
  place = target;
  main.replaceChildren();
  document.title = target === null ? "microsfl" : `${target.title} · microsfl`;
  for (const link of document.querySelectorAll("nav [data-page]")) {
    const here = target !== null && link.dataset.page === target.key;
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (target === null) {
    page = { close() {} };
    main.append(el("h1", {}, "There is no such page"), el("p", {}, el("a", { href: "#/" }, "To the list of runs")));
    return;
  }
  page = target.page.show(main, target);
  if (first) return;
  scrollTo(0, 0);
  main.focus({ preventScroll: true }); // whoever reads by ear hears that the page is another one
}

function leave() {
  if (page !== null) page.close();
  page = place = null;
  inside = false;
  session.ended();
}

/** Ask who it is; afterwards the page is there that the address names. */
function logIn(why) {
  session.show(main, why, enter);
}

function enter() {
  inside = true;
  go();
}

async function begin() {
  const why = await session.find((message) => main.replaceChildren(el("p", { class: "empty", role: "status" }, `${message} Trying again …`)));
  if (why === null) enter();
  else logIn(why);
}

function tellConnection() {
  const up = connected();
  banner.textContent = up ? "" : "Connection lost, trying again. What you see is from before.";
  banner.hidden = up;
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the part after # is the page's address
  main.focus();
});
document.addEventListener("connection", tellConnection);
document.addEventListener("logged-out", () => {
  if (!inside) return;
  leave();
  logIn("This session is over: it has ended, or was revoked. Log in again to go on.");
});
document.getElementById("log-out").addEventListener("click", async () => {
  try {
    await session.logOut();
  } catch (error) {
    banner.textContent = error.message;
    banner.hidden = false;
    return;
  }
  leave();
  logIn("You are logged out.");
});
addEventListener("hashchange", () => {
  if (location.hash.startsWith("#login=")) location.reload(); // a link that logs in, opened where the page is already
  else go();
});
begin();
plotly(); // it takes a second to load, and so begins before the first data is there
