// The parts of the page, each drawn from the sections of the same name.

import { Rows, byId, clock, count, element, instant, millis, minute, money, part, plain, setShown, setText } from "./dom.js";

const STATES = {
  up: ["good", "●", "In order"],
  unknown: ["warn", "▲", "Not heard of yet"],
  trying: ["warn", "▲", "Trying again"],
  failing: ["warn", "▲", "A check failed"],
  drained: ["warn", "■", "Drained"],
  maintenance: ["warn", "■", "Maintenance"],
  open: ["bad", "■", "Breaker open"],
  down: ["bad", "■", "Down"],
};
const HIGH_RATE = 0.05; // the part of calls that failed from which on it is red, as in `fastgw top`
const RANK = Object.keys(STATES).reverse();

const numbers = (...values) => values.map((value) => element("td", { class: "n" }, value));
const roomy = (cell) => (cell.classList.add("roomy"), cell);
const loaded = (calls) => roomy(numbers(count(calls))[0]);
const isHigh = (errors, calls) => errors > HIGH_RATE * calls;
const wrong = (value, whole) => element("td", { class: isHigh(value, whole) ? "n bad" : "n" }, part(value, whole));

// "server/tool": names of servers have no slash.
export function split(key) {
  const at = key.indexOf("/");
  return [key.slice(0, at), key.slice(at + 1)];
}

export class Sections {
  // actions: chart(tool, server), order(verb, server, number), explain(refusal)
  constructor(actions) {
    this.actions = actions;
    this.orders = false;
    this.charted = "";
    this.servers = new Rows(byId("servers"), (name, one) => this.serverRows(name, one));
    this.tools = new Rows(byId("tools").tBodies[0], (key, one) => this.toolRow(key, one));
    this.agents = new Rows(byId("agents").tBodies[0], (name, row) => agentRow(name, row));
    this.cost = new Rows(byId("cost").tBodies[0], (_, one) => costRow(one));
    this.full = new Rows(byId("full").tBodies[0], (_, one) => fullRow(one));
    this.refusals = new Rows(byId("refusals").tBodies[0], (_, one) => this.refusalRow(one));
    this.anomalies = new Rows(byId("anomalies").tBodies[0], (_, one) => anomalyRow(one));
    this.catalogue = new Rows(byId("catalogue").tBodies[0], (_, one) => catalogueRow(one));
  }

  draw(state, found) {
    drawHead(state);
    drawTiles(state);
    this.drawServers(state);
    this.drawTools(state, found);
    if (state.agents) this.agents.show(Object.entries(state.agents).sort(([, a], [, b]) => b[0] - a[0]));
    this.drawCost(state);
    this.drawFull(state);
    if (state.refusals) this.refusals.show(newest(state.refusals));
    if (state.anomalies) this.anomalies.show(Object.entries(state.anomalies));
    drawConfig(state);
  }

  // -- servers ------------------------------------------------------------------------------------------------------

  drawServers(state) {
    if (!state.servers) return;
    const groups = new Map();
    for (const [key, one] of Object.entries(state.servers)) {
      const [name, number] = split(key);
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push({ ...one, number: Number(number), load: state.load?.[key] ?? 0 });
    }
    const worst = (group) => Math.min(...group.map((one) => RANK.indexOf(one.state)));
    const items = [...groups].map(([name, group]) => {
      group.sort((a, b) => a.number - b.number);
      return [name, { group, pace: state.pace?.[name] ?? null, orders: this.orders, charted: this.charted === `${name}/` }];
    });
    items.sort(([a, one], [b, other]) => worst(one.group) - worst(other.group) || (a < b ? -1 : 1));
    this.servers.show(items);
    const all = Object.values(state.states ?? {}).reduce((sum, one) => sum + one, 0);
    const shown = Object.keys(state.servers).length;
    const notes = all > shown ? [`${count(all - shown)} more are on /backends.`] : [];
    if (!this.orders && all) notes.push("Draining from here needs an admin token: admin: {listen: ..., token: ...}");
    setText(byId("servers-note"), notes.join(" "));
  }

