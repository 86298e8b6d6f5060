// Preloaded into a client that cannot send a header of its choice (`node --import`): each of its requests
// carries the agent's key, and is otherwise what it was. Node 22.12 is the first with both channels.
import { subscribe } from "node:diagnostics_channel";
import { env } from "./say.mjs";

const key = env("KEY");
subscribe("undici:request:create", ({ request }) => request.addHeader("x-api-key", key));
subscribe("http.client.request.created", ({ request }) => request.setHeader("x-api-key", key));
