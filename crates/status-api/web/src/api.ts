/** Requests to status-api, each with a time limit. */

import type { Problem } from "./wire";

/** status-api itself gives the services behind it less than this. */
const TIMEOUT_MS = 8_000;

/** A request that was answered with something else than success, in words. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

async function request(method: string, path: string, headers: Record<string, string>, body?: unknown) {
  const init: RequestInit = { method, headers, cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    headers["content-type"] = "application/json";
  }
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch {
    throw new Refused(0, "status-api does not answer");
  }
  if (response.ok) return response;
  let words = `${method} ${path} was answered with ${response.status}`;
  try {
    const problem = (await response.json()) as Partial<Problem>;
    words = problem.detail ?? problem.title ?? words;
  } catch {
    // Not a problem document (a proxy in between, say): the status has to do.
  }
  throw new Refused(response.status, words);
}

export async function get<Document>(path: string): Promise<Document> {
  const response = await request("GET", path, {});
  return (await response.json()) as Document;
}

/** A request that changes something, with the operator's token. */
export async function send(method: "POST" | "PUT" | "DELETE", path: string, token: string, body?: unknown) {
  await request(method, path, token === "" ? {} : { authorization: `Bearer ${token}` }, body);
}
