// The page: who looks at it, what it hears, and what its buttons do.

import { Charts } from "./charts.js";
import { byId, element, plain, setShown, setText } from "./dom.js";
import { Sections } from "./sections.js";

const STALE_AFTER = 8000; // milliseconds without a word; the gateway says something every two seconds
const AGAIN = 3000;
const UNSEEN_FOR = 60000; // a page that nobody sees stops listening after so long
const ASK_EVERY = 5000;

let state = {};
let source = null;
let heard = performance.now();
let heardAt = "";
let failed = false;
let chosen = null; // {tool, server} of the charts; null: all calls
let chosenPoints = null;
let found = null; // tools that were looked for
let drawing = false;

const charts = new Charts();
const sections = new Sections({ chart: choose, order, explain });

// -- hearing ----------------------------------------------------------------------------------------------------------

async function begin() {
  try {
    const told = await (await fetch("session")).json();
    setShown(byId("login"), told.login);
    setShown(byId("main"), !told.login);
    setShown(byId("logout"), !told.login && told.orders);
    sections.orders = told.orders;
    if (told.login) {
      stop();
      setShown(byId("banner"), false);
      byId("token").focus();
    } else listen();
  } catch {
    failed = true;
    setTimeout(begin, AGAIN);
  }
}

function listen() {
  if (source) return;
  source = new EventSource("live");
  source.addEventListener("state", (event) => {
    state = {};
    change(event);
  });
  source.addEventListener("change", change);
  source.addEventListener("error", () => {
    failed = true;
    if (source?.readyState === EventSource.CLOSED) { // it was answered with a refusal: perhaps the session is over
      stop();
      setTimeout(begin, AGAIN);
    }
  });
}

function stop() {
  source?.close();
  source = null;
}

function change(event) {
  heard = performance.now();
  heardAt = new Date().toLocaleTimeString([], { hour12: false });
  failed = false;
  for (const [name, fresh] of Object.entries(JSON.parse(event.data))) {
    const section = (state[name] ??= Object.create(null)); // an agent may be called __proto__
    for (const [key, value] of Object.entries(fresh)) {
      if (value === null) delete section[key];
      else section[key] = value;
    }
  }
  draw();
}

function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    sections.charted = chosen ? `${chosen.server}/${chosen.tool}` : "";
    sections.draw(state, found);
    drawCharts();
    drawStale();
  });
}

function drawCharts() {
  if (chosen) {
    if (chosenPoints) charts.show(chosenPoints, "minute");
  } else if (state.history) {
    const points = Object.entries(state.history).sort(([a], [b]) => a - b);
    charts.show(points.map(([, point]) => point), "second");
  }
}

function drawStale() {
  if (!byId("login").hidden) return;
  const silent = performance.now() - heard;
  const isStale = silent > STALE_AFTER || (failed && silent > 2500);
  document.body.classList.toggle("stale", isStale);
  setShown(byId("banner"), isStale);
  if (isStale) setText(byId("banner"), `Stale: the gateway's admin port does not answer. ${heardAt ? `What you see is of ${heardAt}.` : ""} Trying again.`);
}

// -- asking -----------------------------------------------------------------------------------------------------------

async function ask(path, parameters) {
  const answer = await fetch(`${path}?${new URLSearchParams(parameters)}`);
  return answer.ok ? answer.json() : null;
}

async function post(path, body) {
  const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  const told = await answer.json().catch(() => ({}));
  return answer.ok ? "" : told.error ?? `status ${answer.status}`;
}

async function choose(tool, server) {
  const isSame = chosen && chosen.tool === tool && chosen.server === server;
  chosen = isSame ? null : { tool, server };
  chosenPoints = null;
  setText(byId("charted"), chosen ? (tool ? `${plain(tool)}${server ? ` at ${plain(server)}` : ""}` : `server ${plain(server)}`) : "all calls");
  setShown(byId("all-calls"), Boolean(chosen));
  await refreshChart();
  draw();
}

async function refreshChart() {
  if (!chosen) return;
  const asked = chosen;
  const told = await ask("page/history", asked).catch(() => null);
  if (!told || asked !== chosen) return;
  const now = Date.now() / 1000;
  chosenPoints = told.rows.map(([ago, ...rest]) => [now - ago, ...rest]);
  draw();
}

async function refreshFound() {
  const find = byId("find-tools").value.trim();
  found = find ? await ask("page/tools", { find }).catch(() => found) : null;
  draw();
}

