// The vendor's Node client, driven by lines of JSON: answers what it hears, pushes, uploads, as it is told.
// node wecom_bot_peer.js URL BOT_ID SECRET CA_FILE; prints one JSON object a line.
const fs = require('fs');
const readline = require('readline');
const { WSClient, decryptFile } = require('@wecom/aibot-node-sdk');

const [url, botId, secret, ca] = process.argv.slice(2);
const tell = (what) => process.stdout.write(JSON.stringify(what) + '\n');
const quiet = { debug() {}, info() {}, warn() {}, error() {} };
const client = new WSClient({
  botId, secret, wsUrl: url, wsOptions: { ca: fs.readFileSync(ca) }, logger: quiet,
  maxAuthFailureAttempts: 0, maxReconnectAttempts: 0, heartbeatInterval: 200,
});
const frames = {};

client.on('authenticated', () => tell({ on: 'authenticated' }));
client.on('error', (error) => tell({ on: 'error', text: String(error.message) }));
client.on('disconnected', (reason) => tell({ on: 'disconnected', reason }));
client.on('message', (frame) => { frames[frame.body.msgid] = frame; tell({ on: 'message', body: frame.body }); });
client.on('event', (frame) => { frames[frame.body.msgid] = frame; tell({ on: 'event', body: frame.body }); });

const commands = {
  stream: ({ msgid, id, text, finish }) => client.replyStream(frames[msgid], id, text, finish),
  card: ({ msgid, card }) => client.replyTemplateCard(frames[msgid], card),
  welcome: ({ msgid, text }) => client.replyWelcome(frames[msgid], { msgtype: 'text', text: { content: text } }),
  update: ({ msgid, card, users }) => client.updateTemplateCard(frames[msgid], card, users),
  push: ({ chat, body }) => client.sendMessage(chat, body),
  upload: async ({ chat, kind, name, data }) => {
    const sent = await client.uploadMedia(Buffer.from(data, 'base64'), { type: kind, filename: name });
    await client.sendMediaMessage(chat, kind, sent.media_id);
    return sent;
  },
  open: async ({ data, key }) => ({ data: decryptFile(Buffer.from(data, 'base64'), key).toString('base64') }),
  close: async () => { client.disconnect(); process.exit(0); },
};

readline.createInterface({ input: process.stdin }).on('line', async (line) => {
  const said = JSON.parse(line);
  try {
    tell({ did: said.n, answer: await commands[said.do](said) });
  } catch (error) {
    tell({ did: said.n, refused: error.errcode ?? String(error.message ?? error) });
  }
}).on('close', () => process.exit(0));
client.connect();
