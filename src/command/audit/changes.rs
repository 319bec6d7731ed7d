//! The names under which the audit log has the commands that change something.

use tender_jobs::steer::Verb;

use crate::command::{
    Command,
    grasp::GraspCommand,
    keys::KeysCommand,
    mirror::MirrorCommand,
    process::ProcessCommand,
    provision::{InstanceCommand, RelayCommand},
    queue::QueueCommand,
};

/// Returns the action and the target of a command; `None` if it changes nothing.
pub(in crate::command) fn changes(command: &Command) -> Option<(&'static str, String)> {
    match command {
        Command::Relay(command) => of_relay(command),
        Command::Instance(InstanceCommand::Forget { name }) => {
            Some(("forget_instance", name.clone()))
        }
        Command::Instance(InstanceCommand::Probe { name }) => {
            Some(("probe_instance", name.clone()))
        }
        Command::Queue(command) => of_queue(command),
        Command::Process(ProcessCommand::Drain { process, .. }) => {
            Some(("drain_process", process.clone()))
        }
        Command::Process(ProcessCommand::Undrain { process }) => {
            Some(("undrain_process", process.clone()))
        }
        Command::Mirror(command) => of_mirror(command),
        Command::Grasp(command) => of_grasp(command),
        Command::Keys(KeysCommand::Create { name }) => Some(("create_key", name.clone())),
        Command::Keys(KeysCommand::Revoke { prefix, .. }) => {
            Some(("revoke_key", prefix.chars().take(8).collect())) // the rest of a token is secret
        }
        Command::Reconcile => Some(("reconcile", String::new())),
        Command::DashboardLink { end_sessions: false, .. } => Some(("make_link", String::new())),
        Command::DashboardLink { end_sessions: true, .. } => Some(("end_sessions", String::new())),
        _ => None,
    }
}

fn of_relay(command: &RelayCommand) -> Option<(&'static str, String)> {
    let target = match command {
        RelayCommand::Create { subdomain, .. } => subdomain,
        RelayCommand::Update { relay, .. }
        | RelayCommand::Activate { relay }
        | RelayCommand::Deactivate { relay, .. }
        | RelayCommand::Delete { relay, .. }
        | RelayCommand::Sync { relay: Some(relay), .. } => relay,
        RelayCommand::Sync { relay: None, .. } => return Some(("sync_all", String::new())),
        RelayCommand::List(_)
        | RelayCommand::Show { .. }
        | RelayCommand::Members { .. }
        | RelayCommand::Activity { .. } => return None,
    };
    Some((command.action(), target.clone()))
}

fn of_queue(command: &QueueCommand) -> Option<(&'static str, String)> {
    match command {
        QueueCommand::Retry(which) => Some(which.change(Verb::Retry)),
        QueueCommand::Cancel(which) => Some(which.change(Verb::Cancel)),
        QueueCommand::Delete(which) => Some(which.change(Verb::Delete)),
        QueueCommand::Pause { queue, .. } => Some(("pause_queue", queue.clone())),
        QueueCommand::Scale { queue, .. } => Some(("scale_queue", queue.clone())),
        QueueCommand::Resume { queue } => Some(("resume_queue", queue.clone())),
        _ => None,
    }
}

fn of_mirror(command: &MirrorCommand) -> Option<(&'static str, String)> {
    let all = || "all".to_owned();
    match command {
        MirrorCommand::Add { url, relay, .. } => {
            Some(("add_upstream", url.clone().or_else(|| relay.clone()).unwrap_or_default()))
        }
        MirrorCommand::Update { upstream, .. } => Some(("update_upstream", upstream.clone())),
        MirrorCommand::Remove { upstream, .. } => Some(("remove_upstream", upstream.clone())),
        MirrorCommand::Seed { file } => Some(("add_upstream", file.display().to_string())),
        MirrorCommand::Trigger { upstream, .. } => {
            Some(("trigger_mirror", upstream.clone().unwrap_or_else(all)))
        }
        MirrorCommand::Recover { .. } => Some(("recover_mirror", all())),
        MirrorCommand::Reset { upstream, .. } => {
            Some(("reset_upstream", upstream.clone().unwrap_or_else(all)))
        }
        MirrorCommand::Config { change: Some(_), .. } => {
            Some(("configure_mirror", "deployment".to_owned()))
        }
        MirrorCommand::Wipe { .. } => Some(("wipe_events", all())),
        MirrorCommand::Redelete => Some(("redelete_events", all())),
        _ => None,
    }
}

fn of_grasp(command: &GraspCommand) -> Option<(&'static str, String)> {
    match command {
        GraspCommand::Add { url, .. } => Some(("add_service", url.clone())),
        GraspCommand::Update { service, .. } => Some(("update_service", service.clone())),
        GraspCommand::Remove { service, .. } => Some(("remove_service", service.clone())),
        GraspCommand::Resync { url, .. } => {
            Some(("resync_grasp", url.clone().unwrap_or_else(|| "all".to_owned())))
        }
        _ => None,
    }
}
