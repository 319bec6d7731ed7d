//! The fields of a relay that a tenant may set, and their rules. Requests are checked once, where
//! they arrive.

use serde::{Deserialize, Serialize};

/// A field that violates its rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The name of the field in the API.
    pub field: &'static str,
    /// The violated rule, worded to follow the field's name.
    pub problem: String,
}

impl FieldError {
    /// Returns an error about `field`.
    pub fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }
}

/// The ten switches of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "ten independent switches, named as in the API")]
pub struct Flags {
    /// Anyone may read.
    pub policy_public_read: bool,
    /// Anyone may write.
    pub policy_public_write: bool,
    /// Anyone may join.
    pub policy_public_join: bool,
    /// Signatures are removed from served events.
    pub policy_strip_signatures: bool,
    /// NIP-29 groups.
    pub groups_enabled: bool,
    /// NIP-86 management.
    pub management_enabled: bool,
    /// Every member may invite.
    pub members_can_invite: bool,
    /// Blossom media.
    pub blossom_enabled: bool,
    /// `LiveKit` calls.
    pub livekit_enabled: bool,
    /// Push notifications.
    pub push_enabled: bool,
}

impl Default for Flags {
    /// Returns the flags of a community that anyone may read and only members may write to.
    fn default() -> Self {
        Self {
            policy_public_read: true,
            policy_public_write: false,
            policy_public_join: false,
            policy_strip_signatures: false,
            groups_enabled: true,
            management_enabled: true,
            members_can_invite: true,
            blossom_enabled: false,
            livekit_enabled: false,
            push_enabled: true,
        }
    }
}

impl Flags {
    /// The names of the switches in the API, in its order.
    pub const NAMES: [&str; 10] = [
        "policy_public_read",
        "policy_public_write",
        "policy_public_join",
        "policy_strip_signatures",
        "groups_enabled",
        "management_enabled",
        "members_can_invite",
        "blossom_enabled",
        "livekit_enabled",
        "push_enabled",
    ];

    /// Returns the switch called `name`; `None` if the name is unknown.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut bool> {
        Some(match name {
            "policy_public_read" => &mut self.policy_public_read,
            "policy_public_write" => &mut self.policy_public_write,
            "policy_public_join" => &mut self.policy_public_join,
            "policy_strip_signatures" => &mut self.policy_strip_signatures,
            "groups_enabled" => &mut self.groups_enabled,
            "management_enabled" => &mut self.management_enabled,
            "members_can_invite" => &mut self.members_can_invite,
            "blossom_enabled" => &mut self.blossom_enabled,
            "livekit_enabled" => &mut self.livekit_enabled,
            "push_enabled" => &mut self.push_enabled,
            _ => return None,
        })
    }

    /// Returns every switch with its name, in the order of [`Self::NAMES`].
    pub fn named(mut self) -> impl Iterator<Item = (&'static str, bool)> {
        Self::NAMES.into_iter().filter_map(move |name| self.get_mut(name).map(|on| (name, *on)))
    }
}

/// The wanted state: every field that a tenant may set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The first label of the host.
    pub subdomain: String,
    /// The rest of the host; one of the domains that we serve.
    pub zooid_domain: String,
    /// The billing plan, at most 64 characters.
    pub plan_id: String,
    /// The displayed name, at most 200 characters.
    pub info_name: String,
    /// The icon: an http(s) URL of at most 2,048 characters, or empty.
    pub info_icon: String,
    /// The displayed description, at most 10,000 characters.
    pub info_description: String,
    /// The tenant's own domain, at most 253 characters, or empty.
    pub custom_domain: String,
    /// Permissions and features.
    pub flags: Flags,
}

/// A change of some fields. A field that is `None` and a flag that is not named keep their values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// See [`Wanted::subdomain`].
    pub subdomain: Option<String>,
    /// See [`Wanted::zooid_domain`].
    pub zooid_domain: Option<String>,
    /// See [`Wanted::plan_id`].
    pub plan_id: Option<String>,
    /// See [`Wanted::info_name`].
    pub info_name: Option<String>,
    /// See [`Wanted::info_icon`].
    pub info_icon: Option<String>,
    /// See [`Wanted::info_description`].
    pub info_description: Option<String>,
    /// See [`Wanted::custom_domain`].
    pub custom_domain: Option<String>,
    /// New values of switches, by name; see [`Flags::NAMES`].
    pub flags: Vec<(&'static str, bool)>,
}

