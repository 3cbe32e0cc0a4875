// Screen "Delivery": the ledger, and the dead letters with a way to resend them.

import { el, number, table } from "./dom.js";
import { get, post, RequestError } from "./server.js";

const WAIT = 10;

export async function delivery(main, _parameters, session) {
  const ledger = await get("/api/ledger");
  main.append(
    el("h1", {}, "Delivery"),
    el("p", { class: "lead" }, "Every accepted item is delivered, sampled out, filtered, dropped or in flight. Nothing else may happen to it."),
    el(
      "section",
      { class: "card" },
      el("div", { class: "spread" }, el("h2", {}, "Ledger"), el("span", { class: `pill ${ledger.balances ? "good" : "bad"}` }, ledger.balances ? "balances" : "does not balance")),
      ledger.problems.map((problem) => el("p", { class: "error" }, problem)),
      table(
        "Ledger",
        [{ title: "Ledger" }, { title: "Accepted", num: true }, { title: "Delivered", num: true }, { title: "Sampled out", num: true, hide: true }, { title: "Filtered", num: true, hide: true }, { title: "Dropped", num: true }, { title: "In flight", num: true }, { title: "Reasons" }],
        ledger.lines.map((line) => [
          el("span", {}, el("span", { class: "muted" }, `${line.kind} `), line.name || "(none)"),
          number(line.accepted),
          number(line.delivered),
          number(line.sampled_out),
          number(line.filtered),
          line.dropped ? el("span", { class: "pill bad" }, number(line.dropped)) : "0",
          number(line.in_flight),
          Object.entries(line.reasons).map(([reason, items]) => el("div", { class: "small" }, `${reason}: ${number(items)}`)),
        ]),
      ),
    ),
  );
  const section = el("section", { class: "card" });
  main.append(section);
  await letters(section, session);
  return undefined;
}

async function letters(section, session) {
  let data;
  try {
    data = await get("/api/dead-letters");
  } catch (error) {
    if (!(error instanceof RequestError) || error.status !== 409) throw error;
    section.replaceChildren(el("h2", {}, "Dead letters"), el("p", { class: "muted" }, error.message));
    return;
  }
  const message = el("p", { role: "status" });
  const chosen = () => [...section.querySelectorAll("input[name=letter]:checked")].map((box) => box.value);
  const resend = async (choice) => {
    message.className = "muted";
    message.textContent = "Resending…";
    try {
      const result = await post("/api/dead-letters/resend", { ...choice, wait: WAIT });
      await letters(section, session);
      section.querySelector("[role=status]").textContent = `Delivered ${number(result.delivered)}, refused again ${number(result.refused)}, kept ${number(result.kept)}, pending ${number(result.pending)} of ${number(result.letters)} letters.`;
    } catch (error) {
      message.className = "error";
      message.textContent = error.message;
    }
  };
  const dialog = el(
    "dialog",
    { "aria-label": "Resend all dead letters" },
    el("p", {}, `Send all ${number(data.count)} dead letters again? Those that the backend refuses again are kept.`),
    el("div", { class: "spread" }, el("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Cancel"), el("button", { type: "button", onclick: () => (dialog.close(), resend({ all: true })) }, "Resend all")),
  );
  const disabled = !data.letters.length || !session.may_change;
  const one = el("button", { type: "button", disabled, onclick: () => (chosen().length ? resend({ ids: chosen() }) : (message.textContent = "Select letters first.")) }, "Resend selected");
  const all = el("button", { type: "button", class: "quiet", disabled, onclick: () => dialog.showModal() }, "Resend all…");
  section.replaceChildren(
    el("div", { class: "spread" }, el("h2", {}, `Dead letters (${number(data.count)})`), el("div", { class: "tools" }, one, all)),
    el("p", { class: "muted small" }, `Requests that a backend refused for good, in ${data.path}.`, data.damaged ? ` ${number(data.damaged)} records are damaged.` : "", session.may_change ? "" : " Your role may only read."),
    message,
    table(
      "Dead letters",
      [{ title: el("span", { class: "small" }, "Select") }, { title: "When" }, { title: "Exporter" }, { title: "Signal", hide: true }, { title: "Items", num: true }, { title: "Reason" }, { title: "Message of the backend" }],
      data.letters.toReversed().map((letter) => [
        el("input", { type: "checkbox", name: "letter", value: letter.id, "aria-label": `Select the letter ${letter.id}` }),
        when(letter.when),
        letter.exporter,
        letter.signal,
        number(letter.items),
        letter.reason,
        el("span", { class: "name" }, letter.error ?? ""),
      ]),
      "No request was refused for good.",
    ),
    dialog,
  );
}

function when(value) {
  return typeof value === "number" ? new Date(value * 1000).toLocaleString("en-GB") : String(value);
}
