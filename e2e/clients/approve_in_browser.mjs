// A person with a browser: signs in with the link, sees a held call appear by itself, approves it.
import { chromium } from "playwright-core";
import { env, run, say } from "./say.mjs";

await run(async () => {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    // Root in a container has no user namespaces for Chromium's own sandbox.
    args: ["--no-sandbox", "--disable-dev-shm-usage"],
  });
  const page = await (await browser.newContext()).newPage();
  const noise = [];
  page.on("console", (message) => message.type() === "error" && noise.push(message.text()));
  page.on("pageerror", (error) => noise.push(String(error)));
  await page.goto(env("DASHBOARD"));
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForURL("**/approvals");
  await page.locator("#live").waitFor({ state: "visible" });
  say("open", { cards: await page.locator("article.card").count() });

  const card = page.locator("article.card").first();
  await card.waitFor({ state: "visible", timeout: 30_000 });
  say("seen", { text: await card.innerText() });
  await card.getByRole("button", { name: "Approve" }).click();
  await page.locator("#recent td .state").first().waitFor({ timeout: 30_000 });
  say("approved", { recent: await page.locator("#recent").innerText(), noise });

  await page.goto(env("DASHBOARD"));
  const again = page.getByRole("button", { name: "Sign in" });
  if (await again.count()) await again.click();
  await page.waitForLoadState();
  say("again", { url: page.url(), text: await page.locator("main").innerText() });
  await browser.close();
});
