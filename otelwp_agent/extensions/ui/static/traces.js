// Screen "Traces": search the last traces; screen "Trace": one trace as a waterfall, coloured by plugin.

import { bytes, chip, clock, colour, duration, el, facts, number, stack, styled, swatch, table } from "./dom.js";
import { get } from "./server.js";

export async function traces(main, parameters) {
  const data = await get("/api/traces", parameters);
  main.append(el("h1", {}, "Traces"));
  if (!data.stores.length) {
    main.append(el("p", { class: "card" }, "No pipeline keeps traces for this page. Add the exporter ", el("code", {}, "recent_traces"), " to the exporters of a pipeline with traces."));
    return undefined;
  }
  const sum = (name) => data.stores.reduce((total, store) => total + store[name], 0);
  main.append(
    el("p", { class: "lead" }, `${number(sum("traces"))} traces in memory (${bytes(sum("bytes"))} of ${bytes(sum("max_bytes"))}); the oldest are removed for new ones.`),
    filter(parameters, data.plugins),
  );
  const longest = Math.max(1, ...data.traces.map((trace) => trace.duration));
  main.append(
    el(
      "section",
      { class: "card" },
      table(
        "Traces that match",
        [{ title: "Time" }, { title: "Request" }, { title: "Site", hide: true }, { title: "Status", num: true }, { title: "Duration", num: true }, { title: "Spans", num: true, hide: true }, { title: "Plugins", hide: true }],
        data.traces.map((trace) => row(trace, longest)),
        "No trace matches.",
      ),
    ),
  );
  return undefined;
}

function row(trace, longest) {
  const bar = el("div", { class: "bar" }, styled(el("span", {}), { width: `${(100 * trace.duration) / longest}%` }));
  return [
    clock(trace.start),
    el("div", { class: "name" }, el("a", { href: `#/trace?id=${trace.trace_id}` }, trace.name || "(no root span)"), el("div", { class: "muted small" }, trace.path || trace.route)),
    trace.site,
    el("span", {}, trace.status, " ", trace.errors ? el("span", { class: "pill bad" }, `${number(trace.errors)} ${trace.errors === 1 ? "error" : "errors"}`) : ""),
    el("div", {}, duration(trace.duration), bar),
    number(trace.spans),
    el("span", {}, trace.plugins.map(chip)),
  ];
}

function filter(parameters, plugins) {
  const field = (name, title, extra = {}) => el("label", {}, title, el("input", { name, value: parameters[name] ?? "", ...extra }));
  const options = ["", ...plugins].map((plugin) => el("option", { value: plugin, selected: plugin === (parameters.plugin ?? "") }, plugin || "any"));
  const submit = (event) => {
    event.preventDefault();
    const given = [...new FormData(event.target)].filter(([, value]) => value !== "");
    const target = `#/traces?${new URLSearchParams(given)}`;
    if (location.hash === target) window.dispatchEvent(new HashChangeEvent("hashchange"));
    else location.hash = target;
  };
  return el(
    "form",
    { class: "card filter", role: "search", onsubmit: submit },
    field("text", "Route, path or name"),
    field("id", "Trace id", { spellcheck: "false" }),
    field("site", "Site or service"),
    el("label", {}, "Plugin or theme", el("select", { name: "plugin" }, options)),
    parameters.route ? field("route", "Whole route") : null,
    field("min_ms", "At least (ms)", { type: "number", min: "0", step: "any" }),
    el("label", { class: "row" }, el("input", { type: "checkbox", name: "error", value: "1", checked: parameters.error === "1" }), "with errors"),
    el("button", { type: "submit" }, "Search"),
  );
}

