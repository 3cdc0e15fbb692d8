// The form to publish.

import { call } from "./calls.js";
import { byId } from "./dom.js";

/** What was typed, as JSON if it is that, else as text. */
function payload(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

export function showPublishing() {
  const form = byId("publish-form");
  const status = byId("publish-status");
  const button = form.querySelector("button");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    status.textContent = "";
    const message = { channel: byId("publish-channel").value.trim(), data: payload(byId("publish-data").value) };
    const name = byId("publish-event").value.trim();
    if (name) message.event = name;
    if (!byId("publish-history").checked) message.history = false;
    try {
      const position = await call("publish", message);
      status.textContent = position.epoch ? `Published at ${position.epoch}:${position.offset}.` : "Published.";
      status.classList.remove("bad");
    } catch (problem) {
      status.textContent = problem.message;
      status.classList.add("bad");
    }
    button.disabled = false;
  });
}
