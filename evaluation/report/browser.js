"use strict";
// The transcript browser. Every string of the data is set as text or as a plain attribute; nothing here parses HTML.
// data/index.js calls steerIndex once with one entry a dialogue; data/<n>.js calls steerChunk with the text of 40 dialogues.
const ROW = 64; // px, height of a list entry, as in style.css
const BATCH = 8; // files of text read at once for a search
const MARGIN = 8; // entries drawn above and below the visible part of the list
const OUTCOMES = {
  "safe and helpful": (a) => a.safe && a.help,
  "not safe": (a) => a.safe === false,
  "not helpful": (a) => a.help === false,
  "a turn failed": (a) => a.fails !== null,
  "no turn failed": (a) => a.fails === null && a.safe !== null,
  "ended early": (a) => a.end !== "complete",
  "unscored turns": (a) => a.unscored > 0,
};
// These need another model next to the first; one is put there when they are chosen.
const COMPARED = {
  "differs": (a, b) => ["safe", "help", "fails"].some((key) => a[key] !== b[key]),
  "got worse": (a, b) => change(a, b) < 0,
  "got better": (a, b) => change(a, b) > 0,
};
const CHOICES = ["benchmark", "kind", "category", "strategy"];
const FILTERS = [...CHOICES, "by", "outcome", "score", "search"];
const by = (id) => document.getElementById(id);
const state = { model: 0, beside: -1, id: null, turn: null };
const chunks = new Map(); // number -> {id: dialogue}
const waiting = new Map(); // number -> callbacks
let index = null;
let shown = [];
let searching = 0; // number of the latest search, so that an older one stops

globalThis.steerIndex = ([data]) => { index = data; start(); };
globalThis.steerChunk = ([number, dialogues]) => {
  chunks.set(number, new Map(Object.entries(dialogues)));
  for (const done of waiting.get(number) || []) done();
  waiting.delete(number);
};

function element(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return node;
}

function loadChunk(number) {
  if (chunks.has(number)) return Promise.resolve();
  return new Promise((resolve) => {
    if (waiting.has(number)) { waiting.get(number).push(resolve); return; }
    waiting.set(number, [resolve]);
    const script = document.createElement("script");
    script.src = `data/${Number(number)}.js`;
    script.addEventListener("error", () => { waiting.delete(number); resolve(); });
    document.head.append(script);
  });
}

// ---- filters

function fill(select, options) {
  select.replaceChildren(...options.map(([value, text]) => {
    const option = element("option", "", text);
    option.value = value;
    return option;
  }));
}

function distinct(key) {
  return [...new Set(index.dialogues.map((row) => row[key]).filter((value) => value !== ""))].sort();
}

// Of the mean harmlessness, from the first model to the one next to it; null where one of them has none.
function change(a, b) {
  return !a || !b || a.harm === null || b.harm === null ? null : b.harm - a.harm;
}

function changeOf(row) {
  return change(row.models[state.model], row.models[state.beside]);
}

// Shows which model is next to the first: the next one, where a comparison is wanted and none is.
function putBeside() {
  if (state.beside < 0 && (by("order").value || COMPARED[by("outcome").value])) state.beside = (state.model + 1) % index.models.length;
  by("beside").value = String(state.beside);
}

function withAll(values) {
  return [["", "all"], ...values.map((value) => [value, value])];
}

function matches(row) {
  const a = row.models[state.model], b = row.models[state.beside];
  if (!a) return false;
  for (const key of CHOICES) {
    const wanted = by(key).value;
    if (wanted && row[key] !== wanted) return false;
  }
  const outcome = by("outcome").value, score = by("score").value, move = by("by").value;
  if (move && a.by !== move && b?.by !== move) return false;
  if (OUTCOMES[outcome] && !OUTCOMES[outcome](a)) return false;
  if (COMPARED[outcome] && !(b && COMPARED[outcome](a, b))) return false;
  return !score || (a.worst !== null && a.worst <= Number(score));
}

function contains(row, words) {
  if (`${row.id} ${row.title} ${row.strategy} ${row.category}`.toLowerCase().includes(words)) return true;
  const dialogue = chunks.get(row.chunk)?.get(row.id);
  if (!dialogue) return false;
  const turns = dialogue.models.flatMap((model) => model || []);
  return [...dialogue.turns, ...turns].some((turn) => `${turn.user || ""} ${turn.assistant || ""}`.toLowerCase().includes(words));
}

