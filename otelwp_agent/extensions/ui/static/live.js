// The state of the graph, live: the last states are kept, so that rates and their history can be shown.

const KEPT = 90;

export const live = { states: [], connected: false };
const listeners = new Set();
let source = null;

/** Call `listener` after each change; return a function that ends this. */
export function watch(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function connect() {
  if (source) return;
  source = new EventSource("/api/live");
  source.addEventListener("graph", (event) => {
    const state = JSON.parse(event.data);
    const last = live.states.at(-1);
    if (last && state.started_at !== last.started_at) live.states = [];
    live.states.push(state);
    if (live.states.length > KEPT) live.states.shift();
    change(true);
  });
  source.addEventListener("error", () => change(false));
}

export function disconnect() {
  if (source) source.close();
  source = null;
  live.states = [];
}

function change(connected) {
  live.connected = connected;
  for (const listener of [...listeners]) listener();
}

/** Return the rates per second of a total, one for each pair of states; `total(state)` returns undefined if unknown. */
export function rates(total) {
  const found = [];
  for (let at = 1; at < live.states.length; at += 1) {
    const before = total(live.states[at - 1]);
    const after = total(live.states[at]);
    const seconds = live.states[at].now - live.states[at - 1].now;
    found.push(before === undefined || after === undefined || seconds <= 0 ? 0 : Math.max(0, (after - before) / seconds));
  }
  return found;
}
