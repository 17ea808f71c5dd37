// One helper that makes nodes, and one that brings a page up to date in place.
// Text reaches the page through text nodes and attributes only: nothing here, or anywhere else, parses markup.

const SVG_NAMESPACE = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "path", "circle", "rect", "polygon", "line", "polyline", "g"]);
const KEY = Symbol("key");
const HANDLERS = Symbol("handlers");

/** Whether a property is set on the node itself and not as an attribute. */
const PROPERTIES = new Set(["value", "checked", "spec", "indeterminate"]);

/** Attributes that a person, or the element itself, sets and keeps. */
const OWN_ATTRIBUTES = { DETAILS: ["open"], "SCROLL-BOX": ["tabindex", "role"] };

/** What a terminal or a browser obeys instead of showing it: control characters, marks of direction, what has no width. */
const OBEYED = /[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\ufff0-\ufffb\ud800-\udfff\u{110bd}\u{110cd}\u{13430}-\u{1343f}\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}]/gu;

/** Text that anybody may have written, as it may be shown; the same as `backends/shown.py` shows on a terminal. */
export function printable(text) {
  return text.replace(OBEYED, (one) => {
    const code = one.codePointAt(0);
    if (code <= 0xff) return `\\x${code.toString(16).padStart(2, "0")}`;
    return code <= 0xffff ? `\\u${code.toString(16).padStart(4, "0")}` : `\\U${code.toString(16).padStart(8, "0")}`;
  });
}

/** Calls the handler that the newest version of the node was given. */
function dispatch(event) {
  event.currentTarget[HANDLERS]?.[event.type]?.(event);
}

/**
 * A node. Props: `key` names it among its siblings, `on` {event: function}, `style` {"--custom": value}, a property of
 * PROPERTIES, else an attribute; null, undefined and false leave it out. Children: nodes, texts, numbers, nested lists.
 */
export function h(tag, props, ...children) {
  const node = SVG_TAGS.has(tag) ? document.createElementNS(SVG_NAMESPACE, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "key") node[KEY] = String(value);
    else if (name === "on") listen(node, value);
    else if (name === "style") for (const [rule, text] of Object.entries(value)) node.style.setProperty(rule, String(text));
    else if (!PROPERTIES.has(name)) node.setAttribute(name, value === true ? "" : name === "href" ? String(value) : printable(String(value)));
  }
  append(node, children);
  // After the children: a select's value needs its options.
  for (const name of PROPERTIES) if (props?.[name] !== undefined && props[name] !== null) node[name] = props[name];
  return node;
}

function listen(node, handlers) {
  node[HANDLERS] = handlers;
  for (const name of Object.keys(handlers)) node.addEventListener(name, dispatch);
}

function append(node, children) {
  for (const child of children) {
    if (Array.isArray(child)) append(node, child);
    else if (child instanceof Node) node.append(child);
    else if (child !== null && child !== undefined && child !== false) node.append(printable(String(child)));
  }
}

/**
 * Makes the children of `root` equal to `children`, keeping every node that can stay: focus, scroll, selection, what a
 * person typed, and what they opened.
 */
export function show(root, ...children) {
  const wanted = document.createElement("div");
  append(wanted, children);
  const focused = document.activeElement;
  reconcile(root, wanted);
  if (focused !== document.activeElement && focused?.isConnected && root.contains(focused)) {
    focused.focus({ preventScroll: true });
  }
}

function reconcile(have, wanted) {
  const next = [...wanted.childNodes];
  const keys = new Set(next.map((node) => node[KEY]).filter((key) => key !== undefined));
  const keyed = new Map();
  for (const node of [...have.childNodes]) {
    if (node[KEY] === undefined) continue;
    // First, so that those that stay need not be moved, which would cost them the focus.
    if (keys.has(node[KEY])) keyed.set(node[KEY], node);
    else node.remove();
  }
  let cursor = have.firstChild;
  for (const node of next) {
    const key = node[KEY];
    const candidate = key === undefined ? cursor : keyed.get(key);
    if (candidate && candidate[KEY] === key && candidate.nodeName === node.nodeName) {
      if (candidate === cursor) cursor = cursor.nextSibling;
      else have.insertBefore(candidate, cursor);
      update(candidate, node);
    } else {
      have.insertBefore(node, cursor);
    }
  }
  while (cursor) {
    const after = cursor.nextSibling;
    cursor.remove();
    cursor = after;
  }
}

function update(have, node) {
  if (have.nodeType === Node.TEXT_NODE) {
    if (have.nodeValue !== node.nodeValue) have.nodeValue = node.nodeValue;
    return;
  }
  if (have.dataset?.said) return; // it is just saying that something was copied
  updateAttributes(have, node);
  const handlers = node[HANDLERS];
  for (const name of Object.keys(handlers ?? {})) {
    if (!have[HANDLERS]?.[name]) have.addEventListener(name, dispatch);
  }
  have[HANDLERS] = handlers;
  if (node.spec !== undefined) {
    have.spec = node.spec; // a chart keeps its own inside
    return;
  }
  reconcile(have, node);
  if (have instanceof HTMLProgressElement && have.value !== node.value) have.value = node.value;
  if (have instanceof HTMLSelectElement && document.activeElement !== have) have.value = node.value;
}

function updateAttributes(have, node) {
  for (const { name } of [...have.attributes]) {
    const own = OWN_ATTRIBUTES[have.nodeName]?.includes(name);
    if (!own && name !== "style" && !node.hasAttribute(name)) have.removeAttribute(name);
  }
  for (const { name, value } of node.attributes) {
    // A style attribute would be stopped by the content security policy; its object is not.
    if (name !== "style" && have.getAttribute(name) !== value) have.setAttribute(name, value);
  }
  const style = node.style?.cssText ?? "";
  if (have.style && have.style.cssText !== style) have.style.cssText = style;
}