export async function trace(main, parameters) {
  const data = await get("/api/trace", { id: parameters.id ?? "" });
  const owners = Object.entries(data.owners);
  const total = owners.reduce((sum, [, time]) => sum + time, 0);
  main.append(
    el("p", {}, el("a", { href: "#/traces" }, "← Traces")),
    el("h1", {}, data.name || "(no root span)"),
    facts([["trace", data.trace_id], ["site", data.site], ["path", data.path || data.route || "–"], ["status", data.status || "–"], ["at", clock(data.start)], ["duration", duration(data.duration)], ["spans", number(data.spans)], ["errors", data.errors ? el("span", { class: "pill bad" }, number(data.errors)) : "0"]]),
    el(
      "section",
      { class: "card" },
      el("h2", {}, "Own time by plugin"),
      stack(owners, total, "own time by plugin"),
      table("Own time by plugin", [{ title: "Plugin or theme" }, { title: "Own time", num: true }, { title: "Share", num: true }], owners.map(([owner, time]) => [chip(owner), duration(time), `${number((100 * time) / (total || 1), 1)} %`])),
    ),
    el("section", { class: "card" }, el("h2", {}, "Spans"), data.left_out ? el("p", { class: "muted" }, `${number(data.left_out)} spans are not shown, because the trace is too large.`) : null, waterfall(data)),
    el("section", { class: "card" }, el("h2", {}, "Resource"), pairs(data.resource)),
  );
  return undefined;
}

function waterfall(data) {
  const depths = new Map();
  const children = new Map();
  const known = new Set(data.items.map((span) => span.id));
  const roots = [];
  for (const span of data.items) {
    if (known.has(span.parent) && span.parent !== span.id) children.set(span.parent, [...(children.get(span.parent) ?? []), span]);
    else roots.push(span);
  }
  const ordered = [];
  const pending = roots.reverse().map((span) => [span, 0]);
  while (pending.length) {
    const [span, depth] = pending.pop();
    if (depths.has(span)) continue;
    depths.set(span, depth);
    ordered.push(span);
    for (const child of (children.get(span.id) ?? []).toReversed()) pending.push([child, depth + 1]);
  }
  const begin = Math.min(...data.items.map((span) => span.start));
  const length = Math.max(1, ...data.items.map((span) => span.start + span.duration - begin));
  return el(
    "div",
    {},
    el("div", { class: "axis", "aria-hidden": "true" }, [0, 0.25, 0.5, 0.75, 1].map((share) => el("span", {}, duration(share * length)))),
    el("ol", { class: "fall" }, ordered.map((span) => line(span, depths.get(span), begin, length))),
  );
}

function line(span, depth, begin, length) {
  const left = (100 * (span.start - begin)) / length;
  const width = (100 * span.duration) / length;
  const label = styled(el("span", { class: "label" }, swatch(span.owner), el("span", { class: "text" }, span.name), span.error ? el("span", { class: "pill bad" }, "error") : null), { "padding-left": `${Math.min(depth, 20) * 14}px` });
  const lane = el("span", { class: "lane" }, styled(el("i", {}), { left: `${left}%`, width: `${width}%`, background: colour(span.owner) }));
  lane.append(styled(el("b", {}, duration(span.duration)), left + width < 80 ? { left: `calc(${left + width}% + 4px)` } : { right: `calc(${100 - left}% + 4px)` }));
  const item = el("li", {});
  const toggle = () => {
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    if (open) item.lastChild.remove();
    else item.append(detail(span));
  };
  const button = el("button", { type: "button", "aria-expanded": "false", title: `${span.name}: ${duration(span.duration)}, own time ${duration(span.self)}, ${span.owner}`, onclick: toggle }, label, lane);
  item.append(button);
  return item;
}

function detail(span) {
  return el(
    "div",
    { class: "detail" },
    facts([["owner", span.owner], ["duration", duration(span.duration)], ["own time", duration(span.self)], ["kind", span.kind], ["service", span.service], ["scope", span.scope || "–"], ["span id", span.id]]),
    span.message ? el("p", { class: "error" }, span.message) : null,
    pairs(span.attributes),
    span.events.map((event) => el("div", {}, el("h3", {}, event.name), pairs(event.attributes))),
  );
}

function pairs(values) {
  const entries = Object.entries(values);
  if (!entries.length) return el("p", { class: "muted small" }, "No attributes.");
  return el("dl", { class: "pairs" }, entries.flatMap(([key, value]) => [el("dt", {}, key), el("dd", {}, value)]));
}
