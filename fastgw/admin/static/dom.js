// Elements, texts and rows. Whatever came from a server or an agent gets into the page as text and in no other way.

const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
const LONGEST = 200;

export const byId = (id) => document.getElementById(id);

// Text that shows what it holds: line breaks and letters that turn the direction of others are written out.
export function plain(text) {
  const written = String(text ?? "").replace(UNSEEN, (one) => "\\u" + one.charCodeAt(0).toString(16).padStart(4, "0"));
  return written.length > LONGEST ? written.slice(0, LONGEST) + "…" : written;
}

// element("td", {class: "n"}, "text", anotherElement)
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") made.addEventListener("click", value);
    else if (value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((one) => one !== null && one !== undefined));
  return made;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setShown(node, shown) {
  if (node.hidden === shown) node.hidden = !shown;
}

// Rows by key. A row whose content is as before stays the same element, so that focus and selection stay, too.
export class Rows {
  constructor(parent, make) {
    this.parent = parent;
    this.make = make;
    this.known = new Map();
  }

  // items: [key, value] in the order in which they are shown.
  show(items) {
    let focused = document.activeElement;
    const wanted = new Set(items.map(([key]) => key));
    for (const [key, row] of this.known) {
      if (!wanted.has(key)) {
        row.node.remove();
        this.known.delete(key);
      }
    }
    let before = null;
    for (const [key, value] of items) {
      const text = JSON.stringify(value);
      let row = this.known.get(key);
      if (!row || row.text !== text) {
        const node = this.make(key, value);
        if (row) {
          focused = sameButton(row.node, node, focused) ?? focused;
          row.node.replaceWith(node);
        }
        row = { node, text };
        this.known.set(key, row);
      }
      const place = before ? before.nextSibling : this.firstRow();
      if (place !== row.node) this.parent.insertBefore(row.node, place);
      before = row.node;
    }
    if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
    const table = this.parent.closest("table");
    setShown(table, items.length > 0);
    const empty = table.parentElement.querySelector(".empty");
    if (empty) setShown(empty, items.length === 0);
  }

  firstRow() {
    return this.parent.tagName === "TABLE" ? this.parent.tHead.nextSibling : this.parent.firstChild;
  }
}

// Where the focus is on a button of the old row, the button in the same place of the new one.
function sameButton(old, fresh, focused) {
  const place = [...old.querySelectorAll("button")].indexOf(focused);
  return place < 0 ? null : fresh.querySelectorAll("button")[place];
}

export function count(value) {
  return Number(value ?? 0).toLocaleString("en");
}

// Decimal text with two places at least, and no noughts beyond: money is never a float.
export function money(text) {
  const [whole, places = ""] = String(text).split(".");
  return `${whole.replace(/\B(?=(\d{3})+$)/g, ",")}.${places.replace(/0+$/, "").padEnd(2, "0")}`;
}

export function millis(value) {
  if (value === null || value === undefined) return "–";
  return value >= 10 ? count(Math.round(value)) : value.toFixed(value >= 0.1 ? 1 : 2);
}

// "3 (12 %)"
export function part(value, whole) {
  if (!value) return "0";
  const percent = (100 * value) / whole;
  return `${count(value)} (${percent < 1 ? "<1" : Math.round(percent)} %)`;
}

// A time of the gateway's, in the reader's zone; with the day where it is not today's.
export function clock(seconds, precise = true) {
  const at = new Date(seconds * 1000);
  const parts = { hour: "2-digit", minute: "2-digit", hour12: false, ...(precise ? { second: "2-digit" } : {}) };
  const time = at.toLocaleTimeString([], parts);
  const isToday = at.toDateString() === new Date().toDateString();
  return isToday ? time : `${at.toLocaleDateString([], { day: "numeric", month: "short" })} ${time}`;
}

export const instant = (text) => clock(Date.parse(text) / 1000);
export const minute = (text) => clock(Date.parse(text) / 1000, false);
