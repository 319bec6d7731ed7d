//! What the rounds of a benchmark have shown.

/// Events per second of several ways, in rounds.
#[derive(Default)]
pub(crate) struct Rates(Vec<(&'static str, Vec<f64>)>);

impl Rates {
    pub(crate) fn add(&mut self, what: &'static str, rate: f64, rss_mb: f64) {
        println!("{what}: {rate:.0}/s; {rss_mb:.0} MB RSS of Tender");
        match self.0.iter_mut().find(|(name, _)| *name == what) {
            Some((_, rates)) => rates.push(rate),
            None => self.0.push((what, vec![rate])),
        }
    }

    /// Prints the median of each way, and its ratio to the first one.
    pub(crate) fn print(self) {
        let mut first = None;
        for (what, mut rates) in self.0 {
            rates.sort_by(f64::total_cmp);
            let (median, least, most) = (rates[rates.len() / 2], rates[0], rates[rates.len() - 1]);
            let ratio = median / *first.get_or_insert(median);
            println!(
                "{what}: median {median:.0}/s ({least:.0} to {most:.0}), {ratio:.2} × the first"
            );
        }
    }
}
