// The chat page. It sends over REST with ids of its own, so that sending again changes nothing, and hears over a
// WebSocket. What comes from elsewhere becomes text nodes, never markup.
"use strict";

const WORDS = {
  en: {
    logout: "Log out", account: "Signing in", send: "Send", attach: "Attach a file", write: "Write a message, or / for commands",
    conversation: "Conversation", commands: "Commands", welcome: "What can I do for you?",
    hint: "Ask in your own words, or type / to see the commands.",
    open: "Connected", waiting: "Connecting…", working: "Working on it", sending: "sending…", retrying: "waiting for the connection…",
    run: "Run in Prefect", remove: "Remove", private: "only you see this", tooLarge: "is larger than 25 MB",
    tooMany: "At most 10 files at once.", newTab: "opens in a new tab",
    states: { received: "received", queued: "queued", running: "running", done: "done", failed: "failed", refused: "refused",
      expired: "too late", cancelled: "cancelled", "needs-input": "your answer is needed", "awaiting-approval": "waits for approval", dead: "could not be handled" },
    builtins: { help: "What you can do here", status: "How everything is doing", runs: "The latest runs", cancel: "End a run",
      why: "Why something was refused or failed", whoami: "Who you are here" },
  },
  zh: {
    logout: "退出", account: "登录方式", send: "发送", attach: "添加文件", write: "输入消息，或输入 / 查看命令",
    conversation: "对话", commands: "命令", welcome: "有什么可以帮您？",
    hint: "直接用自己的话说，或输入 / 查看命令。",
    open: "已连接", waiting: "正在连接…", working: "正在处理", sending: "正在发送…", retrying: "等待连接恢复…",
    run: "在 Prefect 中查看", remove: "移除", private: "仅您可见", tooLarge: "超过 25 MB",
    tooMany: "一次最多 10 个文件。", newTab: "在新标签页打开",
    states: { received: "已收到", queued: "排队中", running: "运行中", done: "完成", failed: "失败", refused: "已拒绝",
      expired: "已过期", cancelled: "已取消", "needs-input": "需要您的回答", "awaiting-approval": "等待审批", dead: "无法处理" },
    builtins: { help: "您可以做什么", status: "系统状态", runs: "最近的运行", cancel: "结束一次运行", why: "为什么被拒绝或失败", whoami: "您在这里的身份" },
  },
};
const LANGUAGE = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
const SAY = WORDS[LANGUAGE];
const MOST_LINES = 500, LARGEST_FILE = 25 * 1024 * 1024, MOST_FILES = 10;
const PICTURES = new Set(["image/png", "image/jpeg", "image/gif", "image/webp"]);
const UNSENT = "parley.unsent";

const byId = (id) => document.getElementById(id);
const log = byId("log"), text = byId("text"), suggestions = byId("suggestions"), scroller = document.querySelector("main");