impl Change {
    /// Returns `wanted` with this change applied.
    pub fn applied_to(&self, wanted: &Wanted) -> Wanted {
        let or = |new: &Option<String>, old: &String| new.as_ref().unwrap_or(old).clone();
        let mut flags = wanted.flags;
        for (name, on) in &self.flags {
            if let Some(flag) = flags.get_mut(name) {
                *flag = *on;
            }
        }
        Wanted {
            subdomain: or(&self.subdomain, &wanted.subdomain),
            zooid_domain: or(&self.zooid_domain, &wanted.zooid_domain),
            plan_id: or(&self.plan_id, &wanted.plan_id),
            info_name: or(&self.info_name, &wanted.info_name),
            info_icon: or(&self.info_icon, &wanted.info_icon),
            info_description: or(&self.info_description, &wanted.info_description),
            custom_domain: or(&self.custom_domain, &wanted.custom_domain),
            flags,
        }
    }

    /// Returns every field that violates its rule. `domains` are the zooid domains that we serve.
    pub fn problems(&self, domains: &[String]) -> Vec<FieldError> {
        let mut problems = Vec::new();
        let mut check = |field, value: &Option<String>, rule: &dyn Fn(&str) -> Option<String>| {
            if let Some(problem) = value.as_deref().and_then(rule) {
                problems.push(FieldError { field, problem });
            }
        };
        check("subdomain", &self.subdomain, &subdomain_problem);
        check("zooid_domain", &self.zooid_domain, &|domain| domain_problem(domain, domains));
        check("plan_id", &self.plan_id, &|text| text_problem(text, 64));
        check("info_name", &self.info_name, &|text| text_problem(text, 200));
        check("info_icon", &self.info_icon, &icon_problem);
        check("info_description", &self.info_description, &|text| text_problem(text, 10_000));
        check("custom_domain", &self.custom_domain, &|text| custom_domain_problem(text, domains));
        problems
    }
}

/// A relay to be created.
#[derive(Debug, Clone)]
pub struct NewRelay {
    /// The public key of the tenant, 64 hex digits.
    pub tenant_pubkey: String,
    /// The initial wanted state.
    pub wanted: Wanted,
}

