// What both TypeScript clients do over standard input and output. `calls` of the environment names the tool calls,
// in order: [{"step", "name", "arguments"}]; with "cancelled": true it is given up as soon as it is known to wait.
import { pathToFileURL } from "node:url";
import { env, outcome, say } from "./say.mjs";

// The server, as a client's configuration has it: a command, and the key in its environment.
export function server() {
  const [command, ...args] = JSON.parse(env("COMMAND"));
  return { command, args, env: { OAKALLOW_API_KEY: env("KEY") }, stderr: "inherit" };
}

// The server asks for it by itself.
export const root = async () => ({ roots: [{ uri: pathToFileURL(env("ROOT")).href, name: "root" }] });

// The server has heard where it may read: its question came through, and so did our answer.
export async function ready(call) {
  for (;;) {
    const { content } = await call({ name: "list_allowed_directories", arguments: {} });
    if (content[0].text.includes(env("ROOT"))) return;
  }
}

export async function scenario(client, call) {
  const { tools } = await client.listTools();
  say("tools", { names: tools.map((tool) => tool.name).sort() });
  // One that waits does not keep the others waiting: all are under way at one time.
  await Promise.all(
    JSON.parse(env("CALLS")).map(({ step, name, arguments: args, cancelled }) => {
      const given = new AbortController();
      const onprogress = ({ message }) => {
        say(`${step}-progress`, { message });
        if (cancelled) given.abort("changed my mind");
      };
      return outcome(step, () => call({ name, arguments: args }, { signal: given.signal, onprogress, resetTimeoutOnProgress: true }));
    }),
  );
}
