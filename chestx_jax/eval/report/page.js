"use strict";
// All data reach the page as text nodes: nothing a model wrote is ever parsed as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const PAGE = 50;
const view = { found: [], page: 0, current: -1, difference: false };
const byId = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function fill(select, values, first) {
  if (first !== undefined) select.append(element("option", { value: "" }, first));
  for (const value of values) select.append(element("option", { value }, value));
}

const percent = (value) => (value === null || value === undefined ? "–" : (100 * value).toFixed(0));
const outcomeOf = (answer) => (answer.parsed ? (answer.correct ? "correct" : "wrong") : "unparsed");

function haystack(item) {
  if (item.hay === undefined) {
    const answers = Object.values(item.models).map((answer) => answer.pred);
    item.hay = [item.id, item.question, ...item.reports, ...item.steps, ...answers].join("\n").toLowerCase();
  }
  return item.hay;
}

function matches(item) {
  const answer = item.models[byId("model").value];
  const other = item.models[byId("other").value];
  const outcome = byId("outcome").value;
  const verdict = byId("verdict").value;
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  if (byId("task").value && item.task !== byId("task").value) return false;
  if (byId("source").value && item.source !== byId("source").value) return false;
  if (!answer) return false;
  if (outcome === "truncated" ? !answer.truncated : outcome && outcomeOf(answer) !== outcome) return false;
  if (verdict && !answer.marks.some((mark) => mark[2] === verdict)) return false;
  if (byId("differ").checked && (!other || outcomeOf(other) === outcomeOf(answer))) return false;
  return words.every((word) => haystack(item).includes(word));
}

function refresh() {
  const shown = view.current;
  view.found = data.items.map((item, index) => index).filter((index) => matches(data.items[index]));
  const kept = view.found.indexOf(shown);
  view.page = kept < 0 ? 0 : Math.floor(kept / PAGE);
  byId("count").textContent = `${view.found.length} of ${data.items.length} items`;
  show(kept < 0 ? (view.found.length ? view.found[0] : -1) : shown, false);
}

function drawList() {
  const list = byId("list");
  const start = view.page * PAGE;
  const pages = Math.max(1, Math.ceil(view.found.length / PAGE));
  list.replaceChildren(...view.found.slice(start, start + PAGE).map((index) => {
    const item = data.items[index];
    const answer = item.models[byId("model").value];
    const label = `${outcomeOf(answer)}${answer.truncated ? ", truncated" : ""} · ${item.task}`;
    return element("li", {}, element("button",
      { type: "button", "data-index": index, "aria-current": String(index === view.current), onclick: () => show(index, true) },
      item.id, element("span", { class: "dim" }, label)));
  }));
  byId("pages").textContent = `${view.page + 1} / ${pages}`;
  byId("previous").disabled = view.page === 0;
  byId("next").disabled = view.page + 1 >= pages;
}

function show(index, focus) {
  view.current = index;
  const place = view.found.indexOf(index);
  if (place >= 0) view.page = Math.floor(place / PAGE);
  drawList();
  const detail = byId("detail");
  detail.replaceChildren(...(index < 0 ? [element("p", {}, "No item passes the filter.")] : describe(data.items[index])));
  if (focus) {
    const button = document.querySelector(`#list button[data-index="${index}"]`);
    if (button) { button.focus({ preventScroll: true }); button.scrollIntoView({ block: "nearest" }); }
  }
}

function describe(item) {
  const names = [byId("model").value, byId("other").value].filter((name) => name && item.models[name]);
  const films = item.films.map((film, i) => element("figure", {},
    data.films[film] ? element("img", { src: data.films[film], alt: `Film ${i + 1} of ${item.films.length}` }) : element("p", {}, "film not available"),
    element("figcaption", {}, item.films.length > 1 ? ["reference film", "new film", "further film"][Math.min(i, 2)] : "film")));
  return [
    element("h3", { id: "item-title" }, item.id),
    element("p", {}, element("span", { class: "badge" }, item.task), element("span", { class: "badge" }, item.source)),
    element("div", { class: "films" }, ...films),
    ...question(item, names),
    element("div", { class: "columns" }, ...names.map((name) => answerPanel(item, name))),
    ...(names.length === 2 ? differencePanel(item, names) : []),
    ...section("Report", item.reports, item.reports.length > 1 ? ["reference film: ", "new film: "] : []),
    ...section("Reference reasoning", item.steps, []),
    ...(item.drawn ? section("Ground truth, as drawn", [item.drawn.join("; ") || "nothing drawn"], []) : []),
  ];
}

function section(title, texts, prefixes) {
  if (!texts.length) return [];
  return [element("h3", {}, title), ...texts.map((text, i) => element("p", { class: "text" }, (prefixes[i] || "") + text))];
}

function question(item, names) {
  const chosen = (letter) => names.filter((name) => item.models[name].given.includes(letter));
  const options = Object.entries(item.options).map(([letter, text]) => {
    const gold = item.answer.split(", ").includes(letter);
    const notes = [gold ? "gold" : "", ...chosen(letter).map((name) => `chosen by ${name}`)].filter(Boolean).join(", ");
    return element("li", { class: gold ? "gold" : "" }, `${letter}) ${text}${notes ? `  (${notes})` : ""}`);
  });
  return [
    element("h3", {}, "Question"), element("p", {}, item.stem),
    options.length ? element("ul", { class: "options" }, ...options) : element("p", {}, `Gold: ${item.answer}`),
  ];
}

