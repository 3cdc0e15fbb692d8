// The connection test: small messages to /echo and back, one after another.

const ROUNDS = 20;
const PATIENCE = 3000;

/** Resolve with the milliseconds of each round trip; `onRound(milliseconds)` is called as they come. */
function measure(url, onRound) {
  return new Promise((resolve, reject) => {
    const times = [];
    const socket = new WebSocket(url);
    let sent = 0;
    let timer = 0;
    const end = (finish, value) => {
      clearTimeout(timer);
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
      finish(value);
    };
    const wait = (why) => {
      clearTimeout(timer);
      timer = setTimeout(() => end(reject, new Error(why)), PATIENCE);
    };
    const send = () => {
      wait("The WebSocket opens, but nothing comes back through it.");
      sent = performance.now();
      socket.send(`round ${times.length + 1}`);
    };
    socket.onopen = send;
    socket.onmessage = () => {
      times.push(performance.now() - sent);
      onRound(times.at(-1));
      if (times.length < ROUNDS) send();
      else end(resolve, times);
    };
    socket.onclose = () =>
      end(reject, new Error(times.length ? "The WebSocket was cut." : "No WebSocket: the network refuses it, or the server has no /echo."));
    wait("No WebSocket: no answer.");
  });
}

export function showEchoTest(url) {
  const button = document.getElementById("echo-start");
  const bars = document.getElementById("echo-bars");
  const result = document.getElementById("echo-result");
  button.addEventListener("click", async () => {
    button.disabled = true;
    bars.replaceChildren();
    result.textContent = "Measuring…";
    const drawn = [];
    try {
      const times = await measure(url, (time) => {
        drawn.push(time);
        bars.append(document.createElement("i"));
        const most = Math.max(...drawn);
        [...bars.children].forEach((bar, index) => (bar.style.height = `${(100 * drawn[index]) / most}%`));
      });
      const sorted = times.toSorted((a, b) => a - b);
      const text = (time) => `${time.toFixed(1)} ms`;
      result.textContent = `Median ${text(sorted[ROUNDS >> 1])}, fastest ${text(sorted[0])}, slowest ${text(sorted.at(-1))}.`;
    } catch (problem) {
      result.textContent = problem.message;
    }
    button.disabled = false;
  });
}
