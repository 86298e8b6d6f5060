// Chromium for the tests: signed in, with everything that the pages complained about. And what happens
// elsewhere meanwhile: agents ask, somebody decides.
import { chromium } from "playwright-core";
import { env } from "./say.mjs";

async function api(key, path, body) {
  const response = await fetch(env("BACKEND") + path, {
    method: body ? "POST" : "GET",
    headers: { "x-api-key": key, "content-type": "application/json" },
    body: body && JSON.stringify(body),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(`${path}: ${JSON.stringify(answer)}`);
  return answer;
}
export const ask = (tool_name, parameters) => api(env("AGENT_KEY"), "/v1/approvals", { tool_name, parameters });
export const status = async ({ id }) => (await api(env("APPROVER_KEY"), `/v1/approvals/${id}`)).status;
export const elsewhere = ({ id }, decision) =>
  api(env("APPROVER_KEY"), `/v1/approvals/${id}/decide`, { decision, note: "elsewhere" });

export async function signedIn(link) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    // Root in a container has no user namespaces for Chromium's own sandbox.
    args: ["--no-sandbox", "--disable-dev-shm-usage"],
  });
  const context = await browser.newContext({ viewport: { width: 1200, height: 800 } });
  const page = await context.newPage();
  const noise = [];
  page.on("console", (message) => message.type() === "error" && noise.push(message.text()));
  page.on("pageerror", (error) => noise.push(String(error)));
  await page.goto(link);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForURL("**/approvals");
  await page.locator("#live").waitFor({ state: "visible" });
  return { browser, context, page, noise };
}
