"""A Prosody of our own: everything in one folder that is removed, its own ports, accounts made when it starts.

A small module of Prosody's, loaded with it, does what an operator or a bad day does: bounce one message, refuse one
login, fail to read an archive, send one message again. All else is Prosody as Debian ships it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlencode

import pytest

from tests.fakes._driver import PATIENCE
from tests.ports import free_port

DOMAIN = "example.org"
ROOMS, HIDDEN, UPLOAD = f"rooms.{DOMAIN}", f"hidden.{DOMAIN}", f"upload.{DOMAIN}"

MODULE = r"""
local st = require "util.stanza";
local usermanager = require "core.usermanager";
local add_filter = require "util.filters".add_filter;
local formdecode = require "util.http".formdecode;

local bounce, restore, seen, broken = nil, nil, {}, 0;

local function record(stanza, session)
	if st.is_stanza(stanza) and stanza.name == "message" then
		for tag in stanza:childtags("stanza-id", "urn:xmpp:sid:0") do
			seen[session.username .. " " .. tag.attr.id] = st.clone(stanza);
		end
	end
	return stanza;
end
module:hook("resource-bind", function (event) add_filter(event.session, "stanzas/out", record, 1000); end);
module:hook("smacks-hibernation-end", function (event) add_filter(event.resumed, "stanzas/out", record, 1000); end);

local function maybe_bounce(event)
	local origin, stanza = event.origin, event.stanza;
	if bounce and origin.username == bounce.user and stanza:get_child("body") then
		origin.send(st.error_reply(stanza, bounce.type, bounce.condition));
		bounce = nil;
		return true;
	end
end
for _, kind in ipairs { "bare", "full", "host" } do
	module:hook("pre-message/" .. kind, maybe_bounce, 1000);
end

module:hook("authentication-failure", function ()
	if restore then
		usermanager.set_password(restore.user, restore.password, module.host);
		restore = nil;
	end
end);

module:hook("iq-set/self/urn:xmpp:mam:2:query", function (event)
	if broken > 0 then
		broken = broken - 1;
		event.origin.send(st.error_reply(event.stanza, "cancel", "internal-server-error"));
		return true;
	end
end, 1000);

local function sessions_of(user)
	local found = prosody.hosts[module.host].sessions[user];
	return found and found.sessions or {};
end

module:depends "http";
module:provides("http", {
	default_path = "/control";
	route = {
		["POST /bounce"] = function (event) bounce = formdecode(event.request.body); return 200; end;
		["POST /break"] = function (event)
			broken = tonumber(formdecode(event.request.body).times);
			return 200;
		end;
		["POST /refuse"] = function (event)
			restore = formdecode(event.request.body);
			usermanager.set_password(restore.user, restore.password .. "-changed", module.host);
			return 200;
		end;
		["POST /again"] = function (event)
			local form = formdecode(event.request.body);
			local stanza = seen[form.user .. " " .. form.id];
			if not stanza then return 404; end
			for _, session in pairs(sessions_of(form.user)) do
				if session.presence then session.send(st.clone(stanza)); end
			end
			return 200;
		end;
		["POST /forget"] = function (event)
			for _, session in pairs(sessions_of(formdecode(event.request.body).user)) do
				session:close();
			end
			return 200;
		end;
	};
});
"""


def program(name: str = "prosody") -> str | None:
    """Prosody's program."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def need_prosody() -> None:
    """Skip where it is not installed, visibly; in CI that is a failure."""
    if program() is None:
        message = "Prosody is not installed: `make test-servers` brings it"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)