  serverRows(name, { group, pace, orders, charted }) {
    const row = pace ?? [0, 0, 0, null, null, null];
    const label = element("button", { type: "button", class: "name", title: "Show in the charts", "aria-pressed": String(charted), onclick: () => this.actions.chart("", name) }, plain(name));
    const paced = () => [
      roomy(numbers(count(row[0]))[0]), roomy(wrong(row[1], row[0])),
      roomy(numbers(millis(row[3]))[0]), numbers(millis(row[4]))[0], roomy(numbers(millis(row[5]))[0]),
    ];
    if (group.length === 1) {
      const [one] = group;
      const head = element("th", { scope: "row" }, label, element("small", {}, plain(one.address)));
      return element("tbody", {}, element("tr", {}, head, state(one), loaded(one.load), ...paced(), this.orderCell(name, one, orders)));
    }
    const inOrder = group.filter((one) => one.state === "up").length;
    const load = group.reduce((sum, one) => sum + one.load, 0);
    const summary = element("td", {}, `${inOrder} of ${group.length} in order`);
    const top = element("tr", {}, element("th", { scope: "rowgroup" }, label), summary, loaded(load), ...paced(), element("td", { class: "order" }));
    const below = group.map((one) => element("tr", { class: "member" },
      element("th", { scope: "row" }, plain(one.address)), state(one), loaded(one.load),
      element("td", { class: "roomy", colspan: 2 }), element("td", { class: "roomy" }), element("td"), element("td", { class: "roomy" }),
      this.orderCell(name, one, orders)));
    return element("tbody", {}, top, ...below);
  }

  orderCell(name, one, orders) {
    const cell = element("td", { class: "order" });
    if (!orders) return cell;
    const [verb, word] = one.state === "drained" ? ["close", "Undrain"] : ["drain", "Drain"];
    const label = `${word} ${plain(name)} at ${plain(one.address)}`;
    cell.append(element("button", { type: "button", "aria-label": label, onclick: () => this.actions.order(verb, name, one) }, word));
    return cell;
  }

  // -- tools --------------------------------------------------------------------------------------------------------

  drawTools(state, found) {
    const tools = found ? found.tools : state.tools;
    if (!tools) return;
    const items = Object.entries(tools).sort(([, a], [, b]) => b[0] - a[0]);
    this.tools.show(items.map(([key, row]) => [key, { row, charted: this.charted === key }]));
    const all = found ? found.found : state.all?.tools ?? items.length;
    const words = all > items.length ? `The ${items.length} busiest of ${count(all)}${found ? " found" : ""}; type to find others.` : "";
    setText(byId("tools-note"), words);
    const empty = byId("tools").parentElement.querySelector(".empty");
    setText(empty, found ? "No such tool was called in the last minute." : "No calls in the last minute.");
  }

  toolRow(key, { row, charted }) {
    const [server, tool] = split(key);
    const label = element("button", { type: "button", class: "name", title: "Show in the charts", "aria-pressed": String(charted), onclick: () => this.actions.chart(tool, server) }, plain(tool));
    const head = element("th", { scope: "row" }, label, element("small", { class: "narrow" }, plain(server)));
    return element("tr", {}, head, roomy(element("td", {}, plain(server) || "none asked")), ...numbers(count(row[0])), wrong(row[1], row[0]),
      roomy(numbers(count(row[2]))[0]), roomy(numbers(millis(row[3]))[0]), ...numbers(millis(row[4]), millis(row[5])));
  }

  // -- the others ---------------------------------------------------------------------------------------------------

  drawCost(state) {
    if (!state.cost_told) return;
    const rows = Object.entries(state.cost ?? {}).sort(([, a], [, b]) => Number(b.cost ?? 0) - Number(a.cost ?? 0));
    this.cost.show(rows);
    const { at, error } = state.cost_told;
    setText(byId("cost-note"), error ? `Not known: ${plain(error)}` : `As of ${instant(at)}; asked again each minute. The month is UTC's.`);
  }