function make(tag, props = {}, ...children) {
  const { dataset, ...rest } = props;
  const node = Object.assign(document.createElement(tag), rest);
  Object.assign(node.dataset, dataset);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// ---- text: a small part of CommonMark

const INLINE = /`([^`\n]+)`|\*\*([^*\n]+)\*\*|\*([^*\s][^*\n]*)\*|\[([^\]\n]+)\]\((https?:\/\/[^\s()]+)\)|(https?:\/\/[^\s<>()"']+[^\s<>()"'.,;:!?。，；：！？])/g;

function inline(source) {
  const parts = [];
  let end = 0;
  for (const found of source.matchAll(INLINE)) {
    if (found.index > end) parts.push(source.slice(end, found.index));
    const [, code, bold, italic, label, address, bare] = found;
    if (code !== undefined) parts.push(make("code", {}, code));
    else if (bold !== undefined) parts.push(make("strong", {}, bold));
    else if (italic !== undefined) parts.push(make("em", {}, italic));
    else parts.push(outside(address ?? bare, label ?? bare));
    end = found.index + found[0].length;
  }
  parts.push(source.slice(end));
  return parts;
}

function outside(address, label) {
  return make("a", { href: address, target: "_blank", rel: "noopener noreferrer", title: address }, label);
}

function blocks(source) {
  const out = [];
  const lines = source.replace(/\r\n?/g, "\n").split("\n");
  for (let at = 0; at < lines.length; ) {
    if (lines[at].startsWith("```")) {
      const close = lines.findIndex((line, n) => n > at && line.startsWith("```"));
      const end = close < 0 ? lines.length : close;
      out.push(make("pre", { tabIndex: 0 }, make("code", {}, lines.slice(at + 1, end).join("\n"))));
      at = end + 1;
    } else if (/^[-*] /.test(lines[at])) {
      const list = make("ul");
      for (; at < lines.length && /^[-*] /.test(lines[at]); at++) list.append(make("li", {}, ...inline(lines[at].slice(2))));
      out.push(list);
    } else if (lines[at].trim() === "") {
      at++;
    } else {
      const start = at;
      while (at < lines.length && lines[at].trim() !== "" && !lines[at].startsWith("```") && !/^[-*] /.test(lines[at])) at++;
      out.push(make("p", {}, ...inline(lines.slice(start, at).join("\n"))));
    }
  }
  return out;
}

function tableOf({ columns, rows }) {
  const head = make("tr", {}, ...columns.map((cell) => make("th", { scope: "col" }, cell)));
  const body = rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", {}, cell))));
  const table = make("table", {}, make("thead", {}, head), make("tbody", {}, ...body));
  return make("div", { className: "scroll", tabIndex: 0 }, table);
}

function sizeOf(bytes) {
  const steps = ["B", "kB", "MB"];
  let n = 0, value = bytes;
  for (; value >= 1000 && n < 2; n++) value /= 1000;
  return `${n && value < 10 ? value.toFixed(1) : Math.round(value)} ${steps[n]}`;
}

function fileOf(file) {
  const link = make("a", { className: "file", href: file.url, download: file.name }, file.name, make("span", { className: "quiet" }, sizeOf(file.size)));
  if (!PICTURES.has(file.media_type)) return make("li", {}, link);
  return make("li", {}, make("a", { href: file.url, download: file.name }, make("img", { className: "picture", src: file.url, alt: file.name, loading: "lazy" })));
}

// ---- the conversation

const shown = new Map(); // "m:<message>" or "r:<reply>" -> line
const open = new Map(); // message id -> own line that is not final yet

function atBottom() {
  return scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 80;
}

function add(item) {
  const stay = !atBottom() && !item.classList.contains("mine");
  byId("welcome").hidden = true;
  log.append(item);
  while (log.children.length > MOST_LINES) log.firstElementChild.remove();
  if (!stay) scroller.scrollTop = scroller.scrollHeight;
}

function clock(at) {
  const when = new Date(at);
  const today = when.toDateString() === new Date().toDateString();
  const form = today ? { timeStyle: "short" } : { dateStyle: "short", timeStyle: "short" };
  return make("time", { dateTime: when.toISOString() }, new Intl.DateTimeFormat(LANGUAGE === "zh" ? "zh-CN" : undefined, form).format(when));
}

function showMine(words, files, at) {
  const bubble = make("div", { className: "bubble" }, words);
  if (files.length) bubble.append(make("ul", { className: "files" }, ...files.map((name) => make("li", { className: "file" }, name))));
  const note = make("div", { className: "note" }, clock(at));
  const item = make("li", { className: "mine" }, bubble, note);
  const line = { item, note, at, words, id: null };
  add(item);
  return line;
}

function tell(line, words, { wrong = false, run = null } = {}) {
  line.note.replaceChildren(clock(line.at), make("span", {}, words));
  line.note.classList.toggle("wrong", wrong);
  if (run) line.note.append(make("a", { href: run, target: "_blank", rel: "noopener", title: SAY.newTab }, SAY.run));
}

