// A person with a browser: signs in with the link, sees a held call appear by itself, approves it.
import { signedIn } from "./browser.mjs";
import { env, run, say } from "./say.mjs";

await run(async () => {
  const { browser, page, noise } = await signedIn(env("DASHBOARD"));
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
