// Screen "Sampling": the budget of each adaptive sampler, and its busiest keys with 95 % intervals.

import { duration, el, facts, number, percent, styled, table } from "./dom.js";
import { get } from "./server.js";

export async function sampling(main) {
  const data = await get("/api/sampling", { top: 50 });
  main.append(el("h1", {}, "Sampling"));
  if (!data.samplers.length) {
    main.append(el("p", { class: "card" }, "No pipeline samples by budget: the processor ", el("code", {}, "adaptive_sampling"), " is not used."));
    return undefined;
  }
  main.append(el("p", { class: "lead" }, "Which share of the traces is kept, for each key, and why. Lines show 95 % intervals."), ...data.samplers.map(card));
  return undefined;
}

function card(sampler) {
  const budget = sampler.budget;
  const keys = sampler.keys;
  const most = Math.max(1e-9, ...keys.map((key) => key.rate[2] ?? key.rate[0] ?? 0));
  const used = budget && sampler.spent_last_minute !== null ? sampler.spent_last_minute / 60 / budget.rate : null;
  return el(
    "section",
    { class: "card" },
    el("h2", {}, `${sampler.processor} in ${sampler.pipeline}`),
    facts([
      ["target", budget ? `${number(budget.rate, 2)} ${budget.unit}/s` : "none: everything is kept"],
      ["kept in the last minute", budget && sampler.spent_last_minute !== null ? `${number(sampler.spent_last_minute / 60, 2)} ${budget.unit}/s` : "–"],
      ["factor", number(sampler.factor, 3)],
      ["dropped by the guard", number(sampler.guarded)],
      ["keys", `${number(sampler.keys_known)} of at most ${number(sampler.max_keys)}`],
    ]),
    used === null ? null : el("div", { class: `bar ${used > 1 ? "full" : ""}`, role: "img", "aria-label": `${number(used * 100)} percent of the budget used` }, styled(el("span", {}), { width: `${Math.min(100, used * 100)}%` })),
    table(
      `Keys of ${sampler.processor}`,
      [...sampler.per.map((title) => ({ title })), { title: "Traces/s", num: true }, { title: "Interval", hide: true }, { title: "Kept", num: true }, { title: "Chance", num: true }, { title: "Errors", num: true }, { title: "Median", num: true, hide: true }, { title: "p95", num: true, hide: true }, { title: "Why", hide: true }],
      keys.map((key) => [
        ...sampler.per.map((_, at) => el("span", { class: "name" }, key.key[at] ?? (at ? "" : "(others)"))),
        number(key.rate[0] ?? 0, 2),
        interval(key.rate, most),
        key.kept_share === null ? "–" : percent(Math.min(1, key.kept_share)),
        percent(key.probability),
        ranged(key.error_ratio, percent),
        ranged(key.percentiles["50"], (seconds) => duration(seconds * 1e6)),
        ranged(key.percentiles["95"], (seconds) => duration(seconds * 1e6)),
        el("span", { class: "small muted" }, key.why),
      ]),
      "No traces yet.",
    ),
  );
}

function ranged(value, format) {
  if (!value || value[0] === null) return "–";
  const [middle, low, high] = value;
  return low === null || high === null ? format(middle) : el("span", { title: `from ${format(low)} to ${format(high)}` }, format(middle), el("div", { class: "muted small" }, `${format(low)} – ${format(high)}`));
}

function interval([value, low, high], most) {
  const bar = el("div", { class: "interval", role: "img", "aria-label": `from ${number(low ?? 0, 2)} to ${number(high ?? 0, 2)}` });
  if (low !== null && high !== null) bar.append(styled(el("i", {}), { left: `${(100 * low) / most}%`, width: `${(100 * (high - low)) / most}%` }));
  bar.append(styled(el("b", {}), { left: `${(100 * (value ?? 0)) / most}%` }));
  return bar;
}
