//! An error in one line for people, with what caused it.
//!
//! Not here: any error of its own. Each module has its own type, whose sentence leaves its cause out.

/// The error and its causes, outermost first, with a colon between them.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failed {
        #[error("the device is locked")]
        Device,
        #[error("cannot write {file}")]
        Write { file: &'static str, source: Box<Failed> },
        #[error("no lease was kept")]
        Kept { source: Box<Failed> },
    }

    #[test]
    fn every_cause_is_told_once_the_outermost_first() {
        let write = || Failed::Write { file: "lease", source: Box::new(Failed::Device) };
        assert_eq!(with_causes(&Failed::Device), "the device is locked");
        assert_eq!(with_causes(&write()), "cannot write lease: the device is locked");
        let kept = Failed::Kept { source: Box::new(write()) };
        assert_eq!(with_causes(&kept), "no lease was kept: cannot write lease: the device is locked");
    }
}
