// What every client does, through the SDK that it wraps. `CALLS` of the environment names the tool calls, in
// order: [{"step", "name", "arguments"}]. One with `then` is repeated, as a model would, for as long as it is
// not decided; what it gave in the end is the step `then`. TIMEOUT_S is what the SDK is told to give up after.
import { env, outcome, say } from "./say.mjs";

const timer = process.env.TIMEOUT_S ? { timeout: 1000 * Number(process.env.TIMEOUT_S) } : {};
const isPending = (result) => result?._meta?.["oakallow/decision"]?.reason === "approval_pending";

export async function scenario(client, notified, call = (params, options) => client.callTool(params, options)) {
  const tools = [];
  for (let cursor; ; ) {
    const page = await client.listTools(cursor ? { cursor } : {});
    tools.push(...page.tools.map((tool) => tool.name));
    cursor = page.nextCursor;
    if (!cursor) break;
  }
  say("tools", { names: tools.sort() });
  for (const { step, name, arguments: args, then } of JSON.parse(env("CALLS"))) {
    const once = (step) => outcome(step, () => call({ name, arguments: args }, timer));
    let result = await once(step);
    while (then && (result === null || isPending(result))) result = await once(then);
  }
  if (process.env.NOTIFIED) {
    say("notified", await notified);
  }
}
