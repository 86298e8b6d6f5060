// A person with a browser who reads: long arguments, the table of what was decided, and what is left on
// the screen after they signed out in another tab.
import { ask, elsewhere, signedIn } from "./browser.mjs";
import { env, run, say } from "./say.mjs";

await run(async () => {
  const { browser, context, page, noise } = await signedIn(env("DASHBOARD"));
  const card = ({ id }) => page.locator(`#${id}`);
  const done = await ask("restart_service", { service: "a" });
  await elsewhere(done, "denied");
  await page.locator("#recent .state").first().waitFor();

  const items = Array.from({ length: 1000 }, (_, i) => `item ${i}`);
  const long = await ask("nobody_registered_this", { items });
  await card(long).waitFor();
  const inView = await card(long).getByRole("button", { name: "Deny" }).evaluate((button) => {
    window.scrollTo(0, 0);
    const { top, bottom } = button.getBoundingClientRect();
    return top > 0 && bottom <= innerHeight && document.documentElement.scrollHeight > 3 * innerHeight;
  });
  // Approved are arguments that were seen to their end.
  // By the pointer where the button is: `click()` would scroll to the end first, where the button has its place.
  const press = async () => {
    const { x, y, width, height } = await card(long).locator(".choose button.approve").boundingBox();
    await page.mouse.click(x + width / 2, y + height / 2);
  };
  const step = () => card(long).locator(".confirm").isVisible();
  await page.waitForTimeout(600); // A list that has just moved takes no click.
  await press();
  const unread = { step: await step(), said: await card(long).locator(".problem").innerText() };
  await card(long).locator("pre").evaluate((pre) => window.scrollBy(0, pre.getBoundingClientRect().bottom - innerHeight / 2));
  await press();
  const readToTheEnd = await step();
  await card(long).locator("button.back").click();
  // Words in two pieces, of a column that is not for names of any length.
  const broken = await page.evaluate(() => {
    const pieces = [];
    for (const cell of document.querySelectorAll("#recent th, #recent td:not(.long)")) {
      const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
      while (texts.nextNode()) {
        for (const { index, 0: word } of texts.currentNode.data.matchAll(/\S+/g)) {
          const range = document.createRange();
          range.setStart(texts.currentNode, index);
          range.setEnd(texts.currentNode, index + word.length);
          if (range.getClientRects().length !== 1) pieces.push(word);
        }
      }
    }
    return pieces;
  });
  const hints = [await page.locator("#keys").isVisible()];
  await page.setViewportSize({ width: 400, height: 800 });
  hints.push(await page.locator("#keys").isVisible());
  await page.setViewportSize({ width: 1200, height: 800 });
  say("read", { size: await card(long).locator(".size").innerText(), inView, unread, readToTheEnd, broken, hints });

  const other = await context.newPage();
  await other.goto(page.url());
  await other.getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("heading", { name: "You are signed out" }).waitFor();
  const left = { text: await page.locator("body").innerText(), buttons: await page.locator("button, input").count() };
  await other.goto(env("DASHBOARD"));
  say("out", { left, link: await other.locator("main").innerText(), noise });
  await browser.close();
});
