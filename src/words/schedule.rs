//! When a recurring job runs, in words.

/// Returns a cron expression of six fields in words, such as `every 5 min` or `daily at 03:00 UTC`. An expression
/// that has no short words is returned as it is.
pub(crate) fn schedule(expression: &str) -> String {
    let fields: Vec<&str> = expression.split_whitespace().collect();
    let ([second, minute, hour], ["*", "*", "*"]) =
        (&fields[..fields.len().min(3)], &fields[fields.len().min(3)..])
    else {
        return expression.to_owned();
    };
    words(second, minute, hour).unwrap_or_else(|| expression.to_owned())
}

fn words(second: &str, minute: &str, hour: &str) -> Option<String> {
    if (minute, hour) == ("*", "*") && (second == "*" || step(second).is_some()) {
        return Some(every(step(second).unwrap_or(1), "s"));
    }
    let second: u32 = second.parse().ok()?;
    let at = if second == 0 { String::new() } else { format!(", at second {second}") };
    if hour == "*" && (minute == "*" || step(minute).is_some()) {
        return Some(every(step(minute).unwrap_or(1), "min") + &at);
    }
    let minute: u32 = minute.parse().ok()?;
    if hour == "*" || step(hour).is_some() {
        let at = if minute == 0 && second == 0 {
            String::new()
        } else {
            format!(", at minute {minute}{at}")
        };
        return Some(every(step(hour).unwrap_or(1), "h") + &at);
    }
    let hour: u32 = hour.parse().ok()?;
    let seconds = if second == 0 { String::new() } else { format!(":{second:02}") };
    Some(format!("daily at {hour:02}:{minute:02}{seconds} UTC"))
}

/// The number in `*/5`, and the distance in `5,20,35,50`, if it divides the minute or the hour.
fn step(field: &str) -> Option<u32> {
    if let Some(step) = field.strip_prefix("*/") {
        return step.parse().ok();
    }
    let times: Vec<u32> = field.split(',').map(|time| time.parse().ok()).collect::<Option<_>>()?;
    let distance = times.get(1)?.checked_sub(*times.first()?)?;
    let is_even = times.windows(2).all(|pair| pair[1].checked_sub(pair[0]) == Some(distance));
    let number = u32::try_from(times.len()).ok()?;
    (is_even && distance * number == 60).then_some(distance)
}

fn every(step: u32, unit: &str) -> String {
    let one = match unit {
        "s" => "second",
        "min" => "minute",
        _ => "hour",
    };
    if step == 1 { format!("every {one}") } else { format!("every {step} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_told_in_words() {
        let told = [
            ("* * * * * *", "every second"),
            ("*/10 * * * * *", "every 10 s"),
            ("0 * * * * *", "every minute"),
            ("30 * * * * *", "every minute, at second 30"),
            ("0 */5 * * * *", "every 5 min"),
            ("15 */5 * * * *", "every 5 min, at second 15"),
            ("0 0 * * * *", "every hour"),
            ("0 20 */6 * * *", "every 6 h, at minute 20"),
            ("0 30 3 * * *", "daily at 03:30 UTC"),
            ("0 0 3 * * MON", "0 0 3 * * MON"),
            ("5,20,35,50 * * * * *", "every 15 s"),
            ("0 0,30 * * * *", "every 30 min"),
            ("0 0,20 * * * *", "0 0,20 * * * *"),
            ("", ""),
        ];
        for (expression, words) in told {
            assert_eq!(schedule(expression), words, "{expression}");
        }
    }
}
