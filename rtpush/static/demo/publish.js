// The form that publishes one message, and the button that publishes a thousand numbered ones.

const MANY = 1000;
const MOST_UNDER_WAY = 50;

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** A JSON object or array goes as it was typed; text goes with the time, so that the page can show the latency. */
export function payload(text) {
  try {
    const data = JSON.parse(text);
    if (typeof data === "object" && data !== null) return data;
  } catch {
    // Not JSON: text.
  }
  return { text, time: Date.now() };
}

export function showPublishing({ client, channel, rate }) {
  const form = document.getElementById("publish-form");
  const button = document.getElementById("publish-many");
  const label = button.textContent;
  const progress = document.getElementById("publish-progress");
  const status = document.getElementById("publish-status");
  let running = null;

  function say(text, bad = false) {
    status.textContent = text;
    status.classList.toggle("bad", bad);
  }

  form.addEventListener("submit", async (submission) => {
    submission.preventDefault();
    const { data, event } = form.elements;
    try {
      await client.publish(channel, payload(data.value), event.value ? { event: event.value } : {});
      say("Published.");
      data.value = "";
    } catch (problem) {
      say(`Not published: ${problem.message}`, true);
    }
    data.focus();
  });

  /** Publish 1 to 1,000, a bounded number at a time; the client keeps them in order. Returns how many came through. */
  async function publishMany(run) {
    const underWay = new Set();
    let published = 0;
    let failure;
    let due = performance.now();
    for (let number = 1; number <= MANY && !run.stopped; number += 1) {
      const early = due - performance.now();
      if (early > 0) await pause(early);
      if (underWay.size >= MOST_UNDER_WAY) await Promise.race(underWay);
      // What the network held up for longer than a second is not caught up in a burst.
      due = Math.max(due, performance.now() - 1000) + 1000 / rate;
      const one = client
        .publish(channel, { n: number, of: MANY, time: Date.now() }, { event: "number" })
        .then(() => {
          published += 1;
          progress.value = published;
          say(`${published.toLocaleString("en")} of ${MANY.toLocaleString("en")} published`);
        })
        .catch((problem) => {
          failure ??= problem;
          run.stopped = true;
        })
        .finally(() => underWay.delete(one));
      underWay.add(one);
    }
    await Promise.all(underWay);
    if (failure) throw failure;
    return published;
  }

  button.addEventListener("click", async () => {
    if (running) {
      running.stopped = true;
      return;
    }
    running = { stopped: false };
    button.style.minWidth = `${button.offsetWidth}px`; // or all that is next to it moves
    button.textContent = "Stop";
    try {
      const published = await publishMany(running);
      say(`${published.toLocaleString("en")} published${running.stopped ? ", then stopped" : ""}.`);
    } catch (problem) {
      say(`Not published: ${problem.message}`, true);
    }
    running = null;
    button.textContent = label;
  });
}
