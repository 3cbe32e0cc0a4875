// Screens "Sites" and "Site": which plugins and routes take the time of pages, with 95 % intervals.

import { chip, clock, colour, duration, el, facts, number, percent, styled, svg, swatch, table } from "./dom.js";
import { get } from "./server.js";

const MEASURES = {
  profiled: "Times come from profiled pages: they include all functions of plugins in hooks. The rest of the page counts as core.",
  lower_bound: "Times are lower bounds: loading, queries and outgoing requests. Set a profile rate in the WordPress plugin to measure functions, too.",
  spans: "Times are the own times of spans. Time that no span of a plugin covers counts as core.",
};
const ms = (value) => (value === null ? "–" : duration(value * 1000));

export async function sites(main) {
  const { sites: found } = await get("/api/sites");
  main.append(el("h1", {}, "Sites"));
  if (!found.length) {
    main.append(el("p", { class: "card empty" }, "No pages yet. This screen needs the exporter ", el("code", {}, "recent_traces"), " in a pipeline with traces."));
    return undefined;
  }
  const most = Math.max(...found.map((site) => site.high ?? site.mean ?? 0));
  main.append(
    el("p", { class: "lead" }, "Sites with traces in memory. Lines show 95 % intervals of the mean page time."),
    el(
      "section",
      { class: "card" },
      table(
        "Sites",
        [{ title: "Site" }, { title: "Page time", num: true }, { title: "Interval", hide: true }, { title: "Pages", num: true }, { title: "Errors", num: true }, { title: "Last page", hide: true }],
        found.map((site) => [el("span", { class: "name" }, el("a", { href: link("site", { site: site.site }) }, site.site || "(no name)")), ranged(site), interval(site, most), number(site.pages), number(site.errors), clock(site.last)]),
      ),
    ),
  );
  return undefined;
}

export async function site(main, parameters) {
  const data = await get("/api/blame", parameters);
  const { site: name = "", plugin, route } = parameters;
  main.append(
    el("p", {}, el("a", { href: plugin || route ? link("site", { site: name }) : "#/sites" }, plugin || route ? `← ${name}` : "← Sites")),
    el("div", { class: "spread" }, el("h1", {}, plugin ?? route ?? name), plugin || route ? null : el("a", { class: "button", href: `/report.html?${new URLSearchParams({ site: name })}`, download: "site-performance.html" }, "Download the report")),
  );
  if (!data.traces) {
    main.append(el("p", { class: "card empty" }, "No trace in memory matches."));
    return undefined;
  }
  main.append(
    el("p", { class: "lead" }, plugin ? `Pages of ${name} on which this plugin or theme ran.` : route ? `Pages of ${name} with this route.` : "Which plugins take the time of pages."),
    facts([["page time", ranged(data.page)], ["pages", number(data.pages)], ["traces", number(data.traces)], ["since", clock(data.since)], ["", el("a", { href: link("traces", parameters) }, "Show the traces")]]),
    chart(data),
    owners(data, name, plugin),
    routes(data, name),
  );
  return undefined;
}

function owners(data, name, plugin) {
  const most = Math.max(1e-9, ...data.owners.map((row) => row.high ?? row.mean));
  const open = (row) => (row.owner === "core" || row.owner === "other" || row.owner === plugin ? chip(row.owner) : el("span", { class: "chip" }, swatch(row.owner), el("a", { href: link("site", { site: name, plugin: row.owner }) }, row.owner)));
  return el(
    "section",
    { class: "card" },
    el("h2", {}, "Plugins and themes"),
    el("p", { class: "muted small" }, `${MEASURES[data.measure]} ${number(data.measured)} traces were used.`),
    table(
      "Plugins and themes",
      [{ title: "Plugin or theme" }, { title: "Time per page", num: true }, { title: "95 % interval", hide: true }, { title: "Share", num: true }, { title: "Queries per page", num: true, hide: true }, { title: "Errors", num: true }, { title: "Slowest call", hide: true }],
      data.owners.map((row) => [open(row), ranged(row), interval(row, most), percent(row.share), number(row.queries, 1), row.errors ? el("span", { class: "pill bad" }, number(row.errors)) : "0", el("span", { class: "name small muted" }, row.slowest || "–")]),
      "No plugin was measured.",
    ),
    data.owners_left_out ? el("p", { class: "muted small" }, `${number(data.owners_left_out)} more are not shown.`) : null,
  );
}

