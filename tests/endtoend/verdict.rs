//! What recordings have to hold together.

/// An encoder with B-frames sends pictures out of order, and the last one may be cut: where a recording breaks off, the last ones
/// may be irregular.
const REORDERED: usize = 16;

pub struct Verdict {
    pub recordings: usize,
    /// Everything before this has arrived.
    pub until: usize,
    pub repeated: usize,
    /// The longest way back at a seam.
    pub furthest_back: usize,
}

/// As `unbroken`, and nothing is missing of all `length`; the last recording ends with the last of them.
pub fn complete(what: &str, length: usize, recordings: &[Vec<Option<usize>>]) -> Verdict {
    let verdict = unbroken(what, recordings);
    assert_eq!(verdict.until, length, "{what}: {} of {length} arrived", verdict.until);
    let last = recordings.iter().rev().find_map(|recording| recording.last());
    assert_eq!(last, Some(&Some(length - 1)), "{what}: the end of the last recording");
    verdict
}

/// Each recording is one run of what was sent, and begins at the first that was missing or before. Nothing that was not sent is in
/// any of them.
pub fn unbroken(what: &str, recordings: &[Vec<Option<usize>>]) -> Verdict {
    let mut verdict = Verdict { recordings: 0, until: 0, repeated: 0, furthest_back: 0 };
    for (index, recording) in recordings.iter().enumerate() {
        let next = verdict.until;
        let Some(first) = recording.first() else {
            eprintln!("{what}: recording {index}: nothing");
            continue;
        };
        let first =
            first.unwrap_or_else(|| panic!("{what}: recording {index} begins with something that was not sent"));
        assert!(first <= next, "{what}: recording {index} begins at {first}, {next} is missing");
        let run = recording.iter().zip(first..).take_while(|(number, due)| **number == Some(*due)).count();
        assert!(
            recording.len() - run <= REORDERED,
            "{what}: recording {index} goes from {first} to {}, then {:?}",
            first + run,
            &recording[run..(run + 20).min(recording.len())]
        );
        eprintln!("{what}: recording {index}: {first} to {}", first + run);
        verdict.recordings += 1;
        verdict.repeated += next.min(first + run) - first;
        verdict.furthest_back = verdict.furthest_back.max(next - first);
        verdict.until = next.max(first + run);
    }
    eprintln!(
        "{what}: {} in {} recordings, {} repeated, at most {} at a seam",
        verdict.until, verdict.recordings, verdict.repeated, verdict.furthest_back
    );
    verdict
}
