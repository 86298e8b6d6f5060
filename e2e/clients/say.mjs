// One JSON object a line, each a step that the test waits for.
export const say = (step, more = {}) => console.log(JSON.stringify({ step, ...more }));

// What a tool call gave, whichever SDK made it: a result, or an error with its code.
export async function outcome(step, call) {
  try {
    const result = await call();
    const text = (result.content ?? []).map((block) => block.text ?? "").join("\n");
    say(step, { isError: result.isError ?? false, text, structured: result.structuredContent ?? null, meta: result._meta ?? null });
    return result;
  } catch (error) {
    say(step, { thrown: String(error?.message ?? error), code: error?.code ?? null });
    return null;
  }
}

export function env(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set`);
  return value;
}

export async function run(main) {
  try {
    await main();
    process.exit(0);
  } catch (error) {
    say("failed", { error: String(error?.stack ?? error) });
    process.exit(1);
  }
}
