// graphile-worker as a peer: `worker.mjs prepare` makes its schema and a job for each relay, `worker.mjs work ZOOID SECRET
// AT_A_TIME` carries them: it reads the row, signs, sends the request, and stores row and activity. The environment names
// the database.
import { createHash } from "node:crypto";
import { makeWorkerUtils, run } from "graphile-worker";
import { finalizeEvent } from "nostr-tools/pure";
import { hexToBytes } from "nostr-tools/utils";
import pg from "pg";

const [mode, zooid, secret, atATime] = process.argv.slice(2);
const BATCH = 100;
const CONNECTIONS = 24; // as many as the others

const bodyOf = (relay) => JSON.stringify({
  host: `${relay.subdomain}.${relay.zooid_domain}`,
  schema: relay.schema,
  secret: createHash("sha256").update(relay.id).digest("hex"),
  inactive: false,
  info: { name: relay.info_name, icon: relay.info_icon, description: relay.info_description, pubkey: relay.tenant_pubkey },
  policy: {
    public_read: relay.policy_public_read, public_write: relay.policy_public_write,
    public_join: relay.policy_public_join, strip_signatures: relay.policy_strip_signatures,
  },
  groups: { enabled: relay.groups_enabled },
  management: { enabled: relay.management_enabled },
  push: { enabled: relay.push_enabled },
  roles: { admin: { can_invite: true, can_manage: true }, member: { can_invite: relay.members_can_invite } },
});

const signed = (method, url, body) => {
  const payload = createHash("sha256").update(body).digest("hex");
  const tags = [["u", url], ["method", method], ["payload", payload]];
  const event = { kind: 27235, created_at: Math.floor(Date.now() / 1000), tags, content: "" };
  const json = JSON.stringify(finalizeEvent(event, hexToBytes(secret)));
  return `Nostr ${Buffer.from(json).toString("base64")}`;
};

const send = async (relay) => {
  const method = relay.provisioned_at ? "PATCH" : "POST";
  const url = new URL(`/relay/${relay.id}`, zooid).href;
  const body = bodyOf(relay);
  const headers = { "content-type": "application/json", authorization: signed(method, url, body) };
  const answer = await fetch(url, { method, headers, body });
  if (!answer.ok) throw new Error(`zooid answered ${answer.status}: ${await answer.text()}`);
  await answer.arrayBuffer();
};

const carry = async ({ id }, helpers) => {
  const relay = await helpers.withPgClient((client) => client.query({
    name: "read", text: "select * from relay where id = $1", values: [id],
  }));
  const began = Date.now();
  await send(relay.rows[0]);
  await helpers.withPgClient(async (client) => {
    await client.query("begin");
    await client.query({
      name: "store",
      text: `update relay set synced_generation = generation, provisioned_at = now(), sync_error = '' where id = $1`,
      values: [id],
    });
    await client.query({
      name: "note",
      text: `insert into activity (tenant_pubkey, activity_type, resource_id, detail)
             values ($1, 'complete_relay_sync', $2, $3)`,
      values: [relay.rows[0].tenant_pubkey, id, { method: "POST", duration_ms: Date.now() - began }],
    });
    await client.query("commit");
  });
};

const pgPool = new pg.Pool({ max: CONNECTIONS });
// Without this, the end of PostgreSQL would end the process with a stack.
pgPool.on("error", () => process.exit(1));
pgPool.on("connect", (client) => client.on("error", () => process.exit(1)));
if (mode === "prepare") {
  const utils = await makeWorkerUtils({ pgPool });
  await utils.migrate();
  await utils.withPgClient((client) =>
    client.query("select graphile_worker.add_job('carry', json_build_object('id', id)) from relay"));
  await utils.release();
  await pgPool.end();
} else {
  const preset = { worker: { localQueue: { size: BATCH }, completeJobBatchDelay: 0, failJobBatchDelay: 0 } };
  const runner = await run({ pgPool, concurrency: Number(atATime), taskList: { carry }, preset });
  await runner.promise;
}
