// The single-key shortcuts. What somebody types for another place must never decide a call: they need a
// card that was selected, they keep quiet after the focus moved by itself, and none of them decides.

// Somebody who goes on typing makes no longer pause than this.
const QUIET_MS = 1500;
const TYPED_MS = 1000;
// Nobody reads a button and presses it in less; somebody who types hits the next key in less.
const READ_MS = 250;

let quietUntil = 0;
let offeredAt = -Infinity;
let selected = null;

// No shortcut for a while.
export function hush(ms = QUIET_MS, at = performance.now()) {
  quietUntil = Math.max(quietUntil, at + ms);
}

function select(card) {
  if (selected === card) return;
  selected?.classList.remove("selected");
  selected = card;
  selected?.classList.add("selected");
}

function move(step) {
  const cards = [...document.querySelectorAll(".card")];
  if (!cards.length) return;
  const at = cards.indexOf(document.activeElement?.closest(".card"));
  const next = cards[at < 0 ? 0 : Math.min(cards.length - 1, Math.max(0, at + step))];
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
  select(next);
}

// The button that approves: where a second step is open, that one's.
function offerApproval(card, at) {
  const buttons = [...card.querySelectorAll("button.approve")];
  const button = buttons.find((button) => !button.disabled && !button.closest("[hidden]"));
  if (!button) return;
  button.focus();
  offeredAt = at;
}

function offerNote(card, event) {
  const note = card.querySelector("input[name=note]");
  if (!note || note.readOnly) return;
  note.focus();
  // Or the `d` would be its first letter.
  event.preventDefault();
}

function inField(event) {
  hush(TYPED_MS, event.timeStamp);
  if (event.key === "Escape") event.target.closest(".card")?.focus();
}

// A key that is held down, or that was meant for the word after the `a`, presses nothing.
function onButton(event) {
  const tooSoon = event.timeStamp - offeredAt < READ_MS;
  if (event.key === "Enter" ? event.repeat || tooSoon : tooSoon) event.preventDefault();
}

function shortcut(event) {
  const at = event.timeStamp;
  const { key } = event;
  if (at < quietUntil || !["j", "k", "a", "d"].includes(key)) {
    hush(QUIET_MS, at);
    // Whoever types on did not mean the button.
    if (event.target.matches("button.approve")) event.target.closest(".card")?.focus();
    return;
  }
  if (event.repeat && (key === "a" || key === "d")) return;
  if (key === "j" || key === "k") { move(key === "j" ? 1 : -1); return; }
  if (!selected?.contains(document.activeElement)) return;
  if (key === "a") offerApproval(selected, at);
  else offerNote(selected, event);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, textarea, select")) inField(event);
  else if (event.target.matches("button, a") && (event.key === "Enter" || event.key === " ")) onButton(event);
  else if (event.key.length === 1) shortcut(event);
});
// Space presses a button when it is let go.
document.addEventListener("keyup", (event) => {
  if (event.key === " " && event.target.matches("button") && event.timeStamp - offeredAt < READ_MS) event.preventDefault();
});

document.addEventListener("pointerdown", (event) => select(event.target.closest?.(".card") ?? null));
document.addEventListener("focusout", (event) => {
  if (!event.relatedTarget) hush();
  setTimeout(() => { if (!selected?.contains(document.activeElement)) select(null); });
});
// What is typed while the window comes to the front was meant for another.
window.addEventListener("focus", () => hush());

const hints = document.getElementById("keys");
if (hints) hints.hidden = false;
