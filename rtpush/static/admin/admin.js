// The dashboard: who may see it, and what its parts are told.

import { logIn, logOut, onSignedOut, session } from "./calls.js";
import { Channels } from "./channels.js";
import { Connections } from "./connections.js";
import { byId, say } from "./dom.js";
import { Feed } from "./feed.js";
import { Overview } from "./overview.js";
import { showPublishing } from "./publish.js";
import { Rates } from "./rates.js";

const RETRY = 3000;
const FEED_TEXT = { live: "live", waiting: "waiting for the server", off: "" };

const rates = new Rates();
const overview = new Overview();
const connections = new Connections();
const channels = new Channels({
  onChoose: (channel) => {
    if (!byId("publish-channel").value) byId("publish-channel").value = channel;
  },
});

const feed = new Feed({
  onSnapshot: (snapshot) => {
    const now = rates.take(snapshot);
    if (!now) return;
    overview.show(now);
    channels.show(now);
  },
  onState: (state) => {
    byId("feed").dataset.state = state;
    byId("feed").hidden = state === "off";
    say(byId("feed-text"), FEED_TEXT[state]);
  },
  onOut: () => showLogin("The session is over."),
});

let expiry = 0;

function showLogin(text = "") {
  clearTimeout(expiry);
  feed.stop();
  connections.stop();
  byId("dashboard").hidden = true;
  byId("logout").hidden = true;
  byId("login").hidden = false;
  say(byId("login-problem"), text);
  byId("key").focus();
}

function showDashboard({ open, left }) {
  byId("login").hidden = true;
  byId("dashboard").hidden = false;
  byId("logout").hidden = open;
  clearTimeout(expiry);
  if (!open) expiry = setTimeout(() => showLogin("The session is over."), Math.min(left * 1000, 2 ** 31 - 1));
  feed.start();
  connections.start();
}

async function begin() {
  try {
    const state = await session();
    byId("notice").hidden = true;
    if (state.open || state.left !== null) return showDashboard(state);
    showLogin();
    if (state.closed) {
      say(byId("login-problem"), "The dashboard is closed: the server has no key. Set one in [api] keys.");
      for (const control of byId("login-form").elements) control.disabled = true;
    }
  } catch (problem) {
    say(byId("notice"), problem.message);
    byId("notice").hidden = false;
    setTimeout(begin, RETRY);
  }
}

byId("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.target.querySelector("button");
  button.disabled = true;
  say(byId("login-problem"), "");
  try {
    await logIn(byId("key").value);
    byId("key").value = "";
    await begin();
  } catch (problem) {
    say(byId("login-problem"), problem.message);
    byId("key").select();
  }
  button.disabled = false;
});

byId("logout").addEventListener("click", async () => {
  try {
    await logOut();
    showLogin();
  } catch (problem) {
    say(byId("notice"), problem.message);
    byId("notice").hidden = false;
  }
});

onSignedOut(() => showLogin("The session is over."));
showPublishing();
begin();
