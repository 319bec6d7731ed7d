//! Why an upstream was not created or changed.

/// Why an upstream was not created or changed.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Fields violate their rules; each message names its field.
    #[error("{}", .0.join("; "))]
    Invalid(Vec<String>),
    /// Another upstream has this address.
    #[error("Url has already been taken")]
    Taken,
    /// The upstream with this address is being removed; the number of rows deleted so far.
    #[error(
        "Url belongs to an upstream that is being removed ({0} rows deleted so far); add it again \
         when `tender mirror list` does not show it any more"
    )]
    BeingRemoved(i64),
    /// The upstream is the relay of a GRASP service.
    #[error(
        "the upstream is the relay of a GRASP service; remove the service first: `tender grasp remove`"
    )]
    OfService,
    /// The change would stop the own feed of a GRASP service, or the uploads to its relay.
    #[error(
        "the upstream is the relay of a GRASP service, and the change would stop {0}; pause the service \
         instead (`tender grasp update --enabled false`), or remove it (`tender grasp remove`)"
    )]
    StopsService(&'static str),
    /// A GRASP service decides on this field of its relay.
    #[error(
        "the upstream is the relay of the GRASP service {service}, which decides on its {field}; to change \
         it, remove the service first (`tender grasp remove {service}`)"
    )]
    DecidedByService {
        /// The field.
        field: &'static str,
        /// The address of the service.
        service: String,
    },
    /// The upstream does not exist.
    #[error("the upstream does not exist; `tender mirror list` lists the upstreams")]
    NotFound,
    /// The database is unreachable or refused a statement.
    #[error("could not store the upstream")]
    Database(#[from] sqlx::Error),
}