function showReply(reply) {
  const key = `r:${reply.id}`;
  if (shown.has(key)) return;
  const bubble = make("div", { className: "bubble" }, ...blocks(reply.text ?? ""));
  if (reply.table) bubble.append(tableOf(reply.table));
  if (reply.files?.length) bubble.append(make("ul", { className: "files" }, ...reply.files.map(fileOf)));
  if (reply.buttons?.length) bubble.append(buttonsOf(reply));
  const item = make("li", { className: "theirs" }, bubble, make("div", { className: "note" }, clock(reply.at)));
  shown.set(key, item);
  add(item);
}

function buttonsOf(reply) {
  const row = make("div", { className: "buttons" });
  for (const button of reply.buttons) {
    const node = make("button", { type: "button", className: button.style === "default" ? "" : button.style }, button.label);
    node.addEventListener("click", () => {
      for (const one of row.children) one.disabled = true;
      send({ path: "actions", body: { value: button.value, thread: reply.thread ?? null }, shown: button.label });
    });
    row.append(node);
  }
  return row;
}

function showHistory(lines) {
  for (const one of lines) {
    if (one.who === "parley") showReply(one);
    else if (!shown.has(`m:${one.id}`)) showOldMine(one);
  }
  byId("welcome").hidden = log.children.length > 0;
}

function showOldMine(one) {
  // It may be one that this page has sent and whose answer was lost on the way.
  const waiting = outbox.find((entry) => entry.line.id === null && entry.line.words === one.text);
  const line = waiting?.line ?? showMine(one.text, [], one.at);
  bind(line, one.id);
}

function bind(line, id) {
  line.id = id;
  shown.set(`m:${id}`, line);
  open.set(id, line);
  watch(id);
}

function showState(state) {
  const line = open.get(state.id);
  if (!line) return;
  const took = state.final && state.state === "done" ? state.timings.total_ms : undefined;
  const words = [SAY.states[state.state] ?? state.state, took === undefined ? null : duration(took)];
  tell(line, words.filter(Boolean).join(" · "), { wrong: ["failed", "dead"].includes(state.state), run: state.flow_run_url });
  line.state = state.state;
  if (state.final) open.delete(state.id);
  showTyping();
}