async function order(verb, server, one) {
  const words = verb === "drain" ? `Send no new calls to ${plain(server)} at ${plain(one.address)}, until it is undrained?` : `Send calls to ${plain(server)} at ${plain(one.address)} again?`;
  if (!confirm(words)) return;
  const wrong = await post(`backends/${verb}`, { server, instance: one.number }).catch(() => "no answer");
  if (wrong) alert(`Not done: ${plain(wrong)}`);
}

// -- explain ----------------------------------------------------------------------------------------------------------

const quoted = (text) => (/^[A-Za-z0-9_.:@/-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

async function explain(one) {
  const endpoint = one.endpoint ?? "/mcp";
  setText(byId("explain-title"), `May ${plain(one.agent)} call ${plain(one.tool)}?`);
  setText(byId("explain-verdict"), "…");
  byId("explain-lines").replaceChildren();
  setText(byId("explain-command"), `fastgw explain --agent ${quoted(one.agent)} --tool ${quoted(one.tool)} --endpoint ${quoted(endpoint)}`);
  byId("explain").showModal();
  const told = await ask("explain", { agent: one.agent, tool: one.tool, endpoint }).catch(() => null);
  if (!told) {
    setText(byId("explain-verdict"), "Not known: the agent or the endpoint is not in the configuration any more.");
    return;
  }
  setText(byId("explain-verdict"), `As things are now, such a call would be ${plain(told.verdict)}.`);
  byId("explain-lines").replaceChildren(...explanation(told).map((line) => element("li", {}, plain(line))));
}

function explanation(told) {
  const rules = told.rules ?? [];
  const said = rules.map((rule) => {
    if (rule.applies === false) return `policy ${rule.policy} does not apply: ${rule.why.join("; ")}`;
    const words = [...(rule.denies.length ? [`denies by ${rule.denies.join(", ")}`] : []), ...(rule.allows.length ? [`allows by ${rule.allows.join(", ")}`] : [])];
    const judged = rule.applies === null ? ` (${rule.why.join("; ")})` : "";
    return `policy ${rule.policy} ${words.join(" and ") || "says nothing of it"}${judged}${rule.shadow ? " (in shadow: not enforced)" : ""}`;
  });
  if (told.shadow) said.push(`in shadow: the policy ${told.shadow.policy} would ${told.shadow.would} it`);
  const limits = told.limits.map((one) => `limit ${one.name} counts it${one.rate ? `: ${one.rate}` : ""}`);
  const quotas = (told.quotas ?? []).map((one) => `quota ${one.name} counts it`);
  const room = limits.length + quotas.length ? ["whether these have room just now, only a call tells: the fullest stand under Limits and quotas"] : [];
  return [...told.absence, ...said, ...limits, ...quotas, ...room];
}

// -- what people do ---------------------------------------------------------------------------------------------------

byId("all-calls").addEventListener("click", () => choose(chosen.tool, chosen.server));
byId("find-tools").addEventListener("input", refreshFound);
byId("copy-command").addEventListener("click", () => {
  const command = byId("explain-command");
  getSelection().selectAllChildren(command); // to be copied by hand where pages may not, over plain HTTP
  navigator.clipboard?.writeText(command.textContent);
});

byId("effective").addEventListener("toggle", async () => {
  if (!byId("effective").open) return;
  const answer = await fetch("config/effective").catch(() => null);
  setText(byId("settings"), answer?.ok ? await answer.text() : "It cannot be had now.");
});

async function showAccess() {
  const told = await ask("catalogue/access", { find: byId("find-access").value.trim() }).catch(() => null);
  if (!told) return;
  sections.catalogue.show(told.rows.map((row) => [`${row.endpoint}\n${row.kind}\n${row.name}`, row]));
  const more = told.found > told.rows.length ? `The first ${told.rows.length} of ${told.found}; type to find others.` : "";
  setText(byId("access-note"), more);
}
byId("access").addEventListener("toggle", () => byId("access").open && showAccess());
byId("find-access").addEventListener("input", showAccess);

byId("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const wrong = await post("login", { token: byId("token").value }).catch(() => "no answer");
  setText(byId("login-error"), wrong ? `${plain(wrong)}.` : "");
  byId("token").value = "";
  if (!wrong) begin();
});
byId("logout").addEventListener("click", async () => {
  await post("logout", {}).catch(() => "");
  state = {};
  begin();
});

let unseen = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(unseen);
  if (document.hidden) unseen = setTimeout(stop, UNSEEN_FOR);
  else if (!source) begin();
});
setInterval(drawStale, 1000);
setInterval(() => {
  if (document.hidden || !source) return;
  refreshChart();
  if (found) refreshFound();
}, ASK_EVERY);

begin();
