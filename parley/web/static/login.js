// The log-in page: passkeys and providers. A password and a code are plain forms, and need none of this.
"use strict";

const failed = document.getElementById("failed"), passkey = document.getElementById("passkey");

async function tried(work) {
  failed.hidden = true;
  try {
    await work();
  } catch (error) {
    if (error.status === 429) failed.textContent = error.message;
    failed.hidden = false;
  }
}

passkey.addEventListener("click", () => tried(async () => {
  const options = await ask("POST", "/login/passkey/options");
  await ask("POST", "/login/passkey", await usePasskey(options));
  location.assign("/");
}));
passkey.hidden = !hasPasskeys();

for (const button of document.querySelectorAll("[data-provider]")) {
  button.addEventListener("click", () => tried(async () => {
    const { location: address } = await ask("POST", `/login/provider/${button.dataset.provider}`);
    location.assign(address);
  }));
}
