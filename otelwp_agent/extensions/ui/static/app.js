// Choose the screen from the URL (#/name?parameters), and let people log in if that is needed.

import { el } from "./dom.js";
import { delivery } from "./delivery.js";
import { connect, disconnect, live, watch } from "./live.js";
import { pipelines } from "./pipelines.js";
import { sampling } from "./sampling.js";
import { get, post, RequestError } from "./server.js";
import { site, sites } from "./sites.js";
import { trace, traces } from "./traces.js";

const SCREENS = { sites: ["Sites", sites], traces: ["Traces", traces], pipelines: ["Pipelines", pipelines], delivery: ["Delivery", delivery], sampling: ["Sampling", sampling] };
const HIDDEN = { site: ["Site", site, "sites"], trace: ["Trace", trace, "traces"] };

const main = document.getElementById("main");
const nav = document.getElementById("nav");
const status = document.getElementById("status");
let session = { login: false, may_change: true };
let leave;
let shown = 0;

async function show() {
  const [name, query] = location.hash.replace(/^#\/?/, "").split("?");
  if (name === "main") return main.focus();
  const [title, screen, parent] = SCREENS[name] ?? HIDDEN[name] ?? SCREENS.sites;
  const current = parent ?? (name in SCREENS ? name : "sites");
  shown += 1;
  const mine = shown;
  if (leave) leave();
  leave = undefined;
  document.title = `${title} – otelwp-agent`;
  nav.replaceChildren(...Object.entries(SCREENS).map(([key, [text]]) => el("a", { href: `#/${key}`, "aria-current": key === current ? "page" : null }, text)));
  const page = el("div", {});
  try {
    const ended = await screen(page, Object.fromEntries(new URLSearchParams(query ?? "")), session);
    if (mine !== shown) return ended?.();
    leave = ended;
  } catch (error) {
    if (mine !== shown) return undefined;
    if (error instanceof RequestError && error.status === 401) return login();
    page.append(el("p", { class: "error", role: "alert" }, error.message));
  }
  main.replaceChildren(page);
  return undefined;
}

function login() {
  disconnect();
  const message = el("p", { role: "alert" });
  const submit = async (event) => {
    event.preventDefault();
    try {
      await post("/login", { token: new FormData(event.target).get("token") });
      await begin();
    } catch (error) {
      message.className = "error";
      message.textContent = error.message;
    }
  };
  main.replaceChildren(
    el("section", { class: "card login" }, el("h1", {}, "Log in"), el("p", { class: "muted" }, "With the token of this page, or with your token as an operator of the control store."), el("form", { onsubmit: submit }, el("label", {}, "Token", el("input", { name: "token", type: "password", autocomplete: "current-password", required: true })), message, el("button", { type: "submit" }, "Log in"))),
  );
  main.querySelector("input").focus();
}

async function begin() {
  session = await get("/api/session");
  const logout = document.getElementById("logout");
  logout.hidden = !session.login || session.user === null;
  if (session.login && session.user === null) return login();
  connect();
  return show();
}

function theme(change) {
  const root = document.documentElement;
  const dark = change ? root.dataset.theme !== "dark" : (localStorage.getItem("theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  root.dataset.theme = dark ? "dark" : "light";
  document.getElementById("theme").textContent = dark ? "Light" : "Dark";
  document.getElementById("theme").setAttribute("aria-label", dark ? "Use light colours" : "Use dark colours");
  if (change) localStorage.setItem("theme", root.dataset.theme);
}

watch(() => {
  const state = live.states.at(-1);
  const failing = state && [...state.components, ...state.service].some((each) => !each.healthy);
  status.className = `pill ${!live.connected ? "warn" : failing ? "bad" : "good"}`;
  const text = !live.connected ? "not connected" : failing ? "degraded" : (state?.status ?? "connected");
  if (status.textContent !== text) status.textContent = text;
});

document.getElementById("theme").addEventListener("click", () => theme(true));
document.getElementById("logout").addEventListener("click", async () => {
  await post("/logout", {});
  await begin();
});
window.addEventListener("hashchange", show);
theme(false);
begin().catch((error) => main.replaceChildren(el("p", { class: "error", role: "alert" }, error.message)));
