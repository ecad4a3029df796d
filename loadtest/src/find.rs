//! stub
use crate::Failure;
use crate::plan::Plan;
use crate::report::{OutputArgs, Threshold};
use std::process::ExitCode;
pub fn find(_p: &Plan, _c: &Threshold, _o: &OutputArgs) -> Result<ExitCode, Failure> {
    Err("not yet".into())
}
