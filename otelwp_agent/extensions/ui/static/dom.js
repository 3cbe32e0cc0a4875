// Build elements and format values. Text is always set as text, never as markup.

/** Return an element; `properties` are attributes, or listeners if their names begin with "on". */
export function el(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Return an SVG element. */
export function svg(name, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  element.append(...children);
  return element;
}

/** Set styles from the script, which the content security policy allows. */
export function styled(element, styles) {
  for (const [key, value] of Object.entries(styles)) element.style.setProperty(key, value);
  return element;
}

export const number = (value, digits = 0) => new Intl.NumberFormat("en", { maximumFractionDigits: digits }).format(value);
export const rate = (value) => number(value, value < 10 ? 1 : 0);
export const percent = (value) => `${number(value * 100, value < 0.1 ? 1 : 0)} %`;

/** Format microseconds. */
export function duration(us) {
  if (us < 1000) return `${number(us)} µs`;
  if (us < 1e6) return `${number(us / 1000, us < 1e4 ? 1 : 0)} ms`;
  return `${number(us / 1e6, 2)} s`;
}

export function bytes(value) {
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (value < 1024 || unit === "GiB") return `${number(value, unit === "B" ? 0 : 1)} ${unit}`;
    value /= 1024;
  }
}

export const clock = (us) => new Date(us / 1000).toLocaleTimeString("en-GB");

const PALETTE = ["#2f6fde", "#c4551d", "#1d8a5a", "#9b45c9", "#b8892b", "#c73a6d", "#1a8fa6", "#6b7f1f", "#7a5c48", "#5b5fd6"];

/** Return a colour for a plugin or theme, always the same one; core is grey. */
export function colour(owner) {
  if (owner === "core") return "var(--core)";
  let hash = 7;
  for (const character of owner) hash = (hash * 31 + character.codePointAt(0)) >>> 0;
  return PALETTE[hash % PALETTE.length];
}

export const swatch = (owner) => styled(el("span", { class: "swatch", "aria-hidden": "true" }), { background: colour(owner) });
export const chip = (owner) => el("span", { class: "chip" }, swatch(owner), owner);

/** Return a table; each column is {title, num, hide}, each row a list of cells (text or elements). */
export function table(caption, columns, rows, empty = "Nothing yet.") {
  if (!rows.length) return el("p", { class: "empty" }, empty);
  const classes = (column) => [column.num && "num", column.hide && "hide-small"].filter(Boolean).join(" ") || null;
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el(
      "table",
      {},
      el("thead", {}, el("tr", {}, columns.map((column) => el("th", { scope: "col", class: classes(column) }, column.title)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, at) => el("td", { class: classes(columns[at]) }, cell ?? ""))))),
    ),
  );
}

/** Return a list of facts: names and values. */
export function facts(entries) {
  return el("dl", { class: "facts" }, entries.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

/** Return a horizontal bar of parts with these sizes, each [owner, size]. */
export function stack(parts, total, label) {
  const bar = el("div", { class: "stack", role: "img", "aria-label": label });
  for (const [owner, size] of parts) {
    bar.append(styled(el("span", { title: `${owner}: ${duration(size)}` }), { width: `${(100 * size) / (total || 1)}%`, background: colour(owner) }));
  }
  return bar;
}
