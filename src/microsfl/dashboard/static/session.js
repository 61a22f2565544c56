// Who is logged in, and the form to log in with. The session itself is a cookie that no script can read.

import { ApiError, get, post, remove } from "./api.js";
import { el, setHidden, setText } from "./dom.js";

const SESSION = "/api/session";
const LINK = /^#login=(.+)$/;
const AGAIN_MS = 1000;

let known = null; // {id, role, anybody}

/** Whether whoever looks may also start, stop and download. */
export const operates = () => known !== null && known.role === "operator";

/** The code of a link that logs in, which stays neither in the address nor in the history. */
function codeOf() {
  const found = LINK.exec(location.hash);
  if (found === null) return null;
  history.replaceState(null, "", "#/");
  return found[1];
}

/** Find out who is logged in; null, or a sentence that says why nobody is. Waits for a coordinator that is away. */
export async function find(waiting) {
  const code = codeOf();
  for (;;) {
    try {
      known = code === null ? await get(SESSION) : await post(SESSION, { code });
      tell();
      return null;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status >= 400 && error.status < 500) return code === null ? "" : error.message;
      waiting(error.message);
    }
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

/** Nobody is logged in any more; whether somebody was. */
export function ended() {
  const was = known !== null;
  known = null;
  tell();
  return was;
}

export async function logOut() {
  await remove(SESSION);
}

function tell() {
  const shows = known !== null && !known.anybody;
  setHidden(document.getElementById("who"), !shows);
  setText(document.getElementById("name"), !shows ? "" : known.id === known.role ? known.id : `${known.id} (${known.role})`);
  for (const link of document.querySelectorAll("nav [data-page]")) {
    setHidden(link, known === null || (link.dataset.page === "new" && !operates()));
  }
}

/** The form, with a sentence that says why it is there; `done` once somebody is logged in. */
export function show(main, why, done) {
  const id = el("input", { id: "login-id", name: "username", type: "text", autocomplete: "username", autocapitalize: "none", spellcheck: "false", required: true });
  const secret = el("input", { id: "login-secret", name: "password", type: "password", autocomplete: "current-password", required: true });
  const error = el("p", { class: "error", id: "login-error", role: "alert", hidden: true });
  const submit = el("button", { type: "submit", class: "primary" }, "Log in");
  for (const input of [id, secret]) input.setAttribute("aria-describedby", "login-error");

  const fail = (message) => {
    setText(error, message);
    setHidden(error, !message);
  };
  const send = async (event) => {
    event.preventDefault();
    fail("");
    const missing = [id, secret].find((input) => input.value.trim() === "");
    if (missing) {
      fail(missing === id ? "The id is missing." : "The secret is missing.");
      missing.focus();
      return;
    }
    submit.disabled = true;
    try {
      known = await post(SESSION, { id: id.value.trim(), secret: secret.value.trim() });
      tell();
      done();
    } catch (refusal) {
      if (!(refusal instanceof ApiError)) throw refusal;
      fail(refusal.message);
      secret.focus();
    } finally {
      submit.disabled = false;
    }
  };

  main.replaceChildren(
    el(
      "form",
      { class: "card login", novalidate: true, onsubmit: send },
      el("h1", {}, "Log in"),
      why ? el("p", { class: "notice", role: "status" }, why) : null,
      el("p", { class: "muted" }, "With the id and the secret of an operator or a viewer. Both are in the file of its credential."),
      el("div", { class: "field" }, el("label", { for: id.id }, "Id"), id),
      el("div", { class: "field" }, el("label", { for: secret.id }, "Secret"), secret),
      error,
      submit,
      el("p", { class: "note" }, "Where such a file is, this prints an address that logs in by itself:"),
      el("pre", { tabindex: "0" }, `microsfl admin login-link --coordinator ${location.origin}`),
    ),
  );
  document.title = "Log in · microsfl";
  id.focus();
}
