// One's own account: where one is signed in, and what one signs in with. What comes from elsewhere becomes text nodes.
"use strict";

const WORDS = {
  en: {
    back: "Back to the conversation", title: "Signing in", sessions: "Where you are signed in", endAll: "End all",
    end: "End", here: "this browser", used: "last used", password: "Password", newPassword: "New password",
    save: "Save", has: "You have a password.", hasNone: "You have no password.", removePassword: "Remove the password",
    passkeys: "Passkeys", passkeyName: "What you call it", addPasskey: "Add a passkey", remove: "Remove",
    never: "never used", connections: "Other ways in", connect: "Connect", disconnect: "Disconnect", done: "Done.",
    connected: "connected", nobody: "You have no passkey.",
    again: "Sign in once more to change this: log out, and log in. A token does not count where you have another way in.",
    kinds: { code: "code", token: "token", password: "password", passkey: "passkey", oidc: "single sign-on" },
  },
  zh: {
    back: "返回对话", title: "登录方式", sessions: "您的登录会话", endAll: "全部结束",
    end: "结束", here: "当前浏览器", used: "最近使用", password: "密码", newPassword: "新密码",
    save: "保存", has: "您已设置密码。", hasNone: "您尚未设置密码。", removePassword: "删除密码",
    passkeys: "通行密钥", passkeyName: "名称", addPasskey: "添加通行密钥", remove: "删除",
    never: "从未使用", connections: "其他登录方式", connect: "关联", disconnect: "取消关联", done: "已完成。",
    connected: "已关联", nobody: "您还没有通行密钥。",
    again: "请重新登录后再修改：退出并再次登录。已有其他登录方式时，令牌登录不算。",
    kinds: { code: "登录码", token: "令牌", password: "密码", passkey: "通行密钥", oidc: "单点登录" },
  },
};
const SAY = WORDS[navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en"];
const byId = (id) => document.getElementById(id);
const note = byId("note");
const clock = (text) => new Date(text).toLocaleString();

function thing(parts, label, act) {
  const item = document.createElement("li"), button = document.createElement("button"), text = document.createElement("span");
  text.textContent = parts.filter(Boolean).join(" · ");
  item.append(text);
  if (act) {
    button.type = "button";
    button.textContent = label;
    button.addEventListener("click", () => tried(act));
    item.append(button);
  }
  return item;
}

async function tried(work) {
  note.textContent = "";
  note.className = "";
  try {
    await work();
    await show();
    note.textContent = SAY.done;
  } catch (error) {
    if (error.status === 401) return location.assign("/login");
    note.className = "wrong";
    note.textContent = error.status === 403 ? SAY.again : error.message;
  }
}

async function show() {
  const state = await ask("GET", "/account/state");
  byId("who").textContent = byId("username").value = state.name;
  byId("sessions").replaceChildren(...state.sessions.map((one) => thing(
    [one.agent, SAY.kinds[one.kind], `${SAY.used} ${clock(one.used_at)}`, one.id === state.session && SAY.here],
    SAY.end, () => ask("DELETE", `/api/v1/sessions/${one.id}`))));
  byId("password-state").textContent = state.password ? SAY.has : SAY.hasNone;
  byId("password-remove").hidden = !state.password;
  byId("passkeys").replaceChildren(...state.passkeys.map((one) => thing(
    [one.name, one.used_at ? `${SAY.used} ${clock(one.used_at)}` : SAY.never],
    SAY.remove, () => ask("DELETE", `/account/passkeys/${one.id}`))));
  if (!state.passkeys.length) byId("passkeys").append(thing([SAY.nobody]));
  byId("connections").hidden = !state.providers.length;
  byId("providers").replaceChildren(...state.providers.map((one) => thing(
    [one.label, one.connected && SAY.connected], one.connected ? SAY.disconnect : SAY.connect,
    one.connected ? () => ask("DELETE", `/account/providers/${one.name}`) : async () => {
      const { location: address } = await ask("POST", `/account/providers/${one.name}`);
      location.assign(address);
    })));
}

for (const node of document.querySelectorAll("[data-word]")) node.textContent = SAY[node.dataset.word];
document.title = `Parley · ${SAY.title}`;
byId("passkey-form").hidden = !hasPasskeys();
byId("end-all").addEventListener("click", () => tried(async () => {
  for (const one of (await ask("GET", "/account/state")).sessions.reverse()) await ask("DELETE", `/api/v1/sessions/${one.id}`);
}));
byId("password-form").addEventListener("submit", (event) => {
  event.preventDefault();
  tried(async () => {
    await ask("POST", "/account/password", { password: byId("password").value });
    byId("password").value = "";
  });
});
byId("password-remove").addEventListener("click", () => tried(() => ask("DELETE", "/account/password")));
byId("passkey-form").addEventListener("submit", (event) => {
  event.preventDefault();
  tried(async () => {
    const options = await ask("POST", "/account/passkeys/options");
    await ask("POST", "/account/passkeys", { name: byId("passkey-name").value, credential: await newPasskey(options) });
    byId("passkey-name").value = "";
  });
});
show().catch((error) => (error.status === 401 ? location.assign("/login") : (note.textContent = error.message)));
