//! zooid: whether each instance answers, accepts our key, and has the same time.

use tender_workers::provision::zooid::{Checked, Zooid};

use super::{Finding, Grade, fail, ok, warn};
use crate::config::Config;

/// The difference between zooid's clock and ours that is reported, in seconds. zooid accepts 60 s.
const SKEW_SECS: i64 = 15;

pub(super) async fn examine(config: &Config, findings: &mut Vec<Finding>) {
    let Some(settings) = config.zooid.clone() else {
        // An incomplete configuration is reported already.
        if findings.iter().all(|finding| finding.grade != Grade::Fail) {
            let is_forgotten = !config.api.domains.is_empty();
            let off = if is_forgotten { warn } else { ok };
            findings.push(off("provisioning", "off: ZOOID_API_URL is not set"));
        }
        return;
    };
    let zooid = match Zooid::new(settings) {
        Ok(zooid) => zooid,
        Err(error) => return findings.push(fail("zooid", error.to_string())),
    };
    for (url, result) in zooid.check().await {
        findings.push(match result {
            Ok(checked) => answered(&url, checked),
            Err(error) => fail("zooid", format!("{url}: {error}")),
        });
    }
}

fn answered(url: &str, checked: Checked) -> Finding {
    match checked.clock_ahead_secs.filter(|ahead| ahead.abs() > SKEW_SECS) {
        None => ok("zooid", format!("{url} answers and accepts our key")),
        Some(ahead) => {
            let direction = if ahead > 0 { "ahead of" } else { "behind" };
            let seconds = ahead.abs();
            warn(
                "zooid",
                format!(
                    "{url} accepts our key, but its clock is {seconds} s {direction} ours, and it \
                     accepts 60 s: set both by NTP"
                ),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_reported_before_zooid_refuses_it() {
        let graded = |ahead| answered("http://zooid", Checked { clock_ahead_secs: ahead });
        assert_eq!(graded(None).grade, Grade::Ok);
        assert_eq!(graded(Some(3)).grade, Grade::Ok);
        assert!(graded(Some(40)).words.contains("40 s ahead of ours"), "{:?}", graded(Some(40)));
        assert!(graded(Some(-40)).words.contains("40 s behind ours"), "{:?}", graded(Some(-40)));
    }
}
