// What every client does, through the SDK that it wraps. `calls` of the environment names the tool calls, in
// order: [{"step", "name", "arguments"}].
import { env, outcome, say } from "./say.mjs";

export async function scenario(client, notified) {
  const tools = [];
  for (let cursor; ; ) {
    const page = await client.listTools(cursor ? { cursor } : {});
    tools.push(...page.tools.map((tool) => tool.name));
    cursor = page.nextCursor;
    if (!cursor) break;
  }
  say("tools", { names: tools.sort() });
  for (const { step, name, arguments: args } of JSON.parse(env("CALLS"))) {
    await outcome(step, () => client.callTool({ name, arguments: args }));
  }
  if (process.env.NOTIFIED) {
    say("notified", await notified);
  }
}
