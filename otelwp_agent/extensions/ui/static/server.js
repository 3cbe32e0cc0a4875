// Requests to the agent.

export class RequestError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function read(response) {
  const data = await response.json().catch(() => ({}));
  if (!response.ok) throw new RequestError(response.status, data.error ?? `the agent answered with status ${response.status}`);
  return data;
}

/** Return the data at a path of the API. */
export async function get(path, parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== "" && value !== false && value !== undefined));
  return read(await fetch(query.size ? `${path}?${query}` : path));
}

export async function post(path, data) {
  return read(await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(data) }));
}