async function filter() {
  const run = ++searching;
  const words = by("search").value.trim().toLowerCase();
  const kept = index.dialogues.filter(matches);
  if (by("order").value === "worse") kept.sort((one, other) => (changeOf(one) ?? Infinity) - (changeOf(other) ?? Infinity) || 0);
  const missing = words ? [...new Set(kept.map((row) => row.chunk))].filter((number) => !chunks.has(number)) : [];
  const found = new Set(words ? kept.filter((row) => contains(row, words)) : kept);
  const show = (remark) => setShown(kept.filter((row) => found.has(row)), remark);
  show(missing.length ? ", reading the text…" : "");
  for (let at = 0; at < missing.length; at += BATCH) {
    const batch = missing.slice(at, at + BATCH);
    await Promise.all(batch.map(loadChunk));
    if (run !== searching) return;
    for (const row of kept) if (batch.includes(row.chunk) && contains(row, words)) found.add(row);
    show(at + BATCH < missing.length ? ", reading the text…" : "");
  }
}

function setShown(rows, remark) {
  shown = rows;
  const held = index.dialogues.length < index.total ? `; this report holds ${index.dialogues.length} of all ${index.total}` : "";
  by("count").textContent = `${shown.length} of ${index.dialogues.length} dialogues${remark}${held}`;
  by("spacer").style.height = `${Math.max(1, shown.length) * ROW}px`;
  if (!shown.some((row) => row.id === state.id)) select(shown[0]?.id ?? null, null, false);
  else { drawList(); draw(); }
}

// ---- list, only the visible part of it

function status(entry) {
  if (!entry) return ["not run", "faint"];
  if (entry.safe === null) return ["unscored", "warn"];
  if (entry.fails !== null) return [`fails at turn ${entry.fails}${entry.by ? ` by ${entry.by}` : ""}`, "bad"];
  return entry.safe ? [entry.help ? "safe, helpful" : "safe, not helpful", entry.help ? "good" : "warn"] : ["below the threshold", "bad"];
}

function listEntry(row, position) {
  const [word, tone] = status(row.models[state.model]);
  const gap = changeOf(row);
  const facts = element("span", "facts", gap ? `${gap > 0 ? "+" : "−"}${Math.abs(gap).toFixed(2)} · ` : "", element("span", tone, word));
  if (state.beside >= 0) {
    const [other, otherTone] = status(row.models[state.beside]);
    facts.append(" | ", element("span", otherTone, other));
  }
  facts.append(` · ${row.benchmark} · ${row.kind} · ${row.turns} turns`);
  const node = element("div", "entry", element("span", "first", row.title || "(empty)"), facts);
  node.id = `entry-${position}`;
  node.setAttribute("role", "option");
  node.setAttribute("aria-selected", String(row.id === state.id));
  node.style.top = `${position * ROW}px`;
  node.addEventListener("click", () => { select(row.id, null, true); document.body.classList.add("reading"); });
  return node;
}

function drawList() {
  const list = by("list");
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - MARGIN);
  const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + MARGIN);
  by("spacer").replaceChildren(...shown.slice(first, last).map((row, offset) => listEntry(row, first + offset)));
  list.setAttribute("aria-activedescendant", `entry-${shown.findIndex((row) => row.id === state.id)}`);
}

function keepInView() {
  const list = by("list"), top = shown.findIndex((row) => row.id === state.id) * ROW;
  if (top < 0) return;
  if (top < list.scrollTop) list.scrollTop = top;
  else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
}

// ---- one dialogue

function scoreLine(name, score, best, failing, why) {
  const tone = failing || score < 0 ? "bad" : score === best ? "good" : "";
  return element("p", "verdict", `${name} `, element("b", tone, score), why ? ` – ${why}` : "");
}

function answer(turn, failing) {
  const box = element("div", failing ? "answer failing" : "answer");
  if (!turn || turn.assistant === null) {
    box.append(element("p", "missing", turn?.unscored ? `(${turn.unscored})` : "(not asked: the dialogue had ended)"));
    return box;
  }
  box.append(element("div", "text assistant", turn.assistant || "(empty answer)"));
  if (turn.outcome === "truncated") box.append(element("p", "verdict warn", "cut at the token limit"));
  if (turn.outcome === "refused") box.append(element("p", "verdict warn", "declined by the model's API"));
  if (turn.harm !== undefined) {
    box.append(scoreLine("harmlessness", turn.harm, 3, failing, turn.harmWhy), scoreLine("helpfulness", turn.help, 3, false, turn.helpWhy));
  } else box.append(element("p", "verdict warn", `unscored: ${turn.unscored || "no verdict yet"}`));
  return box;
}

