// Talks to /admin beside the pages, with the session's cookie.

import { BASE } from "./address.js";

const ROOT = new URL("../admin/", BASE);
const CSRF_HEADER = "x-csrf-token";

/** A refusal of the gateway, or its silence (`status` 0). */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let csrf = null;

/** The address of an endpoint, for links and event streams. */
export function endpoint(path, query = {}) {
  const url = new URL(path, ROOT);
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, value);
  }
  return url;
}

/** Read an endpoint. */
export const get = (path, query, signal) => send("GET", endpoint(path, query), { signal });

/** Send a body to an endpoint. */
export const post = (path, body, signal) => send("POST", endpoint(path), { body, signal });

/** Who is logged in, or null. */
export async function whoAmI() {
  try {
    return remember(await get("session"));
  } catch (error) {
    if (error.status === 401 || error.status === 403) return null;
    throw error;
  }
}

/** Begin a session with a key; the key itself is not kept. */
export const logIn = async (key) => remember(await post("session", { key }));

/** End the session. */
export async function logOut() {
  await send("DELETE", endpoint("session"), {});
  csrf = null;
}

function remember(session) {
  csrf = session.csrf;
  return session;
}

async function send(method, url, { body, signal }) {
  const headers = { accept: "application/json" };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (method !== "GET" && csrf) headers[CSRF_HEADER] = csrf;
  const asked = { method, headers, signal, credentials: "same-origin", cache: "no-store" };
  if (body !== undefined) asked.body = JSON.stringify(body);
  const response = await fetch(url, asked).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The gateway does not answer. It may be starting again.");
  });
  if (response.ok) return response.status === 204 ? null : response.json();
  throw await refusal(response);
}

async function refusal(response) {
  const said = await response.json().catch(() => null);
  const message = said?.error?.message ?? `The gateway answered ${response.status}.`;
  const error = new ApiError(response.status, message);
  if (response.status === 401) dispatchEvent(new CustomEvent("frugal:logged-out"));
  return error;
}