function answerPanel(item, name) {
  const answer = item.models[name];
  const scores = Object.entries(answer.scores).map(([metric, value]) => `${metric} ${percent(value)}`).join(" · ");
  return element("section", { "aria-label": `Answer of ${name}`, class: "answer" },
    element("h3", {}, name),
    element("p", {}, element("span", { class: "badge" }, outcomeOf(answer)), answer.truncated ? element("span", { class: "badge" }, "truncated") : null,
      `answered ${answer.given.join(", ") || "nothing that can be read"}`),
    scores ? element("p", { class: "dim" }, scores) : null,
    element("p", { class: "text reasoning" }, ...marked(answer.reasoning, answer.marks)),
    verdictTable(answer.marks),
    element("details", {}, element("summary", {}, "Text as generated"), element("p", { class: "text" }, answer.pred || "(empty)")));
}

function marked(text, marks) {
  const parts = [];
  let at = 0;
  for (const [start, end, verdict, label] of [...marks].sort((a, b) => a[0] - b[0])) {
    if (start < at || end <= start || verdict === "not scored") continue;
    parts.push(text.slice(at, start), element("mark", { class: verdict, title: `${label}: ${verdict}` }, text.slice(start, end),
      element("span", { class: "hidden" }, ` (${verdict}) `)));
    at = end;
  }
  parts.push(text.slice(at) || (at ? "" : "(no reasoning)"));
  return parts;
}

function verdictTable(marks) {
  if (!marks.length) return null;
  const rows = marks.map(([, , verdict, label, step]) => element("tr", {}, element("td", {}, String(step + 1)), element("td", {}, label), element("td", {}, verdict)));
  return element("details", {}, element("summary", {}, marks.length === 1 ? "1 finding" : `${marks.length} findings`), element("table", {},
    element("thead", {}, element("tr", {}, ...["step", "finding", "verdict"].map((head) => element("th", { scope: "col" }, head)))),
    element("tbody", {}, ...rows)));
}

// Word-level longest common subsequence; texts are cut at 700 words to keep it instant.
function differencePanel(item, names) {
  const [first, second] = names.map((name) => item.models[name].reasoning.split(/\s+/).filter(Boolean).slice(0, 700));
  const button = element("button", { type: "button", "aria-expanded": String(view.difference), id: "toggle-difference", onclick: toggleDifference },
    "Word difference");
  if (!view.difference) return [element("p", {}, button)];
  const width = second.length + 1;
  const table = new Uint16Array((first.length + 1) * width);
  for (let i = first.length - 1; i >= 0; i -= 1) {
    for (let j = second.length - 1; j >= 0; j -= 1) {
      table[i * width + j] = first[i] === second[j] ? table[(i + 1) * width + j + 1] + 1
        : Math.max(table[(i + 1) * width + j], table[i * width + j + 1]);
    }
  }
  const parts = [];
  let i = 0, j = 0;
  while (i < first.length || j < second.length) {
    if (i < first.length && j < second.length && first[i] === second[j]) { parts.push(`${first[i]} `); i += 1; j += 1; }
    else if (j >= second.length || (i < first.length && table[(i + 1) * width + j] >= table[i * width + j + 1])) {
      parts.push(element("del", {}, first[i]), " "); i += 1;
    } else { parts.push(element("ins", {}, second[j]), " "); j += 1; }
  }
  return [element("p", {}, button), element("p", { class: "dim" }, `struck out: ${names[0]} only; highlighted: ${names[1]} only`),
    element("p", { class: "text", id: "difference" }, ...parts)];
}

function toggleDifference() {
  view.difference = !view.difference;
  show(view.current, false);
  const button = byId("toggle-difference");
  if (button) button.focus();
}

function step(by) {
  const place = view.found.indexOf(view.current) + by;
  if (place >= 0 && place < view.found.length) show(view.found[place], true);
}

function turn(by) {
  view.page += by;
  drawList();
  byId("list").scrollTop = 0;
}

function start() {
  const unique = (field) => [...new Set(data.items.map((item) => item[field]))].sort();
  fill(byId("task"), unique("task"), "all");
  fill(byId("source"), unique("source"), "all");
  fill(byId("model"), data.models);
  fill(byId("other"), data.models, "nothing");
  byId("model").value = data.models[data.models.length - 1];
  if (data.models.length > 1) byId("other").value = data.models[data.models.length - 2];
  let waiting = 0;
  byId("filters").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(refresh, 60); });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("previous").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
  const dark = () => document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark" : window.matchMedia("(prefers-color-scheme: dark)").matches;
  byId("theme").setAttribute("aria-pressed", String(dark()));
  byId("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    byId("theme").setAttribute("aria-pressed", String(dark()));
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    const actions = { j: () => step(1), k: () => step(-1), d: toggleDifference, "/": () => byId("search").focus() };
    if (actions[event.key]) { event.preventDefault(); actions[event.key](); }
  });
  if (window.matchMedia("(max-width: 55rem)").matches) for (const fold of document.querySelectorAll(".fold")) fold.open = false;
  refresh();
  document.documentElement.dataset.ready = "yes";
}
start();