  drawFull(state) {
    if (!state.limits || !state.quotas) return;
    const quotas = Object.entries(state.quotas).map(([key, one]) => [`q${key}`, one]);
    const limits = Object.entries(state.limits).map(([key, one]) => [`l${key}`, one]);
    this.full.show([...quotas, ...limits].sort(([, a], [, b]) => (b.share ?? b.used) - (a.share ?? a.used)));
    const refused = Object.values(state.refused ?? {}).sort((a, b) => b.calls - a.calls);
    const words = refused.map((one) => `${plain(one.limit)}${one.subject ? ` for ${plain(one.subject)}` : ""} ${count(one.calls)}`);
    setText(byId("refused-note"), words.length ? `Calls refused by limits so far: ${words.join(", ")}.` : "");
  }

  refusalRow(one) {
    const unsaid = one.refusedBy && !one.reason.includes(one.refusedBy) ? element("small", {}, `by ${plain(one.refusedBy)}`) : null;
    const cells = [
      element("th", { scope: "row", class: "when" }, instant(one.timestamp)),
      element("td", {}, one.agent ? plain(one.agent) : "unknown"),
      element("td", {}, one.tool ? plain(one.tool) : one.method === "none" ? "–" : plain(one.method)),
      element("td", { class: "why" }, plain(one.reason), unsaid),
    ];
    const canExplain = one.agent && one.tool;
    const button = canExplain ? element("button", { type: "button", onclick: () => this.actions.explain(one) }, "Explain") : "";
    return element("tr", {}, ...cells, element("td", { class: "order" }, button));
  }
}

function state(one) {
  const [kind, mark, word] = STATES[one.state] ?? ["warn", "▲", one.state];
  const unsaid = one.breaker !== "closed" && !["open", "trying"].includes(one.state) ? `breaker ${one.breaker}` : "";
  const said = [plain(one.words), unsaid].filter(Boolean).join("; ");
  const words = said ? element("small", {}, said) : null;
  return element("td", {}, element("span", { class: `state ${kind}` }, element("span", { class: "mark", "aria-hidden": "true" }, mark), word), words);
}

function newest(refusals) {
  return Object.entries(refusals).sort(([, a], [, b]) => (a.timestamp < b.timestamp ? 1 : -1));
}

function agentRow(name, row) {
  return element("tr", {}, element("th", { scope: "row" }, plain(name)), ...numbers(count(row[0])), wrong(row[1], row[0]), ...numbers(part(row[2], row[0])));
}

function costRow(one) {
  const cost = one.cost === null ? "–" : `${money(plain(one.cost))} ${plain(one.currency ?? "")}`;
  return element("tr", {}, element("th", { scope: "row" }, one.team ? plain(one.team) : "no team"), ...numbers(count(one.calls), cost));
}

function fullRow(one) {
  if (one.quota === undefined) {
    const left = one.at_once ? `${one.left} of ${one.burst} places are free` : `${one.left} of ${one.burst} calls are left; they come back with time`;
    return fullCells(`limit ${one.limit}`, one.subject, one.used, left);
  }
  const kind = one.kind === "cost" ? "of cost" : one.kind.replace("_", " ");
  const pace = one.used_up ? `used up ${one.share >= 1 ? "now" : `on ${minute(one.used_up)} at this pace`}` : "lasts at this pace";
  const shown = one.kind === "cost" ? money : count;
  return fullCells(`quota ${one.quota}`, one.subject, one.share, `${shown(one.used)} of ${shown(one.amount)} ${kind} used; ${pace}; a new period on ${minute(one.end)}`);
}

function fullCells(which, whose, share, words) {
  const used = element("td", { class: share >= 0.9 ? "n bad" : "n" }, `${Math.floor(100 * share)} %`);
  const head = element("th", { scope: "row" }, plain(which), element("small", {}, plain(whose) ? `of ${plain(whose)}` : "of all together"));
  return element("tr", {}, head, used, element("td", {}, plain(words)));
}

