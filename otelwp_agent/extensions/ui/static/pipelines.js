// Screen "Pipelines": every pipeline as receivers → processors → exporters, with live figures.

import { bytes, el, facts, number, rate, styled, svg } from "./dom.js";
import { live, rates, watch } from "./live.js";

const ITEMS = { traces: "spans", metrics: "data points", logs: "log records" };

export function pipelines(main) {
  const body = el("div", {});
  main.append(el("h1", {}, "Pipelines"), el("p", { class: "lead" }, "What the agent receives, processes and sends, updated every two seconds."), body);
  const draw = () => {
    const state = live.states.at(-1);
    if (!state) return;
    body.replaceChildren(
      el("p", { class: "muted small" }, `Version ${state.version}, running since ${new Date(state.started_at * 1000).toLocaleString("en-GB")}`, state.stalled ? `. ${state.stalled}` : ""),
      ...state.pipelines.map((pipeline) => card(state, pipeline)),
      service(state),
    );
  };
  draw();
  return watch(draw);
}

function card(state, pipeline) {
  const ledger = pipeline.ledger;
  const items = ITEMS[pipeline.signal];
  const accepted = last(rates((each) => each.pipelines.find((other) => other.id === pipeline.id)?.ledger.accepted));
  const stages = [
    ["Receivers", "receivers", pipeline.receivers],
    ["Processors", "processors", pipeline.processors],
    ["Exporters", "exporters", pipeline.exporters],
  ];
  return el(
    "section",
    { class: "card", "aria-label": `Pipeline ${pipeline.id}` },
    el("div", { class: "spread" }, el("h2", {}, pipeline.id), el("span", { class: "muted" }, `${rate(accepted)} ${items}/s`)),
    facts([
      ["accepted", number(ledger.accepted)],
      ["delivered", number(ledger.delivered)],
      ["sampled out", number(ledger.sampled_out)],
      ["filtered", number(ledger.filtered)],
      ["dropped", ledger.dropped ? el("span", { class: "pill bad" }, number(ledger.dropped)) : "0"],
      ["in flight", number(ledger.in_flight)],
    ]),
    el(
      "div",
      { class: "flow" },
      stages.map(([title, kind, ids]) => el("div", { class: "stage" }, el("h3", {}, title), ids.length ? ids.map((id) => box(state, kind, id, pipeline.signal)) : el("p", { class: "muted small" }, "none"))),
    ),
  );
}

function find(state, kind, id) {
  return state.components.find((each) => each.id === id && each.kind === kind) ?? state.components.find((each) => each.id === id && each.kind === "connectors");
}

function box(state, kind, id, signal) {
  const component = find(state, kind, id);
  if (!component) return el("div", { class: "box" }, el("h3", {}, id));
  const parts = [el("div", { class: "spread" }, el("h3", {}, id), el("span", { class: `pill ${component.healthy ? "good" : "bad"}` }, component.healthy ? "healthy" : "failing"))];
  const figure = { receivers: "accepted", exporters: "sent" }[component.kind];
  if (figure) {
    const history = rates((each) => find(each, kind, id)?.figures[figure]);
    parts.push(el("div", { class: "rate" }, `${rate(last(history))}/s `, el("span", { class: "muted small" }, `${number(component.figures[figure])} ${figure}`)), spark(history, `${figure} per second`));
  }
  for (const [name, value] of Object.entries(component.figures)) {
    if (name !== figure && value > 0) parts.push(el("div", {}, el("span", { class: "pill bad" }, `${number(value)} ${name}`)));
  }
  const detail = component.details.find((each) => each.data_type === signal) ?? component.details[0] ?? {};
  if (detail.queue_capacity !== undefined) parts.push(queue(detail));
  if (component.message) parts.push(el("div", { class: `message small ${component.healthy ? "muted" : ""}` }, component.message));
  if (component.line) parts.push(el("div", { class: "source" }, `${component.file}:${component.line}`));
  return el("div", { class: `box ${component.healthy ? "" : "bad"}` }, parts);
}

function queue(detail) {
  const used = Math.min(1, detail.queue_size / (detail.queue_capacity || 1));
  const bar = el("div", { class: `bar ${used > 0.9 ? "full" : ""}`, role: "img", "aria-label": `queue ${number(used * 100)} percent full` }, styled(el("span", {}), { width: `${used * 100}%` }));
  const open = detail.breaker && detail.breaker !== "closed";
  return el(
    "div",
    { class: "small" },
    el("div", { class: "spread" }, el("span", { class: "muted" }, `queue ${number(detail.queue_size)} of ${number(detail.queue_capacity)} (${bytes(detail.queue_bytes)})`), open ? el("span", { class: "pill bad" }, `breaker ${detail.breaker}`) : el("span", { class: "muted" }, "breaker closed")),
    bar,
  );
}

function service(state) {
  const extensions = state.components.filter((each) => each.kind === "extensions");
  const parts = [...state.service, ...extensions];
  return el(
    "section",
    { class: "card" },
    el("h2", {}, "Service and extensions"),
    el(
      "div",
      { class: "flow" },
      parts.map((part) => {
        const detail = Array.isArray(part.details) ? {} : part.details;
        const shown = [el("div", { class: "spread" }, el("h3", {}, part.id), el("span", { class: `pill ${part.healthy ? "good" : "bad"}` }, part.healthy ? "healthy" : "failing"))];
        if (part.id === "journal" && detail.max_size) {
          const used = Math.min(1, detail.bytes / detail.max_size);
          shown.push(el("div", { class: "muted small" }, `${bytes(detail.bytes)} of ${bytes(detail.max_size)}, ${number(detail.entries)} entries`), el("div", { class: "bar" }, styled(el("span", {}), { width: `${used * 100}%` })));
        }
        if (part.message) shown.push(el("div", { class: "message small muted" }, part.message));
        if (part.line) shown.push(el("div", { class: "source" }, `${part.file}:${part.line}`));
        return el("div", { class: `box ${part.healthy ? "" : "bad"}` }, shown);
      }),
    ),
  );
}

function last(values) {
  return values.at(-1) ?? 0;
}

function spark(values, label) {
  const top = Math.max(...values, 1e-9);
  const step = 100 / Math.max(1, values.length - 1);
  const path = values.map((value, at) => `${at ? "L" : "M"}${(at * step).toFixed(2)} ${(28 - (26 * value) / top).toFixed(2)}`).join("");
  return svg("svg", { class: "spark", viewBox: "0 0 100 30", preserveAspectRatio: "none", role: "img", "aria-label": `${label}, most ${rate(Math.max(0, ...values))}` }, svg("path", { d: path || "M0 28" }));
}
