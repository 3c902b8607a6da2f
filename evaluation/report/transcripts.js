"use strict";
// Every string of the data is set with textContent; nothing here parses HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const rows = data.models.flatMap((model) => model.dialogues.map((dialogue) => ({ model: model.title, ...dialogue })));
const RESULTS = {
  "safe and helpful": (row) => row.safe && row.help,
  "not safe": (row) => row.safe === false,
  "not helpful": (row) => row.help === false,
  "a turn failed": (row) => row.fails_at !== null,
  "ended early": (row) => row.end !== "complete",
  "unscored turns": (row) => row.turns.some((turn) => turn.unscored !== undefined),
};
const PAGE = 100;
const by = (id) => document.getElementById(id);
let shown = [];
let current = null;
let limit = PAGE;

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function fill(select, names) {
  for (const name of ["all", ...names]) {
    const option = element("option", "", name);
    option.value = name === "all" ? "" : name;
    select.append(option);
  }
}

function distinct(key) {
  return [...new Set(rows.map((row) => row[key]))].sort();
}

function status(row) {
  if (row.safe === null) return ["unscored", "warn"];
  if (row.fails_at !== null) return [`fails at turn ${row.fails_at}`, "bad"];
  return row.safe ? ["safe", "good"] : ["below the threshold", "bad"];
}

function matches(row, words) {
  const model = by("model").value, benchmark = by("benchmark").value, kind = by("kind").value, result = by("result").value;
  if ((model && row.model !== model) || (benchmark && row.benchmark !== benchmark) || (kind && row.kind !== kind)) return false;
  if (result && !RESULTS[result](row)) return false;
  return !words || `${row.id} ${row.turns.map((turn) => `${turn.user} ${turn.assistant || ""}`).join(" ")}`.toLowerCase().includes(words);
}

function listEntry(row) {
  const button = element("button");
  button.type = "button";
  const [word, tone] = status(row);
  const facts = element("span", "facts", `${row.model} · ${row.benchmark} · ${row.kind} · `);
  facts.append(element("span", tone, word));
  button.append(element("span", "first", row.turns[0].user), facts);
  button.setAttribute("aria-current", String(row === current));
  button.addEventListener("click", () => show(row, true));
  return button;
}

function drawList() {
  const nodes = shown.slice(0, limit).map(listEntry);
  if (shown.length > limit) {
    const more = element("button", "", `show ${Math.min(PAGE, shown.length - limit)} more`);
    more.type = "button";
    more.addEventListener("click", () => { limit += PAGE; drawList(); });
    nodes.push(more);
  }
  by("list").replaceChildren(...nodes);
}

function filter() {
  const words = by("search").value.trim().toLowerCase();
  shown = rows.filter((row) => matches(row, words));
  limit = PAGE;
  const total = data.models.reduce((sum, model) => sum + model.total, 0);
  const held = rows.length < total ? `; this page holds ${rows.length} of all ${total} dialogues` : "";
  by("count").textContent = `${shown.length} of ${rows.length} dialogues${held}`;
  if (!shown.includes(current)) show(shown[0] || null, false);
  else drawList();
}

function verdict(name, score, best, failing, why) {
  const line = element("p", "verdict");
  line.append(`${name} `, element("b", failing ? "bad" : score === best ? "good" : "", String(score)), why ? ` – ${why}` : "");
  return line;
}

function turnNode(row, turn, number) {
  const failing = row.fails_at === number;
  const box = element("section", failing ? "turn failing" : "turn");
  box.append(element("h3", "", `Turn ${number}${failing ? ": first failure" : ""}`));
  for (const index of turn.images) {
    if (index === null) {
      box.append(element("p", "missing", "(the picture cannot be read)"));
      continue;
    }
    const picture = element("img");
    picture.src = data.pictures[index];
    picture.alt = "picture shown at this turn";
    box.append(picture);
  }
  box.append(element("div", "who", "user"), element("div", "text user", turn.user), element("div", "who", row.model));
  if (turn.assistant === null) box.append(element("p", "missing", turn.unscored ? `(${turn.unscored})` : "(not asked: the dialogue had ended)"));
  else box.append(element("div", "text assistant", turn.assistant || "(empty answer)"));
  if (turn.outcome === "truncated") box.append(element("p", "verdict warn", "cut at the token limit"));
  if (turn.harm !== undefined) {
    box.append(verdict("harmlessness", turn.harm, 3, failing, turn.harm_why), verdict("helpfulness", turn.help, 3, false, turn.help_why));
  } else if (turn.unscored && turn.assistant !== null) {
    box.append(element("p", "verdict warn", `unscored: ${turn.unscored}`));
  }
  return box;
}

function show(row, byUser) {
  current = row;
  const place = by("dialogue");
  place.replaceChildren();
  if (row) {
    const [word, tone] = status(row);
    place.append(element("h2", "", `${row.model} · ${row.benchmark} · ${row.kind}${row.strategy ? ` · ${row.strategy}` : ""}`));
    const means = row.means ? `mean harmlessness ${row.means[0].toFixed(2)}, mean helpfulness ${row.means[1].toFixed(2)}` : "no scored turn";
    const facts = element("p", "verdict", `${row.id} · ${means} · ended: ${row.end} · `);
    facts.append(element("span", tone, word));
    place.append(facts, ...row.turns.map((turn, index) => turnNode(row, turn, index + 1)));
    if (byUser) {
      history.replaceState(null, "", `#${encodeURIComponent(row.model)}/${encodeURIComponent(row.id)}`);
      place.scrollIntoView({ block: "start" });
    }
  } else {
    place.append(element("p", "missing", "No dialogue matches these filters."));
  }
  drawList();
}

function move(step) {
  const next = shown[shown.indexOf(current) + step];
  if (next) show(next, true);
}

fill(by("model"), data.models.map((model) => model.title));
fill(by("benchmark"), distinct("benchmark"));
fill(by("kind"), distinct("kind"));
fill(by("result"), Object.keys(RESULTS));
by("filters").addEventListener("input", filter);
by("filters").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT)$/.test(event.target.tagName)) return;
  if (event.key === "j") move(1);
  if (event.key === "k") move(-1);
});
const linked = location.hash.slice(1).split("/").map((part) => { try { return decodeURIComponent(part); } catch { return ""; } });
filter();
const target = rows.find((row) => row.model === linked[0] && row.id === linked[1]);
if (target) show(target, true);
