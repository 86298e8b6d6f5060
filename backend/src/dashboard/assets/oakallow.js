// Keeps the approvals page current. Everything works without it; with it, new requests appear and decided
// ones go, but never from under somebody who types in one.
import { askAgain, cardsMoved, problem } from "./decide.js";
import { hush } from "./keys.js";
import { check, over, signedOut } from "./session.js";

const NEWS_MAX = 3;
const NEWS_MS = 30000;

const pending = document.getElementById("cards");
const news = document.getElementById("news");
const live = document.getElementById("live");
const me = document.querySelector(".who").dataset.email;
const csrf = document.querySelector("form.logout input[name=csrf]").value;

function cards() { return [...pending.querySelectorAll(".card")]; }

function tell(text, seen = true) {
  const line = document.createElement("p");
  line.textContent = text;
  line.classList.toggle("heard", !seen);
  news.append(line);
  const shown = [...news.querySelectorAll("p:not(.heard)")];
  shown.slice(0, -NEWS_MAX).forEach((old) => old.remove());
  setTimeout(() => line.remove(), NEWS_MS);
}

// "approved by NAME", "expired"; nothing while it is not known.
async function outcome(card) {
  const response = await fetch(`/v1/approvals/${card.id}`, { cache: "no-store", credentials: "same-origin" });
  if (!response.ok) return null;
  const became = await response.json();
  const by = became.decided_by ? ` by ${became.decided_by === me ? "you" : became.decided_by}` : "";
  switch (became.status) {
    case "approved": case "consumed": return `approved${by}`;
    case "denied": return `denied${by}`;
    case "expired": case "cancelled": return became.status;
    default: return null;
  }
}

// Nothing can be decided in it any more. It stays where it is until the focus has left it.
function settle(card, became) {
  // Decided here: nobody is taken by surprise.
  const mine = "mine" in card.dataset;
  if (!mine) hush();
  const focused = card.contains(document.activeElement) ? document.activeElement : null;
  // A disabled button would drop the focus, and what is typed next would go anywhere.
  if (focused?.matches("button")) card.focus({ preventScroll: true });
  card.classList.add("settled");
  card.querySelector(".left").textContent = became;
  const form = card.querySelector("form.decide");
  if (form) {
    askAgain(form, false);
    form.querySelectorAll("button").forEach((button) => { button.disabled = true; });
    form.elements.namedItem("note").readOnly = true;
    if (card.querySelector(".problem").textContent.startsWith("Say why")) problem(card, "");
  }
  tell(`Reference ${card.dataset.reference} (${card.dataset.tool}) was ${became}.`, !mine);
}

let pressed = false;
document.addEventListener("pointerdown", () => { pressed = true; }, true);
for (const up of ["pointerup", "pointercancel", "dragend"]) {
  // After the click that this makes.
  document.addEventListener(up, () => { pressed = false; setTimeout(prune); }, true);
}

// Settled ones go, unless the focus is in them or something is being pressed.
function prune() {
  if (pressed || over) return;
  for (const card of pending.querySelectorAll(".card.settled")) {
    if (card.contains(document.activeElement)) continue;
    if (card.nextElementSibling) cardsMoved();
    card.remove();
  }
  const waiting = pending.querySelectorAll(".card:not(.settled)").length;
  document.getElementById("count").textContent = waiting;
  document.getElementById("nothing").hidden = pending.children.length > 0;
  document.title = (waiting ? `(${waiting}) ` : "") + "Approvals · oakallow";
}
document.addEventListener("focusout", () => setTimeout(prune));

// Puts new cards into their places. Those that are here stay as they are, and are not moved: moving one
// takes the focus from it.
function place(fresh) {
  let at = pending.firstElementChild;
  for (const next of fresh) {
    while (at?.matches(".settled")) at = at.nextElementSibling;
    const old = document.getElementById(next.id);
    if (old) {
      const [now, then] = [old.querySelector(".warnings"), next.querySelector(".warnings")];
      if (now.innerHTML !== then.innerHTML) now.replaceWith(then);
      if (old === at) at = at.nextElementSibling;
      continue;
    }
    if (at) cardsMoved();
    pending.insertBefore(next, at);
    tell(`New: ${next.dataset.tool}, asked by ${next.dataset.principal}.`, false);
  }
}

async function merge(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  const theirs = fresh.querySelector("form.decide input[name=csrf]");
  // Somebody signed in anew on this browser.
  if (theirs && theirs.value !== csrf) { location.reload(); return; }
  const next = [...fresh.querySelectorAll(".card")];
  const waiting = new Set(next.map((card) => card.id));
  const gone = cards().filter((card) => !card.matches(".settled") && !waiting.has(card.id));
  const became = await Promise.all(gone.map(outcome));
  if (over) return;
  gone.forEach((card, i) => { if (became[i]) settle(card, became[i]); });
  place(next);
  document.getElementById("recent").replaceWith(fresh.getElementById("recent"));
  prune();
  tick();
}

let refreshing = false;
let again = false;
async function refresh() {
  if (over) return;
  if (refreshing) { again = true; return; }
  refreshing = true;
  try {
    const response = await fetch("/approvals/list", { cache: "no-store", credentials: "same-origin" });
    if (response.status === 401) { signedOut(); return; }
    if (response.ok) await merge(await response.text());
  } catch {
    // The stream's own reconnect tells.
  } finally {
    refreshing = false;
    if (again) { again = false; refresh(); }
  }
}
document.addEventListener("oakallow:decided", refresh);

function listen() {
  if (over) return;
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
    if (source.readyState !== EventSource.CLOSED) return;
    // It was refused, and does not come back by itself.
    check();
    setTimeout(listen, 5000);
  });
}

const units = [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]];
function left(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  for (const [big, bigName, small, smallName] of units) {
    if (seconds >= big) return `${Math.floor(seconds / big)} ${bigName} ${Math.floor((seconds % big) / small)} ${smallName}`;
  }
  return `${seconds} s`;
}

let refreshed = false;
function tick() {
  let due = false;
  for (const time of document.querySelectorAll("time[data-deadline]")) {
    const ms = Number(time.dataset.deadline) - Date.now();
    time.textContent = left(ms);
    time.parentElement.classList.toggle("soon", ms < 60000);
    due = due || ms <= 0;
  }
  if (due && !refreshed) setTimeout(refresh, 1500);
  refreshed = due;
}

setInterval(tick, 1000);
tick();
listen();