function routes(data, name) {
  const most = Math.max(1e-9, ...data.routes.map((row) => row.high ?? row.mean));
  return el(
    "section",
    { class: "card" },
    el("h2", {}, "Routes"),
    table(
      "Routes",
      [{ title: "Route" }, { title: "Pages", num: true }, { title: "Page time", num: true }, { title: "95 % interval", hide: true }, { title: "Errors", num: true }, { title: "Most time", hide: true }],
      data.routes.map((row) => [el("span", { class: "name" }, row.route === "other" ? row.route : el("a", { href: link("site", { site: name, route: row.route }) }, row.route)), number(row.pages), ranged(row), interval(row, most), row.errors ? el("span", { class: "pill bad" }, number(row.errors)) : "0", row.slowest_owner ? chip(row.slowest_owner) : "–"]),
    ),
  );
}

/** Return the mean page time over time, stacked by plugin, with the same data as a table for screen readers. */
function chart(data) {
  const periods = data.timeline;
  const names = [...new Set(periods.flatMap((period) => Object.keys(period.owners)))];
  const sum = (period) => Object.values(period.owners).reduce((total, value) => total + value, 0);
  const top = Math.max(1e-9, ...periods.map(sum));
  const wide = 1000 / Math.max(1, periods.length);
  const drawing = svg("svg", { class: "chart", viewBox: "0 0 1000 220", preserveAspectRatio: "none", role: "img", "aria-label": `Mean page time over time, stacked by plugin, at most ${ms(top)}` });
  periods.forEach((period, at) => {
    let y = 220;
    for (const owner of names) {
      const height = (214 * (period.owners[owner] ?? 0)) / top;
      if (height <= 0) continue;
      y -= height;
      const part = svg("rect", { x: (at * wide + 1).toFixed(1), y: y.toFixed(1), width: Math.max(1, wide - 2).toFixed(1), height: height.toFixed(1) }, svg("title", {}, `${clock(period.at)} ${owner}: ${ms(period.owners[owner])}`));
      part.style.setProperty("fill", owner === "other" ? "var(--track)" : colour(owner));
      drawing.append(part);
    }
  });
  return el(
    "section",
    { class: "card" },
    el("div", { class: "spread" }, el("h2", {}, "Page time over time"), el("span", { class: "muted small" }, `up to ${ms(top)} per page`)),
    drawing,
    el("div", { class: "spread muted small" }, el("span", {}, clock(data.since)), el("span", {}, clock(data.until))),
    el("div", {}, names.map((owner) => (owner === "other" ? el("span", { class: "chip" }, styled(el("span", { class: "swatch" }), { background: "var(--track)" }), "other") : chip(owner)))),
  );
}

export function ranged({ mean, low, high }) {
  if (mean === null) return "–";
  return low === null ? ms(mean) : el("span", {}, ms(mean), el("div", { class: "muted small" }, `${ms(low)} – ${ms(high)}`));
}

function interval({ mean, low, high }, most) {
  const bar = el("div", { class: "interval", role: "img", "aria-label": low === null ? "no interval" : `from ${ms(low)} to ${ms(high)}` });
  if (low !== null) bar.append(styled(el("i", {}), { left: `${(98 * low) / most}%`, width: `${(98 * (high - low)) / most}%` }));
  bar.append(styled(el("b", {}), { left: `${(98 * (mean ?? 0)) / most}%` }));
  return bar;
}

function link(screen, parameters) {
  return `#/${screen}?${new URLSearchParams(Object.entries(parameters).filter(([, value]) => value))}`;
}
