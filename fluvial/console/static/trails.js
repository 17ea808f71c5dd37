// The way back in a list whose pages are named by cursors: those that were passed, as long as the page is open.

const CURSORS_MAX = 1000;
const trails = new Map();

/**
 * Called when a page of the list `name` is opened, with its cursor; "" is the first page. The cursor of the page before
 * it, "" for the first one, and null where there is none. A page that was opened by its address leads back to the first.
 */
export function before(name, cursor) {
  const passed = trails.get(name) ?? [];
  trails.set(name, passed);
  if (!cursor) {
    passed.length = 0;
    return null;
  }
  const at = passed.indexOf(cursor);
  if (at >= 0) passed.length = at + 1;
  else passed.push(cursor);
  if (passed.length > CURSORS_MAX) passed.shift();
  return passed.length > 1 ? passed.at(-2) : "";
}