function anomalyRow(one) {
  return element("tr", {}, element("th", { scope: "row", class: "when" }, minute(one.hour)), element("td", {}, plain(one.says)));
}

function catalogueRow(one) {
  const named = one.agents.map(plain).join(", ");
  const more = one.seen_by > one.agents.length ? ` and ${count(one.seen_by - one.agents.length)} more` : "";
  const seen = element("td", {}, one.seen_by ? named + more : element("span", { class: "warn" }, "nobody"));
  if (one.conditional) seen.append(element("small", {}, "depending on the arguments of each call"));
  const to = one.to.map(plain).join(", ");
  const head = element("th", { scope: "row" }, plain(one.name), element("small", {}, one.kind), element("small", { class: "narrow" }, `${plain(one.endpoint)} → ${to}`));
  return element("tr", {}, head, roomy(element("td", {}, plain(one.endpoint))), roomy(element("td", {}, to)), seen);
}

function drawHead(state) {
  const gateway = state.gateway;
  if (!gateway) return;
  setText(byId("name"), plain(gateway.name));
  const bad = (state.states?.down ?? 0) + (state.states?.open ?? 0);
  const ready = byId("ready");
  setText(ready, gateway.ready ? "● Serving agents" : `■ Not serving: ${plain(gateway.reason)}`);
  ready.className = `pill ${gateway.ready ? "good" : "bad"}`;
  document.title = `${gateway.ready ? "" : "not serving – "}${bad ? `${bad} down – ` : ""}fastgw ${plain(gateway.name)}`;
  const workers = Object.values(gateway.workers ?? {}).reduce((sum, one) => sum + one, 0);
  setText(byId("about"), `${gateway.workers?.active ?? 0} of ${workers} workers active · version ${gateway.version} · ${clock(gateway.now)}`);
}

function drawTiles(state) {
  if (!state.all) return;
  const [calls, errors, refused, p50, p95, p99] = state.all.row;
  const states = state.states ?? {};
  const servers = Object.values(states).reduce((sum, one) => sum + one, 0);
  const tiles = [
    ["Calls", count(calls), `${calls < 600 ? +(calls / 60).toFixed(1) : count(Math.round(calls / 60))} per second`],
    ["Errors", count(errors), calls ? part(errors, calls).replace(/^.*\(|\)$/g, "") : "", isHigh(errors, calls) ? "bad" : ""],
    ["Refused", count(refused), calls ? part(refused, calls).replace(/^.*\(|\)$/g, "") : ""],
    ["p50", millis(p50), "ms"], ["p95", millis(p95), "ms"], ["p99", millis(p99), "ms"],
    ["Instances", `${states.up ?? 0} of ${servers}`, "in order", states.down || states.open ? "bad" : ""],
  ];
  const list = byId("tiles");
  if (!list.children.length) {
    for (const [label] of tiles) list.append(element("div", {}, element("dt", {}, label), element("dd", {}, element("span"), element("small"))));
  }
  tiles.forEach(([, value, note, kind], at) => {
    const [shown, small] = list.children[at].lastChild.children;
    setText(shown, value);
    setText(small, note === "0" ? "none" : note);
    shown.className = kind ?? "";
  });
}

function drawConfig(state) {
  const config = state.config;
  if (!config?.applied) return;
  const causes = { start: "at the start", signal: "after a signal", order: "by order", file: "because a file changed" };
  const words = [`In force since ${instant(config.applied.at)}, read ${causes[config.applied.by] ?? config.applied.by}.`];
  if (config.needs_restart?.length) words.push(`Takes a restart: ${config.needs_restart.map(plain).join(", ")}.`);
  if (config.refused) words.push(`A newer one of ${instant(config.refused.at)} cannot be used, and the one before is kept:`);
  setText(byId("config-state"), words.join(" "));
  const error = byId("config-error");
  setShown(error, Boolean(config.refused));
  setText(error, config.refused?.error ?? "");
}