impl NewRelay {
    /// Returns a relay of `tenant_pubkey`. `change` must set the subdomain; other fields that it
    /// does not set get their defaults, and the domain is then `default_domain`.
    ///
    /// # Errors
    /// Every field that violates its rule.
    pub fn parse(
        tenant_pubkey: String,
        change: &Change,
        default_domain: &str,
        domains: &[String],
    ) -> Result<Self, Vec<FieldError>> {
        let mut problems = change.problems(domains);
        if change.subdomain.is_none() {
            problems.push(FieldError::new("subdomain", "is required"));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let defaults = Wanted {
            subdomain: String::new(),
            zooid_domain: default_domain.to_owned(),
            plan_id: String::new(),
            info_name: String::new(),
            info_icon: String::new(),
            info_description: String::new(),
            custom_domain: String::new(),
            flags: Flags::default(),
        };
        Ok(Self { tenant_pubkey, wanted: change.applied_to(&defaults) })
    }
}

/// Whether `text` is a label of a domain: 1 to 63 of `a-z 0-9 -`, with no hyphen at either end.
fn is_label(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn subdomain_problem(text: &str) -> Option<String> {
    (!is_label(text)).then(|| {
        "must be 1 to 63 of a-z, 0-9 and -, with no hyphen at either end, such as my-relay".into()
    })
}

fn domain_problem(text: &str, domains: &[String]) -> Option<String> {
    (!domains.iter().any(|domain| domain == text))
        .then(|| format!("is not served here; the served domains are {}", domains.join(", ")))
}

/// PostgreSQL's `text` cannot store U+0000, so no field may contain it.
fn text_problem(text: &str, limit: usize) -> Option<String> {
    if text.contains('\0') {
        return Some("must not contain the character U+0000".into());
    }
    let length = text.chars().count();
    (length > limit).then(|| format!("has {length} characters; at most {limit} are allowed"))
}

fn icon_problem(text: &str) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_url = rest.is_some_and(|rest| {
        !rest.is_empty() && !rest.starts_with('/') && !rest.contains(char::is_whitespace)
    });
    if !is_url || text.contains(char::is_control) {
        return Some(
            "must be empty or an http(s) URL, such as https://example.com/icon.png".into(),
        );
    }
    text_problem(text, 2048)
}

fn custom_domain_problem(text: &str, domains: &[String]) -> Option<String> {
    // A last label of digits is part of an IP address.
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    let is_domain = text.len() <= 253
        && text.contains('.')
        && text.split('.').all(is_label)
        && !text.rsplit('.').next().is_some_and(is_number);
    if !text.is_empty() && !is_domain {
        return Some(
            "must be empty or a domain name in lower case, such as chat.example.com".into(),
        );
    }
    // Hosts of these domains are other relays' subdomains.
    let is_below = |domain: &&String| {
        text.strip_suffix(domain.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let served = domains.iter().find(is_below)?;
    Some(format!("must not be {served} or a name below it: Tender assigns these names itself"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(field: &str, change: &Change, is_valid: bool) {
        let problems = change.problems(&["zooid.test".to_owned()]);
        assert_eq!(problems.is_empty(), is_valid, "{field}: {change:?}: {problems:?}");
        assert!(problems.iter().all(|problem| problem.field == field), "{problems:?}");
    }

    #[test]
    fn subdomains_keep_to_their_rule() {
        let subdomain = |text: &str| Change { subdomain: Some(text.into()), ..Change::default() };
        for valid in ["a", "a1", "0", "my-relay", &"a".repeat(63)] {
            check("subdomain", &subdomain(valid), true);
        }
        for invalid in ["", "-a", "a-", "A", "a.b", "ä", "a_b", " a", &"a".repeat(64), "a\0"] {
            check("subdomain", &subdomain(invalid), false);
        }
    }

    #[test]
    fn texts_are_bounded_in_characters() {
        let name = |text: String| Change { info_name: Some(text), ..Change::default() };
        check("info_name", &name("ä".repeat(200)), true);
        check("info_name", &name("ä".repeat(201)), false);
        check("info_name", &name("a\0b".into()), false);
    }

    #[test]
    fn icons_are_urls_or_empty() {
        let icon = |text: &str| Change { info_icon: Some(text.into()), ..Change::default() };
        for valid in ["", "https://example.com/a.png", "http://h/x?y=z#1"] {
            check("info_icon", &icon(valid), true);
        }
        let long = format!("https://e.com/{}", "a".repeat(2048));
        for invalid in
            ["javascript:alert(1)", "https://", "https:///a", "ftp://a", "https://a b", &long]
        {
            check("info_icon", &icon(invalid), false);
        }
    }

    #[test]
    fn domains_are_ones_we_serve() {
        let domain = |text: &str| Change { zooid_domain: Some(text.into()), ..Change::default() };
        check("zooid_domain", &domain("zooid.test"), true);
        check("zooid_domain", &domain("elsewhere.test"), false);
    }

    #[test]
    fn custom_domains_are_names_or_empty() {
        let custom = |text: &str| Change { custom_domain: Some(text.into()), ..Change::default() };
        for valid in ["", "chat.example.com", "a.b"] {
            check("custom_domain", &custom(valid), true);
        }
        for invalid in ["nodots", "a..b", "https://a.b", "A.b", &"a.".repeat(127)] {
            check("custom_domain", &custom(invalid), false);
        }
        check("custom_domain", &custom("notzooid.test"), true);
        for served in ["zooid.test", "chat.zooid.test", "a.b.zooid.test"] {
            check("custom_domain", &custom(served), false);
        }
    }

    #[test]
    fn a_change_leaves_the_rest_alone() {
        let domains = ["zooid.test".to_owned()];
        let create = Change { subdomain: Some("a".into()), ..Change::default() };
        let relay = NewRelay::parse("ab".repeat(32), &create, "zooid.test", &domains);
        let wanted = relay.expect("valid").wanted;
        let change = Change { flags: vec![("push_enabled", false)], ..Change::default() };
        let changed = change.applied_to(&wanted);
        assert!(!changed.flags.push_enabled);
        assert_eq!(
            Change { flags: vec![("push_enabled", true)], ..change }.applied_to(&changed),
            wanted
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_validation_panic(text in ".*") {
            let change = Change {
                subdomain: Some(text.clone()), zooid_domain: Some(text.clone()),
                plan_id: Some(text.clone()), info_name: Some(text.clone()),
                info_icon: Some(text.clone()), info_description: Some(text.clone()),
                custom_domain: Some(text), flags: vec![],
            };
            let _ = change.problems(&[]);
        }
    }
}
