// A person with a browser whose hands are not always where the eyes are: types on when a card is settled
// elsewhere, and presses the shortcuts.
import { ask, elsewhere, signedIn, status } from "./browser.mjs";
import { env, run, say } from "./say.mjs";

await run(async () => {
  const { browser, page, noise } = await signedIn(env("DASHBOARD"));
  const { keyboard } = page;
  const card = ({ id }) => page.locator(`#${id}`);
  const settled = (of) => page.locator(`#${of.id}.settled`).waitFor();
  const focused = () => page.evaluate(() => {
    const { value, name, tagName } = document.activeElement;
    return value || name || tagName;
  });
  // Until so many milliseconds have passed on the page's clock: what is tested depends on it.
  const passed = async (ms) => {
    const until = await page.evaluate((ms) => performance.now() + ms, ms);
    await page.waitForFunction((until) => performance.now() > until, until);
  };
  const a = await ask("restart_service", { service: "a" });
  const b = await ask("restart_service", { service: "b" });
  const c = await ask("restart_service", { service: "c" });
  await card(c).waitFor();

  await card(a).locator("h2").click();
  await keyboard.press("d");
  await keyboard.type("do not do this, ");
  await elsewhere(a, "approved");
  await settled(a);
  await keyboard.type("k a j a d ask jack and a");
  await keyboard.press("Enter");
  const kept = await card(a).locator(".left").innerText();
  const told = await page.locator("#news").innerText();
  await page.locator("h1").first().click();
  await card(a).waitFor({ state: "detached" });
  await keyboard.type("jack a ja ");
  say("stray", {
    kept, told, reference: a.reference, selected: await page.locator(".card.selected").count(),
    others: [await status(b), await status(c)],
  });

  await passed(1600);
  await keyboard.press("j");
  await keyboard.press("d");
  const note = await focused();
  await keyboard.press("Tab");
  await keyboard.press("Enter");
  const problem = card(b).locator(".problem");
  const wanted = await problem.innerText();
  await keyboard.type("no");
  const gone = await problem.isHidden();
  await keyboard.press("Escape");
  await passed(1600);
  await keyboard.press("d");
  const again = { focused: await focused(), status: await status(b) };
  await keyboard.press("Tab");
  await keyboard.press("Enter");
  await settled(b);
  say("denied", { note, wanted, gone, again, status: await status(b) });

  await passed(1600);
  await keyboard.press("j");
  await keyboard.press("a");
  await keyboard.press("Space");
  const offered = { focused: await focused(), status: await status(c) };
  await passed(300);
  await keyboard.press("Enter");
  await settled(c);
  say("approved", { offered, status: await status(c) });

  const funds = await ask("transfer_funds", { from: "x", to: "y", amount: 1 });
  await page.locator("h1").first().click();
  await card(c).waitFor({ state: "detached" });
  await passed(600);
  await card(funds).getByRole("button", { name: "Approve" }).click();
  const question = await card(funds).locator(".confirm").innerText();
  await card(funds).getByRole("button", { name: "Back" }).click();
  // Both in one go, as no person can who has seen the second.
  await card(funds).evaluate((card) => {
    card.querySelector(".choose .approve").click();
    card.querySelector(".confirm .approve").click();
  });
  const hasty = await status(funds);
  await card(funds).getByRole("button", { name: "Back" }).click();
  const back = await card(funds).getByRole("button", { name: "Approve" }).isVisible();
  await card(funds).getByRole("button", { name: "Approve" }).click();
  await passed(600);
  await card(funds).getByRole("button", { name: "Confirm" }).click();
  await settled(funds);
  say("confirmed", { question, hasty, back, status: await status(funds) });

  say("quiet", { noise });
  await browser.close();
});
