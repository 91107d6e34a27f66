//! Commands over MQTT: heard, checked, done once, answered.
//!
//! `cmd/<operation>/<id>` asks; the answer goes to `cmd/<operation>/<id>/result`, or with MQTT 5 where the sender wants it. A command that comes a
//! second time under its id gets its first answer and is not done again, also after a restart.

use super::config::Operation;
use super::parts::{Part, PartError};
use super::pipeline::Publisher;
use crate::events::{CommandResult, RollbackModel, Topics, UpdateModel, to_json};
use crate::mqtt::{Incoming, Note, ReplyTo, SessionHandle, StoreHandle};
use crate::ota::UpdateCommand;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, VecDeque};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Commands that wait inside; more are dropped, and who sent them asks again.
pub(super) const WAITING: usize = 16;
/// Answers that are remembered.
const REMEMBERED: usize = 64;
/// Longest payload and id, in bytes.
const MAX_PAYLOAD: usize = 4096;
const MAX_ID: usize = 128;
/// Begins the key of the note that holds an answer.
const COMMAND_NOTE: &str = "command/";

/// Hears commands and answers them.
pub(super) struct Commands {
    topics: Topics,
    session: SessionHandle,
    store: StoreHandle,
    allow: Vec<Operation>,
    updates: Option<mpsc::Sender<UpdateCommand>>,
    incoming: mpsc::Receiver<Incoming>,
    /// Oldest first.
    answered: VecDeque<CommandResult>,
}

impl Commands {
    /// `notes`: what the outbox kept.
    pub(super) fn new(
        publisher: &Publisher,
        allow: Vec<Operation>,
        updates: Option<mpsc::Sender<UpdateCommand>>,
        incoming: mpsc::Receiver<Incoming>,
        notes: &BTreeMap<String, String>,
    ) -> Commands {
        let answer = |(key, value): (&String, &String)| {
            key.strip_prefix(COMMAND_NOTE)?;
            serde_json::from_str(value).ok()
        };
        let Publisher { topics, session, store, .. } = publisher.clone();
        Commands {
            topics,
            session,
            store,
            allow,
            updates,
            incoming,
            answered: notes.iter().filter_map(answer).collect(),
        }
    }

    /// Hears one and answers it.
    async fn next(&mut self) {
        match self.incoming.recv().await {
            Some(message) => self.answer(message).await,
            // The session has ended, and the agent ends with it.
            None => std::future::pending().await,
        }
    }

    async fn answer(&mut self, message: Incoming) {
        fail::fail_point!("commands");
        let Some((operation, id)) = self.topics.command(&message.topic) else { return };
        let (operation, id) = (operation.to_owned(), id.to_owned());
        if message.retained {
            // Kept by the broker, it would be done at every start.
            tracing::warn!(
                "the command {operation} {id} is retained on the broker and is not done; send it without the flag"
            );
            return;
        }
        let known = self.answered.iter().find(|answer| answer.operation == operation && answer.id == id);
        let answer = match known {
            Some(answer) => answer.clone(),
            None => self.carry_out(&operation, &id, &message.payload).await,
        };
        let topic = self.topics.command_result(&operation, &id);
        self.session.reply(ReplyTo::of(&message), topic, to_json(&answer));
    }

    async fn carry_out(&mut self, operation: &str, id: &str, payload: &[u8]) -> CommandResult {
        let result =
            |ok: bool, message: String| CommandResult { id: id.into(), operation: operation.into(), ok, message };
        if id.is_empty() || id.len() > MAX_ID {
            return result(false, format!("the id has {} bytes; expected 1 to {MAX_ID}", id.len()));
        }
        let allowed = self.allow.iter().copied().find(|allowed| allowed.name() == operation);
        let Some(allowed) = allowed else {
            let names: Vec<&str> = self.allow.iter().map(|o| o.name()).collect();
            return result(false, format!("{operation} is not allowed here; commands.allow has: {}", names.join(", ")));
        };
        let (answer, answered) = oneshot::channel();
        let command = match allowed {
            Operation::UpdateModel => parse(payload)
                .map(|UpdateModel { model, version, force }| UpdateCommand::Update { model, version, force, answer }),
            Operation::RollbackModel => {
                parse(payload).map(|RollbackModel { model }| UpdateCommand::RollBack { model, answer })
            }
        };
        let command = match command {
            Ok(command) => command,
            Err(why) => return result(false, why),
        };
        // Before it is done: if we end in between, it is not done a second time.
        self.remember(result(false, "it was begun, and the agent ended before it could answer".into()));
        let done = match &self.updates {
            None => Err("this device has no updates: `update.url` is empty".into()),
            Some(updates) => {
                // Who is asked drops the question when it ends; so does the answer.
                let _ = updates.send(command).await;
                answered.await.unwrap_or_else(|_| Err("the updates have ended; the agent ends, too".into()))
            }
        };
        let done = match done {
            Ok(message) => result(true, message),
            Err(message) => result(false, message),
        };
        tracing::info!("the command {operation} {id}: {}", done.message);
        self.remember(done.clone());
        done
    }

    /// In memory and beside the outbox; the oldest is forgotten.
    fn remember(&mut self, answer: CommandResult) {
        let key = |answer: &CommandResult| format!("{COMMAND_NOTE}{}/{}", answer.operation, answer.id);
        self.answered.retain(|known| key(known) != key(&answer));
        let value = serde_json::to_string(&answer).ok();
        let mut notes = vec![Note { key: key(&answer), value }];
        self.answered.push_back(answer);
        while self.answered.len() > REMEMBERED {
            notes.extend(self.answered.pop_front().map(|oldest| Note { key: key(&oldest), value: None }));
        }
        drop(self.store.put(vec![], notes));
    }
}

impl Part for Commands {
    fn name(&self) -> String {
        "commands".into()
    }

    fn run<'a>(&'a mut self, stop: &'a CancellationToken) -> BoxFuture<'a, Result<(), PartError>> {
        async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = self.next() => {}
                }
            }
        }
        .boxed()
    }
}

/// An empty payload asks for nothing in particular.
fn parse<T: DeserializeOwned + Default>(payload: &[u8]) -> Result<T, String> {
    if payload.len() > MAX_PAYLOAD {
        return Err(format!("the payload has {} bytes; expected up to {MAX_PAYLOAD}", payload.len()));
    }
    if payload.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    serde_json::from_slice(payload).map_err(|e| format!("the payload is none of this command: {e}"))
}
