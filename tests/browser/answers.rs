//! What the scripts ask of this side: rows, faults, logins.

use nostr::key::Keys;
use secrecy::SecretString;
use serde_json::{Value, json};
use tender::demo::zooid::Fault;
use tender_jobs::{console::session, mirror::lane::LaneKind, provision::relay::Change, queue};
use tokio_util::sync::CancellationToken;

use crate::{
    PASSWORD, Site, relay_of,
    support::{
        self,
        mirror::{self, Mirror},
        relays::{RealRelay, notes},
    },
};

impl Site {
    pub(super) async fn answer(&mut self, asked: &Value) -> Value {
        let text = |name: &str| asked[name].as_str().unwrap_or_default().to_owned();
        let world = &self.api.world;
        match text("do").as_str() {
            "sign" => self.sign(&text("as"), &asked["event"]),
            "status" => json!(relay_of(world, &text("id")).await.sync_state()),
            "relay_status" => json!(relay_of(world, &text("id")).await.status),
            "fail" => {
                let status = u16::try_from(asked["status"].as_u64().unwrap()).unwrap();
                let id = text("id");
                let id = (!id.is_empty()).then_some(id);
                world.zooid.plan(id.as_deref(), Fault::Status(status, None), None);
                json!(true)
            }
            "heal" => {
                world.zooid.heal();
                json!(true)
            }
            "due" => {
                world.make_due().await;
                json!(true)
            }
            "end_sessions" => json!(session::revoke(&world.db, None).await.unwrap()),
            "paused" => json!(queue::paused(&world.db).await.unwrap()),
            "link" => json!(tender::dashboard::new_link(&world.db).await.unwrap()),
            "start_workers" => {
                let stop = CancellationToken::new();
                tokio::spawn({
                    let (context, stop) = (world.context.clone(), stop.clone());
                    async move { support::run_workers(&context, stop).await }
                });
                self.workers = Some(stop);
                json!(true)
            }
            "stop_workers" => {
                self.workers.take().unwrap().cancel();
                json!(true)
            }
            other => self.fill(other, asked).await,
        }
    }

    /// Writes rows.
    async fn fill(&mut self, what: &str, asked: &Value) -> Value {
        let text = |name: &str| asked[name].as_str().unwrap_or_default().to_owned();
        let world = &self.api.world;
        match what {
            "relay" => {
                let change = Change { info_name: Some(text("name")), ..Change::default() };
                json!(world.relay_with(&text("subdomain"), change).await.id)
            }
            "relays" => {
                for number in 0..asked["count"].as_u64().unwrap() {
                    world.relay(&format!("{}-{number}", text("prefix"))).await;
                }
                json!(true)
            }
            "upstream" => {
                let mirror = Mirror::over(&world.db, mirror::settings());
                let (relay, now) = (RealRelay::start().await, mirror.db_now().await);
                relay.add(&notes(&Keys::generate(), 40, now - 60, 3600)).await;
                let fields = json!({"direction": "both", "config": mirror::days(1)});
                let upstream = mirror.upstream(&relay.url, fields).await;
                for mode in LaneKind::MODES {
                    mirror.trigger(&upstream, mode).await;
                }
                mirror.drain().await;
                let gone =
                    mirror.upstream("ws://127.0.0.1:1", json!({"notes": "it is gone"})).await;
                mirror.trigger(&gone, LaneKind::Realtime).await;
                for _ in 0..5 {
                    world.make_due().await;
                    mirror.step().await;
                }
                json!(upstream.id)
            }
            "grasp_rows" => {
                support::grasp_rows::fill(&world.db).await;
                json!(true)
            }
            "chart_rows" => {
                sqlx::raw_sql(include_str!("charts.sql")).execute(&world.db).await.unwrap();
                json!(true)
            }
            "killed_jobs" => {
                let statement =
                    "insert into apalis.jobs (id, job_type, job, status, done_at, last_result)
                    select '01K' || lpad(i::text, 23, '0'), 'prune', '{}', 'Killed',
                           now() - i * interval '1 s', '{\"Err\": \"no disk\"}'
                    from generate_series(1, 120) i";
                sqlx::raw_sql(statement).execute(&world.db).await.unwrap();
                json!(true)
            }
            "end_job" => {
                sqlx::query("delete from apalis.jobs where id = $1")
                    .bind(text("id"))
                    .execute(&world.db)
                    .await
                    .unwrap();
                json!(true)
            }
            "lose_jobs" => {
                let statement =
                    "delete from apalis.jobs where job_type = 'sync-relay' and status = 'Pending'";
                sqlx::raw_sql(statement).execute(&world.db).await.unwrap();
                json!(true)
            }
            "age" => {
                sqlx::query(
                    "update relay set updated_at = now() - interval '20 min' where id = $1",
                )
                .bind(text("id"))
                .execute(&world.db)
                .await
                .unwrap();
                json!(true)
            }
            "rename" => {
                world.rename(&relay_of(world, &text("id")).await, &text("name")).await;
                json!(true)
            }
            other => self.disturb(other).await,
        }
    }

    /// Breaks the surroundings of the pages, or mends them.
    async fn disturb(&mut self, what: &str) -> Value {
        match what {
            "break_database" => {
                self.rename_table("relay", "relay_of_nobody").await;
                json!(true)
            }
            "mend_database" => {
                self.rename_table("relay_of_nobody", "relay").await;
                json!(true)
            }
            "silence" => {
                self.path.go_silent();
                json!(true)
            }
            "reopen" => {
                self.path.reopen();
                json!(true)
            }
            "beside" => {
                let password = Some(SecretString::from(PASSWORD));
                let (url, stop) =
                    self.api.beside(|config| config.dashboard_password = password).await;
                self.beside = Some(stop);
                json!(url)
            }
            "stop_beside" => {
                self.beside = None;
                json!(true)
            }
            other => panic!("a script asked for {other:?}"),
        }
    }
}
