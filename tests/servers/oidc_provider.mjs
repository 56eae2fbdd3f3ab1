// A real OpenID provider (node-oidc-provider) for the tests: argv[2] is the library, argv[3] the settings as JSON; a line
// says that it listens. Its own log-in page takes every name; what it says of each is in the settings.
import { pathToFileURL } from "node:url";

const { default: Provider } = await import(pathToFileURL(process.argv[2]));
const { port, people, client } = JSON.parse(process.argv[3]);
const issuer = `http://127.0.0.1:${port}`;
const provider = new Provider(issuer, {
  clients: [{ grant_types: ["authorization_code"], response_types: ["code"], ...client }],
  pkce: { required: () => true },
  scopes: ["openid", "profile", "email", "groups"],
  claims: { openid: ["sub"], profile: ["preferred_username"], email: ["email", "email_verified"], groups: ["groups"] },
  features: {
    devInteractions: { enabled: true },
    backchannelLogout: { enabled: true },
    rpInitiatedLogout: { enabled: true },
  },
  cookies: { keys: ["of the tests"] },
  findAccount: (_context, id) => ({ accountId: id, claims: async () => ({ sub: id, ...(people[id] || {}) }) }),
  // Its own way out refuses addresses of this machine, where the console is.
  fetch: (url, { dispatcher: _, ...options }) => globalThis.fetch(url, options),
});
provider.on("server_error", (_context, error) => console.error(error));
provider.on("backchannel.error", (_context, error) => console.error(error));
provider.listen(port, "127.0.0.1", () => console.log("listening"));
