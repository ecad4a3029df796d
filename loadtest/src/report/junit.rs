//! The report for CI: a JUnit file with a test case for each threshold, and one for the content of
//! the messages.

use super::threshold::Threshold;
use super::verdict::{Finding, Level};
use crate::run::measure::Outcome;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

pub fn junit(outcome: &Outcome, thresholds: &[Threshold], findings: &[Finding]) -> Result<String, String> {
    let mut suite = TestSuite::new(outcome.url.as_str());
    suite.set_time(outcome.measured);
    let failed =
        findings.iter().filter(|finding| finding.level == Level::Failed).map(|finding| finding.sentence.as_str());
    let failed: Vec<&str> = failed.collect();
    suite.add_test_case(case("the run did what it was requested", (!failed.is_empty()).then(|| failed.join("; "))));
    for threshold in thresholds {
        let seen = threshold.is_true(outcome).then(|| threshold.seen(outcome));
        suite.add_test_case(case(&format!("not {threshold}"), seen));
    }
    let mut report = Report::new("framegate-loadtest");
    report.add_test_suite(suite);
    report.to_string().map_err(|e| format!("cannot write JUnit: {e}"))
}

fn case(name: &str, failure: Option<String>) -> TestCase {
    let status = match failure {
        None => TestCaseStatus::success(),
        Some(message) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(message);
            status
        }
    };
    TestCase::new(name, status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::outcome;

    #[test]
    fn each_threshold_is_a_case_and_a_crossed_one_fails() {
        let thresholds = ["p99>1s".parse().unwrap(), "p50>0s".parse().unwrap()];
        let text = junit(&outcome(), &thresholds, &super::super::verdict::judge(&outcome())).unwrap();
        assert!(text.contains("tests=\"3\"") && text.contains("failures=\"1\""), "{text}");
        assert!(text.contains("not p50&gt;0s") && text.contains("p50 is 1.00 ms"), "{text}");
    }
}