function duration(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

function showTyping() {
  byId("typing").textContent = [...open.values()].some((line) => ["queued", "running", "received"].includes(line.state)) ? SAY.working : "";
}

// ---- sending: one after the other, each again until it is answered

const outbox = [];
let sending = false;

function send({ path, body, shown: words, files = [], key = crypto.randomUUID?.() ?? randomKey() }) {
  const line = showMine(words, files, new Date());
  tell(line, SAY.sending);
  outbox.push({ key, path, body, line });
  keepUnsent();
  void pump();
}

function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function keepUnsent() {
  // What holds files is too large to keep; it lives as long as the page.
  const small = outbox.filter(({ body }) => !body.files?.length && JSON.stringify(body).length < 100_000);
  sessionStorage.setItem(UNSENT, JSON.stringify(small.map(({ key, path, body, line }) => ({ key, path, body, shown: line.words }))));
}

async function pump() {
  if (sending) return;
  sending = true;
  for (let wait = 300; outbox.length; ) {
    const again = await post(outbox[0]);
    if (!again) {
      outbox.shift();
      keepUnsent();
      wait = 300;
      continue;
    }
    tell(outbox[0].line, SAY.retrying);
    await new Promise((resolve) => setTimeout(resolve, Math.max(again, wait) * (0.7 + Math.random() * 0.6)));
    wait = Math.min(wait * 2, 10_000);
  }
  sending = false;
}

// 0 when it is over, else after how many milliseconds to try again.
async function post({ key, path, body, line }) {
  let answer, said;
  try {
    answer = await fetch(`/api/v1/${path}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "Idempotency-Key": key },
      body: JSON.stringify(body),
    });
    said = await answer.json();
  } catch {
    return 300;
  }
  if (answer.status === 401) return login();
  if (answer.status === 429 || answer.status === 408 || answer.status >= 500) return 1000 * Number(answer.headers.get("Retry-After") || 1);
  if (!answer.ok) {
    tell(line, said.detail ?? said.title ?? String(answer.status), { wrong: true });
    return 0;
  }
  if (line.id === null) bind(line, said.id);
  showState(said);
  return 0;
}

function login() {
  location.assign("/login");
  return 60_000;
}

// ---- hearing

let socket = null;

function watch(id) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type: "watch", id }));
}

function listen(wait = 300) {
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
  let next = wait;
  socket.addEventListener("open", () => { next = 300; });
  socket.addEventListener("message", ({ data }) => hear(JSON.parse(data)));
  socket.addEventListener("close", async ({ code }) => {
    status("waiting");
    if (code === 4401 || (await loggedOut())) return login();
    setTimeout(listen, next * (0.7 + Math.random() * 0.6), Math.min(next * 2, 5000));
  });
}

async function loggedOut() {
  try {
    return (await fetch("/api/v1/me")).status === 401;
  } catch {
    return false;
  }
}

function hear(event) {
  if (event.type === "hello") greet(event);
  else if (event.type === "history") showHistory(event.lines);
  else if (event.type === "reply") showReply(event);
  else if (event.type === "state") showState(event);
}

function greet({ me, prefect }) {
  status("open");
  byId("name").textContent = me.name;
  Object.assign(byId("prefect"), { href: prefect, hidden: !/^https?:\/\//.test(prefect ?? "") });
  for (const id of open.keys()) watch(id);
}

function status(state) {
  byId("link").className = state;
  byId("link").textContent = SAY[state];
}

// ---- commands

let commands = [], chosen = -1;

async function loadCommands() {
  const own = Object.entries(SAY.builtins).map(([command, summary]) => ({ command, summary, usage: "" }));
  try {
    const { items } = await (await fetch("/api/v1/automations?limit=1000")).json();
    commands = [...items.map((one) => ({ command: one.command, summary: one.summary, usage: usage(one) })), ...own];
    showIdeas(items);
  } catch {
    commands = own;
  }
}

function usage(automation) {
  return automation.parameters.map((one) => (one.required ? `<${one.name}>` : `[${one.name}]`)).join(" ");
}

function showIdeas(items) {
  // A template whose slots are still open is no sentence yet.
  const speak = (one) => one.examples.filter((example) => !example.includes("{") && /\p{Script=Han}/u.test(example) === (LANGUAGE === "zh"));
  const ideas = ["/help", ...items.map((one) => speak(one)[0] ?? `/${one.command}`)].slice(0, 5);
  byId("ideas").replaceChildren(...ideas.map((idea) => {
    const button = make("button", { type: "button" }, idea);
    button.addEventListener("click", () => { text.value = idea; text.focus(); grow(); });
    return make("li", {}, button);
  }));
}

function suggest() {
  const typed = /^[/／](\S*)$/.exec(text.value)?.[1];
  const fitting = typed === undefined ? [] : commands.filter(({ command }) => command.startsWith(typed.toLowerCase()));
  chosen = fitting.length ? 0 : -1;
  suggestions.replaceChildren(...fitting.map(({ command, summary, usage: rest }, n) => {
    const item = make("li", { id: `suggestion-${n}`, dataset: { command } },
      make("code", {}, `/${command}${rest ? ` ${rest}` : ""}`), make("span", { className: "quiet" }, summary));
    item.setAttribute("role", "option");
    item.addEventListener("mousedown", (event) => { event.preventDefault(); take(item); });
    return item;
  }));
  suggestions.hidden = !fitting.length;
  text.setAttribute("aria-expanded", String(fitting.length > 0));
  mark();
}

function mark() {
  [...suggestions.children].forEach((item, n) => item.setAttribute("aria-selected", String(n === chosen)));
  const current = suggestions.children[chosen];
  if (current) {
    text.setAttribute("aria-activedescendant", current.id);
    current.scrollIntoView({ block: "nearest" });
  } else text.removeAttribute("aria-activedescendant");
}

function take(item) {
  text.value = `/${item.dataset.command} `;
  suggest();
  grow();
}

// ---- writing

let attached = [];

function grow() {
  text.style.height = "auto"; // an empty one keeps its one line, whatever its hint needs
  if (text.value) text.style.height = `${text.scrollHeight + 2}px`;
}

function attach(list) {
  for (const file of list) {
    if (attached.length >= MOST_FILES) return void window.alert(SAY.tooMany);
    if (file.size > LARGEST_FILE) window.alert(`${file.name} ${SAY.tooLarge}`);
    else attached.push(file);
  }
  showAttached();
}

function showAttached() {
  byId("attached").hidden = !attached.length;
  byId("attached").replaceChildren(...attached.map((file) => {
    const away = make("button", { type: "button", ariaLabel: `${SAY.remove} ${file.name}` }, "×");
    away.addEventListener("click", () => { attached = attached.filter((one) => one !== file); showAttached(); });
    return make("li", {}, `${file.name} (${sizeOf(file.size)})`, away);
  }));
}

function contentOf(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

async function submit(event) {
  event?.preventDefault();
  const words = text.value;
  const chosenFiles = attached;
  if (!words.trim() && !chosenFiles.length) return;
  text.value = "";
  attached = [];
  showAttached();
  suggest();
  grow();
  let files;
  try {
    files = await Promise.all(chosenFiles.map(async (file) => ({
      name: file.name.slice(-255), media_type: file.type || "application/octet-stream", content: await contentOf(file),
    })));
  } catch {
    text.value = words;
    return;
  }
  send({ path: "messages", body: { text: words, files }, shown: words, files: files.map((file) => file.name) });
}

function onKey(event) {
  if (event.isComposing || event.keyCode === 229) return; // Enter that ends the input of Chinese characters
  const there = suggestions.children.length;
  if (!suggestions.hidden && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
    event.preventDefault();
    chosen = (chosen + (event.key === "ArrowDown" ? 1 : there - 1)) % there;
    mark();
  } else if (!suggestions.hidden && event.key === "Escape") {
    suggestions.hidden = true;
    text.setAttribute("aria-expanded", "false");
  } else if (!suggestions.hidden && event.key === "Tab" && !event.shiftKey) {
    event.preventDefault();
    take(suggestions.children[chosen]);
  } else if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    const current = suggestions.hidden ? null : suggestions.children[chosen];
    if (current && text.value.slice(1) !== current.dataset.command) take(current);
    else void submit();
  }
}

function translate() {
  document.documentElement.lang = LANGUAGE === "zh" ? "zh-CN" : "en";
  for (const node of document.querySelectorAll("[data-word]")) node.textContent = SAY[node.dataset.word];
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", SAY[node.dataset.label]);
  for (const node of document.querySelectorAll("[data-title]")) node.title = SAY[node.dataset.title];
  for (const node of document.querySelectorAll("[data-placeholder]")) node.placeholder = SAY[node.dataset.placeholder];
}

function resendUnsent() {
  let kept = [];
  try {
    kept = JSON.parse(sessionStorage.getItem(UNSENT) ?? "[]");
  } catch { /* nothing that we kept */ }
  for (const entry of kept) send(entry);
}

translate();
status("waiting");
byId("composer").addEventListener("submit", submit);
byId("leave").addEventListener("submit", () => sessionStorage.removeItem(UNSENT));
byId("files").addEventListener("change", ({ target }) => { attach(target.files); target.value = ""; });
text.addEventListener("input", () => { suggest(); grow(); });
text.addEventListener("keydown", onKey);
text.addEventListener("blur", () => { suggestions.hidden = true; });
text.addEventListener("paste", (event) => { if (event.clipboardData.files.length) attach(event.clipboardData.files); });
document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
document.addEventListener("drop", (event) => { event.preventDefault(); document.body.classList.remove("dropping"); attach(event.dataTransfer.files); });
void loadCommands();
resendUnsent();
listen();
