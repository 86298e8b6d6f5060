// Notices that the session has ended, here or in another tab, and then leaves nothing on the screen.

const LOOK_MS = 15000;

const channel = new BroadcastChannel("oakallow-session");

export let over = false;

export function signedOut() {
  if (over) return;
  over = true;
  document.querySelector("main").replaceChildren(document.getElementById("signed-out").content.cloneNode(true));
  document.querySelectorAll(".bar > :not(.brand)").forEach((element) => element.remove());
  document.title = "Signed out · oakallow";
}

export async function check() {
  if (over) return;
  try {
    const response = await fetch("/session", { cache: "no-store", credentials: "same-origin" });
    if (response.status === 401) signedOut();
  } catch {
    // Not reachable is not signed out.
  }
}

if (document.querySelector("[data-session=ended]")) {
  channel.postMessage("ended");
} else {
  channel.addEventListener("message", check);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) check(); });
  window.addEventListener("focus", check);
  window.addEventListener("pageshow", (event) => { if (event.persisted) check(); });
  setInterval(check, LOOK_MS);
}
