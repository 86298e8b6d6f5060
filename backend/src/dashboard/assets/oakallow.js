// Keeps the approvals page current. Everything works without it; with it, new requests appear, decided
// ones go, and a note that is being written stays.
"use strict";

const lists = document.getElementById("lists");
const notice = document.getElementById("notice");
const live = document.getElementById("live");

function say(text) {
  notice.textContent = text;
  notice.hidden = !text;
}

// Takes over what changed and leaves every card that stays as it is: somebody may be typing in it.
function merge(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  const now = lists.querySelector("#pending");
  const next = fresh.querySelector("#pending");
  if (!now || !next) return;
  // Moving a card takes the focus from it.
  const active = document.activeElement;
  const kept = new Map([...now.querySelectorAll(".card")].map((card) => [card.id, card]));
  for (const card of next.querySelectorAll(".card")) {
    const old = kept.get(card.id);
    if (!old) continue;
    const typed = old.querySelector("input[name=note]")?.value;
    const same = old.querySelectorAll("p.warn").length === card.querySelectorAll("p.warn").length
      && old.querySelector("p.warn:last-of-type")?.textContent === card.querySelector("p.warn:last-of-type")?.textContent;
    if (same) card.replaceWith(old);
    else if (typed) card.querySelector("input[name=note]").value = typed;
  }
  now.replaceWith(next);
  lists.querySelector("#recent")?.replaceWith(fresh.querySelector("#recent"));
  if (active && active.isConnected) active.focus({ preventScroll: true });
  const count = next.querySelectorAll(".card").length;
  document.title = (count ? `(${count}) ` : "") + "Approvals · oakallow";
  tick();
}

let refreshing = false;
let again = false;
async function refresh() {
  if (refreshing) { again = true; return; }
  refreshing = true;
  try {
    const response = await fetch("/approvals/list", { cache: "no-store", credentials: "same-origin" });
    if (response.status === 401) { location.reload(); return; }
    if (response.ok) merge(await response.text());
  } catch {
    // The stream's own reconnect tells.
  } finally {
    refreshing = false;
    if (again) { again = false; refresh(); }
  }
}

function listen() {
  const source = new EventSource("/v1/approvals/events");
  live.hidden = false;
  source.addEventListener("approval", refresh);
  source.addEventListener("open", () => {
    live.classList.remove("off");
    live.textContent = "live";
    refresh();
  });
  source.addEventListener("error", () => {
    live.classList.add("off");
    live.textContent = "reconnecting";
    // A stream that was refused does not come back by itself.
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
  });
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.matches("form.decide")) return;
  event.preventDefault();
  const body = new URLSearchParams(new FormData(form, event.submitter));
  const note = form.elements.namedItem("note");
  if (body.get("decision") === "denied" && !note.value.trim()) {
    say("Say why: a denial needs a note.");
    note.focus();
    return;
  }
  const buttons = form.querySelectorAll("button");
  buttons.forEach((button) => { button.disabled = true; });
  say("");
  try {
    const response = await fetch(form.action, {
      method: "POST", body, credentials: "same-origin", headers: { Accept: "application/json, text/html" },
    });
    if (!response.ok) {
      const problem = await response.json().catch(() => ({}));
      const winner = problem.decided_by ? ` Decided by ${problem.decided_by}.` : "";
      say((problem.detail || "That did not work.") + winner);
    }
  } catch {
    say("The backend could not be reached: nothing was decided.");
  }
  buttons.forEach((button) => { button.disabled = false; });
  refresh();
});

const units = [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]];
function left(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  for (const [big, bigName, small, smallName] of units) {
    if (seconds >= big) return `${Math.floor(seconds / big)} ${bigName} ${Math.floor((seconds % big) / small)} ${smallName}`;
  }
  return `${seconds} s`;
}

let ended = false;
function tick() {
  let over = false;
  for (const time of document.querySelectorAll("time[data-deadline]")) {
    const ms = Number(time.dataset.deadline) - Date.now();
    time.textContent = left(ms);
    time.parentElement.classList.toggle("soon", ms < 60000);
    over = over || ms <= 0;
  }
  if (over && !ended) setTimeout(refresh, 1500);
  ended = over;
}

function cards() { return [...document.querySelectorAll(".card")]; }
function current() { return document.activeElement?.closest?.(".card") ?? null; }
function move(step) {
  const all = cards();
  if (!all.length) return;
  const at = all.indexOf(current());
  const next = all[at < 0 ? 0 : Math.min(all.length - 1, Math.max(0, at + step))];
  next.focus();
  next.scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea")) {
    if (event.key === "Escape") event.target.blur?.();
    if (event.key === "Enter" && event.target.matches("form.decide input")) {
      // Enter in the note never approves: which of the two is meant is the buttons' to say.
      event.preventDefault();
    }
    return;
  }
  if (event.key === "j") move(1);
  else if (event.key === "k") move(-1);
  else if (event.key === "a") current()?.querySelector("button.approve")?.click();
  else if (event.key === "d") {
    const note = current()?.querySelector("input[name=note]");
    if (note && !note.value.trim()) { note.focus(); event.preventDefault(); }
    else current()?.querySelector("button.deny")?.click();
  }
});

document.getElementById("keys").hidden = false;
setInterval(tick, 1000);
tick();
listen();
