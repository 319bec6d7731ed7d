//! The rules of a change that depend on the relay's present state.

use super::{Change, FieldError, Relay};
use crate::provision::instance::Instances;

impl Change {
    /// Returns every field that violates its rule for this relay. The relay may keep its domain even
    /// if `domains`, the zooid domains that we serve, has it no longer.
    ///
    /// A relay cannot move to a domain of another zooid instance: its events and its identity are on
    /// the instance that created it.
    pub fn problems_for(
        &self,
        relay: &Relay,
        domains: &[String],
        instances: &Instances,
    ) -> Vec<FieldError> {
        let mut allowed = domains.to_vec();
        allowed.push(relay.zooid_domain.clone());
        let mut problems = self.problems(&allowed);
        let is_other = |domain: &&String| instances.of(domain) != instances.of(&relay.zooid_domain);
        if problems.is_empty()
            && let Some(domain) = self.zooid_domain.as_ref().filter(is_other)
        {
            let problem = format!(
                "cannot change from {} to {domain}, because another zooid instance serves it: \
                 create a relay there, and delete this one",
                relay.zooid_domain
            );
            problems.push(FieldError::new("zooid_domain", problem));
        }
        problems
    }
}