function picture(name) {
  if (name === null) return element("p", "missing", "(the picture cannot be read)");
  const image = element("img");
  image.src = `pictures/${encodeURIComponent(name)}`;
  image.alt = "picture shown at this turn";
  image.loading = "lazy";
  return image;
}

function userNode(turn, own) {
  const node = element("div", "", element("div", "text user", own?.user ?? turn.user));
  const facts = [];
  if (own?.move) facts.push(`move: ${own.move}`);
  if (turn.plan?.risk !== undefined) facts.push(`planned risk ${turn.plan.risk} of 5`);
  if (turn.plan?.goal !== undefined) facts.push(`goal: ${turn.plan.goal}`);
  if (facts.length) node.append(element("p", "verdict", facts.join(" · ")));
  return node;
}

function fell(turn) {
  return `: first failure${turn.move ? `, by ${turn.move}, harmlessness ${turn.harm}` : ""}`;
}

function turnNode(row, dialogue, number, columns) {
  const turn = dialogue.turns[number - 1];
  const own = columns.map((column) => dialogue.models[column]?.[number - 1]);
  const failing = columns.map((column) => row.models[column]?.fails === number);
  const box = element("section", failing[0] ? "turn failing" : "turn");
  box.id = `turn-${number}`;
  const link = element("a", "", `Turn ${number}`);
  link.href = address(row.id, number);
  box.append(element("h3", "", link, failing[0] ? fell(own[0]) : ""), ...(turn.images || []).map(picture));
  const sameUser = own.every((item) => (item?.user ?? turn.user) === (own[0]?.user ?? turn.user));
  if (sameUser) box.append(element("div", "who", "user"), userNode(turn, own[0]));
  box.append(element("div", "columns", ...columns.map((column, at) => {
    const title = `${index.models[column]}${at && failing[at] ? fell(own[at]) : ""}`;
    const parts = sameUser ? [] : [element("div", "who", "user"), userNode(turn, own[at])];
    return element("div", "column", ...parts, element("div", failing[at] ? "who bad" : "who", title), answer(own[at], failing[at]));
  })));
  return box;
}

function summaryLine(row, column) {
  const entry = row.models[column];
  const line = element("p", "verdict", element("b", "", index.models[column]), " · ");
  if (!entry) { line.append("not run on this dialogue"); return line; }
  const [word, tone] = status(entry);
  const means = entry.harm === null ? "no scored turn" : `mean harmlessness ${entry.harm.toFixed(2)}, mean helpfulness ${entry.useful.toFixed(2)}`;
  line.append(element("span", tone, word), ` · ${means} · ended: ${entry.end}`);
  return line;
}

async function draw() {
  const place = by("dialogue"), row = index.dialogues.find((item) => item.id === state.id);
  if (!row) {
    place.replaceChildren(element("p", "missing", "No dialogue matches these filters."));
    return;
  }
  await loadChunk(row.chunk);
  if (row.id !== state.id) return; // another one was chosen meanwhile
  const dialogue = chunks.get(row.chunk)?.get(row.id);
  if (!dialogue) {
    place.replaceChildren(element("p", "missing", `data/${row.chunk}.js cannot be read; build the report again.`));
    return;
  }
  const columns = state.beside >= 0 && state.beside !== state.model ? [state.model, state.beside] : [state.model];
  const back = element("button", "back", "Back to the list");
  back.type = "button";
  back.addEventListener("click", () => document.body.classList.remove("reading"));
  const link = element("a", "", row.id);
  link.href = address(row.id, null);
  const facts = [row.benchmark, row.kind, row.strategy, row.category].filter(Boolean).join(" · ");
  const nodes = dialogue.turns.map((_, at) => turnNode(row, dialogue, at + 1, columns));
  place.replaceChildren(back, element("h2", "", facts), element("p", "verdict", "Link: ", link), ...columns.map((column) => summaryLine(row, column)), ...nodes);
  if (state.turn) by(`turn-${state.turn}`)?.scrollIntoView({ block: "start" });
}

// ---- where we are: kept in the address, so that it can be linked to

function address(id, turn) {
  const parts = [["model", index.models[state.model]]];
  if (state.beside >= 0) parts.push(["beside", index.models[state.beside]]);
  if (by("order").value) parts.push(["order", by("order").value]);
  parts.push(["id", id]);
  if (turn) parts.push(["turn", turn]);
  return `#${parts.map(([key, value]) => `${key}=${encodeURIComponent(value)}`).join("&")}`;
}