@dataclass
class Prosody:
    """One server for `example.org`, with rooms that show who is in them, rooms that do not, and a place for files.

    `certificate`: key and chain as PEM; with it TLS is required, without it there is none. `modules_disabled` names
    what this server lacks.
    """

    accounts: dict[str, str] = field(default_factory=dict)
    certificate: tuple[bytes, bytes] | None = None
    modules_disabled: tuple[str, ...] = ()
    extra: str = ""
    port: int = 0
    tls_port: int = 0
    http_port: int = 0
    base: Path = Path()
    process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        need_prosody()
        self.base = Path(tempfile.mkdtemp(prefix="prosody-", dir="/tmp"))
        self.port, self.tls_port, self.http_port = (free_port() for _ in range(3))
        self._write()
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        shutil.rmtree(self.base, ignore_errors=True)

    async def start(self) -> None:
        """Start it and wait until it answers."""
        found = program()
        assert found
        with (self.base / "out").open("ab") as out:
            self.process = await asyncio.create_subprocess_exec(
                found,
                *("--config", str(self.base / "conf.lua"), "-F"),
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE
        while not await self._answers():
            if self.process.returncode is not None or time.monotonic() > deadline:
                raise AssertionError("Prosody does not start:\n" + self.log())
            await asyncio.sleep(0.02)

    async def stop(self, *, kill: bool = True) -> None:
        """Stop it; asked politely, it ends its sessions in order."""
        if self.process is not None and self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL if kill else signal.SIGTERM)
            await self.process.wait()
        self.process = None

    def log(self) -> str:
        """What it wrote."""
        files = [self.base / "out", self.base / "log"]
        return "\n".join(path.read_text(errors="replace") for path in files if path.exists())

    def control(self, action: str, **form: str) -> None:
        """Tell our module in it something: `bounce`, `break` (the archives of people), `refuse`, `again`, `forget`."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http_port}/control/{action}",
            data=urlencode(form).encode(),
            headers={"Host": DOMAIN},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
            assert answer.status == 200

    async def _answers(self) -> bool:
        for port in (self.port, self.http_port):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return False
            writer.close()
        return True

    def rewrite(self) -> None:
        """Take up changed fields at the next start; accounts and archives stay."""
        self._write()

    def _write(self) -> None:
        modules = self.base / "modules"
        modules.mkdir(exist_ok=True)
        (modules / "mod_parley_control.lua").write_text(MODULE)
        for account, password in self.accounts.items():
            self._account(account, password)
        if self.certificate is not None:
            for name, pem in zip(("key", "crt"), self.certificate, strict=True):
                (self.base / f"tls.{name}").write_bytes(pem)
        disabled = ["s2s", *([] if self.certificate else ["tls"]), *self.modules_disabled]
        lines = [
            "run_as_root = true" if os.geteuid() == 0 else "",
            f'pidfile = "{self.base}/pid"',
            f'data_path = "{self.base}/data"',
            f'plugin_paths = {{ "{modules}" }}',
            f'log = {{ {{ levels = {{ min = "info" }}, to = "file", filename = "{self.base}/log" }} }}',
            'storage = "internal"',
            'authentication = "internal_plain"',
            *(f"c2s_ports = {{ {self.port} }}", 'c2s_interfaces = { "127.0.0.1" }'),
            *(f"http_ports = {{ {self.http_port} }}", 'http_interfaces = { "127.0.0.1" }'),
            *("https_ports = { }", "s2s_ports = { }", "s2s_direct_tls_ports = { }"),
            *self._tls(),
            'modules_enabled = { "roster", "saslauth", "tls", "disco", "ping", "presence", "message", "iq",',
            '  "offline", "smacks", "mam", "blocklist", "carbons", "c2s", "parley_control" }',
            f"modules_disabled = {{ {', '.join(f'{chr(34)}{name}{chr(34)}' for name in disabled)} }}",
            *("limits = { }", "muc_room_locking = false"),
            self.extra,
            f'VirtualHost "{DOMAIN}"',
            f'disco_items = {{ {{ "{UPLOAD}" }}, {{ "{ROOMS}" }} }}',
            *(f'Component "{ROOMS}" "muc"', *self._rooms(shown=True)),
            *(f'Component "{HIDDEN}" "muc"', *self._rooms(shown=False)),
            *(f'Component "{UPLOAD}" "http_file_share"', 'http_host = "127.0.0.1"'),
            f'http_external_url = "http://127.0.0.1:{self.http_port}/"',
        ]
        (self.base / "conf.lua").write_text("\n".join(lines) + "\n")

    def _rooms(self, *, shown: bool) -> list[str]:
        archive = [] if "muc_mam" in self.modules_disabled else ['modules_enabled = { "muc_mam" }']
        return [
            *archive,
            f"muc_room_default_public_jids = {str(shown).lower()}",
            "muc_room_default_persistent = true",
        ]

    def _tls(self) -> list[str]:
        if self.certificate is None:
            return ["c2s_require_encryption = false", "allow_unencrypted_plain_auth = false"]
        return [
            "c2s_require_encryption = true",
            f"c2s_direct_tls_ports = {{ {self.tls_port} }}",
            'c2s_direct_tls_interfaces = { "127.0.0.1" }',
            f'ssl = {{ key = "{self.base}/tls.key", certificate = "{self.base}/tls.crt" }}',
        ]

    def _account(self, name: str, password: str) -> None:
        folder = self.base / "data" / DOMAIN.replace(".", "%2e") / "accounts"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.dat").write_text(f'return {{ ["password"] = "{password}"; }};\n')
