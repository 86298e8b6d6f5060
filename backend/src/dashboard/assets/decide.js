// Decides: sends a card's form, asks again where much is at stake, and says at the card what went wrong.

// In less nobody sees that something else has come under the pointer, or that there is a second step.
const SEE_MS = 500;

let movedAt = -Infinity;

// The cards changed their places.
export function cardsMoved() {
  movedAt = performance.now();
}

export function problem(card, text) {
  const line = card.querySelector(".problem");
  if (!line) return;
  line.textContent = text;
  line.hidden = !text;
}

// Shows the second step, or the first again.
export function askAgain(form, open) {
  const second = form.querySelector(".confirm");
  if (!second || second.hidden !== open) return;
  // What is hidden loses the focus, and what is typed next would go anywhere.
  if (second.contains(document.activeElement)) form.closest(".card").focus({ preventScroll: true });
  second.hidden = !open;
  form.querySelector(".choose").hidden = open;
  form.dataset.askedAt = open ? performance.now() : "";
}

// Whether the end of the arguments is, or has gone, above the buttons. They stay at the bottom of the screen while the
// arguments are longer than it, and nobody approves what they have not had before their eyes.
function read(form, card) {
  const shown = card.querySelector("pre");
  return !shown || shown.getBoundingClientRect().bottom <= form.getBoundingClientRect().top + 1;
}

function showArguments(card) {
  card.querySelector("pre").scrollIntoView({ block: "start" });
  problem(card, "Here is what you approve. Read it to its end, then press again.");
}

// Whether this press is one that decides; if not, does what it is for.
function decides(form, card, event) {
  const button = event.submitter;
  if (!button?.value || form.dataset.busy || card.matches(".settled")) return false;
  if (button.value === "denied") {
    const note = form.elements.namedItem("note");
    if (note.value.trim()) return true;
    problem(card, "Say why: a denial needs a note.");
    note.focus();
    return false;
  }
  if (!read(form, card)) {
    showArguments(card);
    return false;
  }
  if (!form.querySelector(".confirm")) return true;
  if (button.closest(".confirm")) return performance.now() - Number(form.dataset.askedAt) >= SEE_MS;
  askAgain(form, true);
  form.querySelector(".confirm button.approve").focus();
  return false;
}

async function send(form, body) {
  try {
    const response = await fetch(form.action, {
      method: "POST", body, credentials: "same-origin", headers: { Accept: "application/json, text/html" },
    });
    if (response.ok) return "";
    const why = await response.json().catch(() => ({}));
    const winner = why.decided_by ? ` Decided by ${why.decided_by}.` : "";
    return (why.detail || "That did not work.") + winner;
  } catch {
    return "No answer came from the backend. Press again: a decision counts once.";
  }
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.matches("form.decide")) return;
  event.preventDefault();
  const card = form.closest(".card");
  if (!decides(form, card, event)) return;
  // Not `disabled`: that would take the focus from the button.
  form.dataset.busy = "1";
  problem(card, "");
  const wrong = await send(form, new URLSearchParams(new FormData(form, event.submitter)));
  delete form.dataset.busy;
  if (!wrong) card.dataset.mine = "1";
  problem(card, wrong);
  askAgain(form, false);
  // The page of one call's arguments has done its work.
  if (!wrong && !document.getElementById("cards")) { location.assign("/approvals"); return; }
  document.dispatchEvent(new Event("oakallow:decided"));
});

// A click on what has just come under the pointer was meant for what was there before.
document.addEventListener("click", (event) => {
  const form = event.target.closest("form.decide");
  const byPointer = event.detail > 0;
  if (!form || !byPointer || performance.now() - movedAt >= SEE_MS || !event.target.closest("button[value]")) return;
  event.preventDefault();
  problem(form.closest(".card"), "The list has just moved, nothing was decided: press again.");
}, true);

document.addEventListener("click", (event) => {
  const back = event.target.closest("button.back");
  // The second half of a double click was for the button that was here before.
  if (!back || event.detail > 1) return;
  const form = back.closest("form");
  askAgain(form, false);
  form.querySelector(".choose button.approve").focus();
});

// Enter in the note decides nothing: which of the two is meant is the buttons' to say.
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.matches("form.decide input")) event.preventDefault();
});

// What was said is done.
document.addEventListener("input", (event) => {
  if (event.target.matches("form.decide input")) problem(event.target.closest(".card"), "");
});