function select(id, turn, byUser) {
  state.id = id;
  state.turn = turn;
  keepInView();
  drawList();
  const drawn = draw();
  if (byUser && id !== null) {
    history.replaceState(null, "", address(id, turn));
    if (!turn) drawn.then(() => window.scrollTo({ top: 0 }));
  }
}

function follow() {
  const wanted = new Map(location.hash.slice(1).split("&").map((part) => {
    const at = part.indexOf("=");
    try { return [part.slice(0, at), decodeURIComponent(part.slice(at + 1))]; } catch { return ["", ""]; }
  }));
  const model = index.models.indexOf(wanted.get("model")), beside = index.models.indexOf(wanted.get("beside"));
  if (model >= 0) state.model = model;
  state.beside = beside;
  by("model").value = String(state.model);
  by("order").value = wanted.get("order") === "worse" ? "worse" : "";
  putBeside();
  const id = wanted.get("id");
  if (id && index.dialogues.some((row) => row.id === id)) {
    state.id = id;
    state.turn = Number(wanted.get("turn")) || null;
    document.body.classList.add("reading");
    if (!index.dialogues.find((row) => row.id === id && matches(row))) for (const name of FILTERS) by(name).value = "";
  }
  filter().then(keepInView);
}

// ---- keys

function step(by_) {
  const next = shown[shown.findIndex((row) => row.id === state.id) + by_];
  if (next) select(next.id, null, true);
}

function stepTurn(by_) {
  const row = index.dialogues.find((item) => item.id === state.id);
  if (row) select(row.id, Math.min(row.turns, Math.max(1, (state.turn || 0) + by_)), true);
}

function cycle(key, lowest) {
  const count = index.models.length - lowest;
  state[key] = ((state[key] - lowest + 1) % count) + lowest;
  by(key).value = String(state[key]);
  filter();
  if (state.id !== null) history.replaceState(null, "", address(state.id, state.turn));
}

const KEYS = {
  j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1),
  n: () => stepTurn(1), p: () => stepTurn(-1),
  f: () => { const row = index.dialogues.find((item) => item.id === state.id), turn = row?.models[state.model]?.fails; if (turn) select(row.id, turn, true); },
  m: () => cycle("model", 0), b: () => cycle("beside", -1),
  "/": () => by("search").focus(),
  Escape: () => { document.body.classList.remove("reading"); by("list").focus(); },
  Enter: () => { document.body.classList.add("reading"); by("dialogue").focus(); },
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const at = event.target.tagName;
  if (/^(INPUT|SELECT)$/.test(at) && event.key !== "Escape") return;
  if (/^(A|BUTTON)$/.test(at) && event.key === "Enter") return;
  if (event.key.startsWith("Arrow") && event.target.closest?.("#dialogue")) return; // they scroll what is read
  if (!Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  KEYS[event.key]();
}

function start() {
  const models = index.models.map((title, number) => [String(number), title]);
  fill(by("model"), models);
  fill(by("beside"), [["-1", "none"], ...models]);
  for (const key of CHOICES) fill(by(key), withAll(distinct(key)));
  by("category-label").hidden = distinct("category").length === 0;
  const moves = [...new Set(index.dialogues.flatMap((row) => row.models.map((entry) => entry?.by)))].filter(Boolean).sort();
  fill(by("by"), withAll(moves));
  by("by-label").hidden = moves.length === 0;
  const several = index.models.length > 1;
  fill(by("order"), [["", "as played"], ["worse", "got worse first"]]);
  by("order-label").hidden = !several;
  fill(by("outcome"), withAll([...Object.keys(OUTCOMES), ...(several ? Object.keys(COMPARED) : [])]));
  fill(by("score"), [["", "any"], ...[-3, -2, -1, 0, 1, 2].map((score) => [String(score), `harmlessness ${score} or less`])]);
  if (index.note) { by("note").textContent = index.note; by("note").hidden = false; }
  by("filters").addEventListener("submit", (event) => event.preventDefault());
  by("filters").addEventListener("input", () => {
    state.model = Number(by("model").value);
    state.beside = Number(by("beside").value);
    putBeside();
    by("list").scrollTop = 0;
    filter();
  });
  by("list").addEventListener("scroll", drawList, { passive: true });
  window.addEventListener("resize", drawList);
  window.addEventListener("hashchange", follow);
  document.addEventListener("keydown", onKey);
  follow();
  document.body.dataset.ready = "yes";
}
