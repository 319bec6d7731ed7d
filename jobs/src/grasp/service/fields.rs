//! The fields of a service, as an operator sets them.

use serde_json::{Value, json};

/// The fields of a new service. `None` means the default.
#[derive(Debug, Clone, Default)]
pub struct NewService {
    /// The address of its relay; it is normalised on write.
    pub url: String,
    /// The hosts by which announcements mean it. Empty: the host of the relay.
    pub names: Vec<String>,
    /// The relays that it starts from.
    pub bootstrap: Vec<String>,
    /// The operator's rules; see [`Policy`](crate::grasp::policy::Policy).
    pub policy: Option<Value>,
    /// The relays that are followed for one announcement, from 1 to 100; 20 by default.
    pub max_relays_per_announcement: Option<i32>,
    /// The relays that are followed in total, from 1 to 10,000; 1,000 by default.
    pub max_relays: Option<i32>,
    /// Whether its relay and its bootstrap relays may have an address that is not public.
    pub private: bool,
    /// Whether it judges events and wants relays to be followed; true by default.
    pub enabled: Option<bool>,
    /// Whether the mirror keeps a subscription to its relay open; true by default.
    pub live: Option<bool>,
    /// Whether the mirror fetches what its relay had before; true by default.
    pub backfill: Option<bool>,
    /// Whether the mirror uses NIP-77 with its relay; true by default.
    pub negentropy: Option<bool>,
    /// The name of a [`Direction`](crate::mirror::upstream::Direction): `both` by default, `down` for a relay
    /// that we host on zooid.
    pub direction: Option<String>,
    /// Who adds it: it is written to the operators' record.
    pub by: Option<String>,
}

/// A change of a service. `None` keeps the value.
#[derive(Debug, Clone, Default)]
pub struct ServiceChange {
    /// See [`NewService::names`].
    pub names: Option<Vec<String>>,
    /// See [`NewService::bootstrap`]. The list replaces the former one.
    pub bootstrap: Option<Vec<String>>,
    /// See [`NewService::policy`]. The policy replaces the former one.
    pub policy: Option<Value>,
    /// See [`NewService::max_relays_per_announcement`].
    pub max_relays_per_announcement: Option<i32>,
    /// See [`NewService::max_relays`].
    pub max_relays: Option<i32>,
    /// See [`NewService::private`].
    pub private: bool,
    /// See [`NewService::enabled`].
    pub enabled: Option<bool>,
    /// Who changes it: it is written to the operators' record.
    pub by: Option<String>,
}
impl ServiceChange {
    /// Names the fields that change, for the operators' record.
    pub(super) fn describe(&self) -> String {
        let fields = json!({
            "names": self.names, "bootstrap": self.bootstrap, "enabled": self.enabled,
            "max_relays": self.max_relays, "policy": self.policy.as_ref().map(|_| "changed"),
            "max_relays_per_announcement": self.max_relays_per_announcement,
        });
        let fields = fields.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
        fields.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }
}
