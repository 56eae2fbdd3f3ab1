// discord.js's REST client against the fake: reads {base, token, ...} from stdin, prints what it saw as JSON.
const { REST, DiscordAPIError, RateLimitError } = require('@discordjs/rest');

async function refused(call) {
    try {
        await call;
        return null;
    } catch (error) {
        if (error instanceof DiscordAPIError) return { status: error.status, code: error.code };
        if (error instanceof RateLimitError) return { waits: error.retryAfter };
        throw error;
    }
}

async function main() {
    const given = JSON.parse(require('fs').readFileSync(0));
    // 429s are raised, not slept through.
    const rest = new REST({ api: given.api, version: '10', rejectOnRateLimit: () => true, retries: 0 });
    rest.setToken(given.token);
    const messages = `/channels/${given.channel}/messages`;
    const seen = {};
    seen.me = (await rest.get('/users/@me')).id;
    const sent = await rest.post(messages, {
        body: { content: 'see', nonce: 'n-1', enforce_nonce: true, message_reference: { message_id: given.message } },
        files: [{ name: 'données.csv', data: Buffer.from('a,b'), contentType: 'text/csv' }],
    });
    seen.sent = { content: sent.content, file: sent.attachments[0].filename, type: sent.type, nonce: sent.nonce };
    const again = await rest.post(messages, { body: { content: 'see', nonce: 'n-1', enforce_nonce: true } });
    seen.deduplicated = again.id === sent.id;
    seen.edited = (await rest.patch(`${messages}/${sent.id}`, { body: { content: 'seen' } })).content;
    const thread = await rest.post(`${messages}/${given.message}/threads`, { body: { name: 'A thread' } });
    seen.thread = { same: thread.id === given.message, type: thread.type, parent: thread.parent_id };
    seen.twice = await refused(rest.post(`${messages}/${given.message}/threads`, { body: { name: 'x' } }));
    seen.history = (await rest.get(messages, { query: new URLSearchParams({ after: '0', limit: '2' }) })).map(
        (message) => [message.content, message.nonce ?? null]
    );
    seen.empty = await refused(rest.post(messages, { body: { content: ' ' } }));
    seen.long = await refused(rest.post(messages, { body: { content: 'x'.repeat(2001) } }));
    seen.nowhere = await refused(rest.get('/channels/1'));
    const commands = `/applications/${given.application}/commands`;
    const order = { name: 'order', description: 'Orders', options: [{ type: 4, name: 'id', description: 'Id', required: true }] };
    seen.commands = (await rest.put(commands, { body: [order] })).map((command) => command.name);
    seen.badName = await refused(rest.put(commands, { body: [{ ...order, name: 'Order!' }] }));
    const hook = `/webhooks/${given.application}/${given.interaction.token}`;
    await rest.post(`/interactions/${given.interaction.id}/${given.interaction.token}/callback`, {
        body: { type: 5 },
        auth: false,
    });
    seen.filled = (await rest.patch(`${hook}/messages/@original`, { body: { content: 'done' }, auth: false })).content;
    seen.followed = (await rest.post(hook, { body: { content: 'and', flags: 64 }, auth: false })).flags;
    process.stdout.write(JSON.stringify(seen));
    process.stdin.destroy();
}

async function limited() {
    const given = JSON.parse(process.argv[2]);
    const rest = new REST({ api: given.api, version: '10', rejectOnRateLimit: () => true, retries: 0 });
    rest.setToken(given.token);
    process.stdout.write(JSON.stringify(await refused(rest.get('/users/@me'))));
}

(process.argv[2] ? limited() : main()).catch((error) => {
    console.error(error);
    process.exit(1);
});
