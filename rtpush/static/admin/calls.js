// What the page asks of the server. The session is in a cookie that scripts cannot read.

/** An error that the server told: its `name` is a row of the table of errors. */
export class CallError extends Error {
  constructor({ name, message }) {
    super(message);
    this.name = name;
  }
}

let whenOut = () => {};

/** Have something called when the server says that there is no session any more. */
export function onSignedOut(callback) {
  whenOut = callback;
}

async function read(response) {
  let answer;
  try {
    answer = await response.json();
  } catch {
    throw new CallError({ name: "internal", message: `The server answered ${response.status} and no JSON.` });
  }
  if (!response.ok) throw new CallError(answer.error);
  return answer.result;
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
  } catch {
    throw new CallError({ name: "unreachable", message: "The server cannot be reached." });
  }
  return read(response);
}

function post(path, body) {
  return ask(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
}

export const session = () => ask("session");
export const logIn = (key) => post("login", { key });
export const logOut = () => post("logout", {});

/** Make a call of the server API; resolve with its result. */
export async function call(name, body = {}) {
  try {
    return await post(`api/${name}`, body);
  } catch (problem) {
    if (problem.name === "unauthorized") whenOut();
    throw problem;
  }
}
