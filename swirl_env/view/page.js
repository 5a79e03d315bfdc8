// What models and tools wrote is put into the document by textContent alone, never parsed as markup.
const $ = (id) => document.getElementById(id);
const ROW_HEIGHT = 44;
const [RUN, TASK, SAMPLE, QUESTION, ENDED, CORRECT, LABELS, STEPS, ERRORS] = Array(9).keys();
const HIDDEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
let index, places = null, shown = [], current = 0, open = null;
const pieces = new Map();

// Control characters and marks of direction would be invisible or turn the line around: they are shown as escapes.
const visible = (text) => String(text ?? "").replace(HIDDEN, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));

async function unpack(id) {
  const bytes = Uint8Array.from(atob($(id).textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

async function episode(number) {
  const piece = Math.floor(number / index.piece);
  if (!pieces.has(piece)) {
    if (pieces.size >= 8) pieces.delete(pieces.keys().next().value);
    pieces.set(piece, await unpack("piece-" + piece));
  }
  return pieces.get(piece)[number % index.piece];
}

function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node) node[name] = value; else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

const outcomeOf = (correct) => correct === true ? ["right", "good", "\u2713"] : correct === false ? ["wrong", "bad", "\u2717"] : ["not graded", "quiet", "\u2013"];
const classOf = (letter) => ({ G: "good", B: "bad", "?": "odd" })[letter] ?? "quiet";
const count = (text, letter) => text.split(letter).length - 1;

// The list: only the rows in sight are in the document, so ten thousand cost no more than fifty.

function refresh() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const [run, outcome, ended, label, errors] = ["run", "outcome", "ended", "label", "errors"].map((id) => $(id).value);
  shown = [];
  for (let number = 0; number < index.rows.length; number++) {
    const row = index.rows[number];
    if (run !== "" && row[RUN] !== Number(run)) continue;
    if (ended && row[ENDED] !== ended) continue;
    if (outcome && row[CORRECT] !== { right: true, wrong: false, open: null }[outcome]) continue;
    if (label === "G" ? !/^G+$/.test(row[LABELS]) : label && !row[LABELS].includes(label)) continue;
    if (errors && (row[ERRORS] > 0) !== (errors === "some")) continue;
    if (words.length) {
      const text = (row[QUESTION] + " " + row[TASK]).toLowerCase();
      if (!words.every((word) => text.includes(word))) continue;
    }
    shown.push(number);
  }
  const by = (key) => { const keys = index.rows.map(key); shown.sort((a, b) => keys[a] - keys[b] || a - b); };
  const sort = $("sort").value;
  if (sort === "task") by((_, number) => taskPlaces()[number]);
  if (sort === "wrong") by((row) => row[CORRECT] === false ? 0 : row[CORRECT] === null ? 1 : 2);
  if (sort === "steps") by((row) => -row[STEPS]);
  if (sort === "bad") by((row) => -count(row[LABELS], "B"));
  $("count").textContent = shown.length.toLocaleString("en") + " of " + index.rows.length.toLocaleString("en");
  $("space").style.height = shown.length * ROW_HEIGHT + "px";
  select(Math.min(current, Math.max(0, shown.length - 1)), false);
  $("list").scrollTop = Math.min($("list").scrollTop, shown.length * ROW_HEIGHT);
  draw();
}

// Comparing ten thousand ids as people read them ("q2" before "q10") takes a while: done once, not with every letter typed.
function taskPlaces() {
  if (!places) {
    const ids = index.rows.map((row) => row[TASK].toLowerCase().replace(/\d+/g, (digits) => digits.padStart(12, "0")));
    const order = ids.map((_, number) => number);
    order.sort((a, b) => ids[a] < ids[b] ? -1 : ids[a] > ids[b] ? 1 : a - b);
    places = [];
    order.forEach((number, place) => { places[number] = place; });
  }
  return places;
}

function draw() {
  const list = $("list"), first = Math.max(0, Math.floor(list.scrollTop / ROW_HEIGHT) - 5);
  const last = Math.min(shown.length, first + Math.ceil(list.clientHeight / ROW_HEIGHT) + 10);
  $("space").replaceChildren(...Array.from({ length: last - first }, (_, i) => line(first + i)));
  list.setAttribute("aria-activedescendant", shown.length ? "row-" + current : "");
}

function line(place) {
  const row = index.rows[shown[place]], [words, tone, sign] = outcomeOf(row[CORRECT]);
  const labels = make("span", { className: "labels", title: "labels of the steps" });
  for (const letter of row[LABELS]) labels.append(make("span", { className: classOf(letter), textContent: letter }));
  const where = (index.runs.length > 1 ? index.runs[row[RUN]] + " \u00b7 " : "") + row[TASK] + (row[SAMPLE] ? " #" + row[SAMPLE] : "");
  const node = make("div", { className: "row", id: "row-" + place, role: "option", "aria-selected": String(place === current) },
    make("span", { className: tone, textContent: sign, title: words, role: "img", "aria-label": words }),
    make("span", { className: "question", textContent: visible(row[QUESTION]) }), labels,
    make("span", { className: "where", textContent: visible(where) }));
  node.style.top = place * ROW_HEIGHT + "px";
  node.addEventListener("click", () => { select(place); go(shown[place]); });
  return node;
}

function select(place, scroll = true) {
  current = place;
  const list = $("list"), top = place * ROW_HEIGHT;
  if (scroll && top < list.scrollTop) list.scrollTop = top;
  if (scroll && top + ROW_HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW_HEIGHT - list.clientHeight;
  if (scroll) draw();
}

// One episode, and next to it the same question in another run.

const link = (number) => "#/" + [index.runs[index.rows[number][RUN]], index.rows[number][TASK], index.rows[number][SAMPLE]].map(encodeURIComponent).join("/");
const go = (number) => { location.hash = link(number); };

function find(hash) {
  const parts = hash.replace(/^#\//, "").split("/");
  if (parts.length !== 3) return -1;
  let run, task, sample;
  try { [run, task, sample] = parts.map(decodeURIComponent); } catch { return -1; }
  return index.rows.findIndex((row) => index.runs[row[RUN]] === run && row[TASK] === task && String(row[SAMPLE]) === sample);
}

async function route() {
  const number = location.hash.length > 1 ? find(location.hash) : -1;
  open = number >= 0 ? number : null;
  $("overview").hidden = open !== null;
  $("episode").hidden = open === null;
  if (open === null) {
    if (location.hash.length > 1) $("count").textContent = "No such episode; showing all";
    draw();
    return;
  }
  const place = shown.indexOf(number);
  if (place >= 0) current = place;
  await show(number, null);
}

async function show(number, other) {
  const row = index.rows[number];
  const rivals = index.rows.flatMap((o, i) => i !== number && o[TASK] === row[TASK] ? [i] : []);
  const back = make("button", { type: "button", textContent: "All episodes" });
  back.addEventListener("click", () => { location.hash = ""; });
  const move = (by, text) => {
    const button = make("button", { type: "button", textContent: text, disabled: neighbour(by) === null });
    button.addEventListener("click", () => step(by));
    return button;
  };
  const bar = make("nav", { "aria-label": "Episode" }, back, move(-1, "Previous"), move(1, "Next"));
  if (rivals.length) {
    const choice = make("select", { "aria-label": "Compare with" }, make("option", { value: "", textContent: "compare with\u2026" }));
    for (const i of rivals) choice.append(make("option", { value: i, textContent: visible(index.runs[index.rows[i][RUN]] + " #" + index.rows[i][SAMPLE]), selected: i === other }));
    choice.addEventListener("change", () => show(number, choice.value === "" ? null : Number(choice.value)));
    bar.append(choice);
  }
  const columns = make("div", { className: "columns" }, column(row, await episode(number)));
  if (other !== null) columns.append(column(index.rows[other], await episode(other)));
  if (open !== number) return;
  const question = (await episode(number)).question;
  $("episode").replaceChildren(bar, make("h2", { textContent: visible(question) }), columns);
  window.scrollTo(0, 0);
}

function column(row, data) {
  const [words, tone] = outcomeOf(data.correct), facts = make("dl");
  const fact = (name, value, className = "") => facts.append(make("dt", { textContent: name }), make("dd", { textContent: visible(value), className }));
  fact("run", index.runs[row[RUN]] + (data.agent ? " (" + data.agent + ")" : ""));
  fact("task", row[TASK] + ", sample " + row[SAMPLE]);
  fact("gold", data.gold === null ? "none" : [data.gold, ...data.aliases].join(" | "));
  fact("answer", data.answer === null ? "none" : data.answer, tone);
  fact("outcome", words + (data.f1 === null ? "" : ", F1 " + data.f1.toFixed(2)) + ", ended: " + data.ended, tone);
  const prompt = make("details", {}, make("summary", { textContent: "prompt" }), make("pre", { textContent: visible(data.prompt) }));
  return make("section", { "aria-label": visible("Episode in " + index.runs[row[RUN]]) }, make("div", { className: "facts" }, facts, prompt), ...data.steps.map(stepCard));
}

function stepCard(data, i) {
  const first = data.verdicts[0], tone = first?.label ? classOf(first.label[0]) : first?.status === "failed" ? "odd" : "";
  const part = (text, className, title = "") => text ? make("pre", { className, title, textContent: visible(text) }) : null;
  const result = data.error ? make("pre", { className: "bad", textContent: visible("tool error (" + data.error + "): " + data.result) })
    : part(data.observation || data.result, "", "the environment's reply");
  return make("section", { className: "step " + tone, "aria-label": "Step " + (i + 1) },
    make("h3", { textContent: "Step " + (i + 1) + " \u00b7 " + data.kind }),
    part(data.before, "reasoning", "reasoning"), part(data.call, "call", "what the environment read"), part(data.after, "unread", "after the call: not read"),
    data.reason ? part(data.reason, "odd") : null, tokens(data.tokens), result, ...data.verdicts.map(verdictBox));
}

function verdictBox(verdict) {
  const tone = verdict.label ? classOf(verdict.label[0]) : verdict.status === "failed" ? "odd" : "quiet";
  const reward = verdict.reward === null ? "no reward" : "reward " + Number(verdict.reward.toFixed(4));
  const parts = Object.entries(verdict.parts).map(([name, value]) => name + " " + Number(value.toFixed(4))).join(", ");
  const head = [verdict.label ?? verdict.status, reward, verdict.judge, parts].filter(Boolean).join(" \u00b7 ");
  return make("div", { className: "verdict" }, make("strong", { className: tone, textContent: visible(head) }),
    verdict.critique ? make("pre", { textContent: visible(verdict.critique) }) : null);
}

function tokens(pairs) {
  if (!pairs.length) return null;
  const strip = make("div", { className: "tokens", role: "img", "aria-label": pairs.length + " tokens with log-probabilities" });
  for (const [id, logprob] of pairs) {
    const mark = make("i", { title: "token " + id + ": log-probability " + logprob + ", probability " + Math.exp(logprob).toFixed(3) });
    mark.style.opacity = String(0.12 + 0.88 * Math.min(1, -logprob / 4));
    strip.append(mark);
  }
  return strip;
}

function neighbour(by) {
  const place = shown.indexOf(open);
  return place < 0 || place + by < 0 || place + by >= shown.length ? null : shown[place + by];
}
const step = (by) => { const next = neighbour(by); if (next !== null) go(next); };

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = ["INPUT", "SELECT"].includes(event.target.tagName);
  if (event.key === "Escape") { if (typing) event.target.blur(); else location.hash = ""; return; }
  if (typing) { if (event.key === "Enter" && event.target.id === "search") { event.preventDefault(); $("list").focus(); } return; }
  const actions = {
    "/": () => { location.hash = ""; $("overview").hidden = false; $("search").focus(); },
    t: theme, "?": help, n: () => open !== null && step(1), p: () => open !== null && step(-1),
    ArrowRight: () => open !== null && step(1), ArrowLeft: () => open !== null && step(-1),
  };
  if (open === null) {
    const to = (place) => select(Math.max(0, Math.min(shown.length - 1, place)));
    const page = Math.max(1, Math.floor($("list").clientHeight / ROW_HEIGHT) - 1);
    Object.assign(actions, { j: () => to(current + 1), ArrowDown: () => to(current + 1), k: () => to(current - 1), ArrowUp: () => to(current - 1),
      PageDown: () => to(current + page), PageUp: () => to(current - page), Home: () => to(0), End: () => to(shown.length - 1),
      Enter: () => shown.length && event.target.tagName !== "BUTTON" && go(shown[current]) });
  }
  if (!actions[event.key] || (event.key === "Enter" && event.target.tagName === "BUTTON")) return;
  event.preventDefault();
  actions[event.key]();
}

function help() {
  $("keys").hidden = !$("keys").hidden;
  $("help").setAttribute("aria-expanded", String(!$("keys").hidden));
}

async function start() {
  index = await unpack("index");
  $("run").append(make("option", { value: "", textContent: index.runs.length === 1 ? visible(index.runs[0]) : "all runs" }));
  if (index.runs.length > 1) index.runs.forEach((name, i) => $("run").append(make("option", { value: i, textContent: visible(name) })));
  for (const id of ["run", "outcome", "ended", "label", "errors", "sort"]) $(id).addEventListener("change", refresh);
  $("search").addEventListener("input", refresh);
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("list").addEventListener("scroll", draw, { passive: true });
  $("theme").addEventListener("click", theme);
  $("help").addEventListener("click", help);
  addEventListener("keydown", key);
  addEventListener("resize", draw);
  addEventListener("hashchange", route);
  refresh();
  await route();
  document.documentElement.dataset.ready = "true";
}
start();
