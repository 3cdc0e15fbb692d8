// Small things that every part of the page needs.

export const byId = (id) => document.getElementById(id);

/** Make an element with properties and children. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Set a text only if it is another one: selections and screen readers are left alone. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Show items as children, each the same element as before: what has the focus keeps it.
 * `build(item)` makes an element, `update(element, item)` fills it.
 */
export function keyed(parent, items, keyOf, build, update) {
  const old = new Map([...parent.children].map((element) => [element.dataset.key, element]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let element = old.get(key);
    old.delete(key);
    if (!element) {
      element = build(item);
      element.dataset.key = key;
    }
    update(element, item);
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
  }
  for (const element of old.values()) element.remove();
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const one = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** A count or rate, in few characters. */
export function amount(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value >= 100_000) return compact.format(value);
  return (value < 10 ? one : whole).format(value);
}

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  for (; value >= 1000 && unit < units.length - 1; unit += 1) value /= 1000;
  return `${(value < 10 && unit ? one : whole).format(value)} ${units[unit]}`;
}

export function duration(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

/** A time of waiting: in milliseconds, as long as it is short. */
export function milliseconds(seconds) {
  if (seconds >= 1) return `${one.format(seconds)} s`;
  return `${one.format(seconds * 1000)} ms`;
}

/** Call something every few seconds while the page is in sight and `wanted()` is true. One call at a time. */
export function whileSeen(seconds, wanted, callback) {
  let busy = false;
  const turn = async () => {
    if (busy || document.hidden || !wanted()) return;
    busy = true;
    try {
      await callback();
    } finally {
      busy = false;
    }
  };
  setInterval(turn, seconds * 1000);
  document.addEventListener("visibilitychange", turn);
}
