// The same channel from a terminal: curl lines to copy.

/** Quote for a POSIX shell. */
function quote(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** The lines for a channel of the server at this root URL (which ends with a slash): [what it does, command]. */
export function curlLines(root, channel) {
  const at = (path, query = {}) => {
    const url = new URL(path, root);
    url.search = new URLSearchParams(query).toString().replaceAll("%3A", ":");
    return quote(url.href);
  };
  const message = { channel, event: "greeting", data: { text: "hello from curl" } };
  return [
    ["Listen", `curl -N ${at("sse", { channel })}`],
    ["Publish, as your backend does", `curl ${at("api/v1/publish")} -d ${quote(JSON.stringify(message))}`],
    ["Publish, as a client does", `curl ${at("emit")} -d ${quote(JSON.stringify({ publish: message }))}`],
    ["Poll, from the oldest kept", `curl ${at("poll", { channel, since: "earliest" })}`],
  ];
}

/** Copy text; also where the page is not a secure context, in which there is no clipboard object. */
async function copy(text, element) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const selection = getSelection();
    selection.selectAllChildren(element);
    document.execCommand("copy");
    selection.removeAllRanges();
  }
}

export function showCurlLines(container, root, channel) {
  for (const [title, command] of curlLines(root, channel)) {
    const block = document.createElement("section");
    const heading = document.createElement("h3");
    heading.textContent = title;
    const line = document.createElement("div");
    const code = document.createElement("code");
    code.textContent = command;
    code.tabIndex = 0;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.setAttribute("aria-label", `Copy: ${title}`);
    button.addEventListener("click", async () => {
      await copy(command, code);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
    line.append(code, button);
    block.append(heading, line);
    container.append(block);
  }
}
