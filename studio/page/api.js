/** The studio's HTTP API, a function for each thing that can be asked of it. Errors are one line, as the server says it. */

export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function request(path, { method = "GET", json, form } = {}) {
  const headers = { Accept: "application/json" };
  if (method !== "GET") headers["X-Nstgpu"] = "1";
  if (json !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, body: json === undefined ? form : JSON.stringify(json), cache: "no-store" });
  } catch {
    throw new ApiError("The studio's server doesn't answer; is it still running?", 0);
  }
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new ApiError(body?.error ?? `The server answered ${response.status}.`, response.status);
  return body;
}

const runPath = (id) => `/api/runs/${encodeURIComponent(id)}`;

export const about = () => request("/api/about");
export const runs = async () => (await request("/api/runs")).runs;
export const run = (id) => request(runPath(id));
export const start = (form) => request("/api/runs", { method: "POST", form });
export const startExample = () => request("/api/example", { method: "POST" });
export const patch = (id, json) => request(runPath(id), { method: "PATCH", json });
export const resume = (id) => request(`${runPath(id)}/resume`, { method: "POST" });
export const remove = (id) => request(runPath(id), { method: "DELETE" });

/** Where a run's file is read: "frame", "thumbnail", "content", "style/0", "recipe", "report", "animation". */
export const fileOf = (id, name) => `${runPath(id)}/${name}`;
export const pictureOf = (id, format) => `${runPath(id)}/picture?format=${format}`;

/** A picture as a bitmap; null where there is none yet. */
export async function bitmapFrom(address) {
  try {
    const response = await fetch(address, { cache: "no-store" });
    return response.ok ? await createImageBitmap(await response.blob()) : null;
  } catch {
    return null; // the server is away, perhaps in the middle of the picture
  }
}
