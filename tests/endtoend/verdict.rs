//! What recordings have to hold together.

/// An encoder with B-frames sends pictures out of order: where a recording breaks off, the last ones may have gaps.
const REORDERED: usize = 16;

pub struct Verdict {
    pub recordings: usize,
    pub repeated: usize,
    /// The longest way back at a seam.
    pub furthest_back: usize,
}

/// Each recording is one unbroken run of what was sent, begins at the first that was missing or before, and nothing is missing
/// of all `length`. Nothing that was not sent is in any of them.
pub fn complete(what: &str, length: usize, recordings: &[Vec<Option<usize>>]) -> Verdict {
    let mut next = 0;
    let mut verdict = Verdict { recordings: 0, repeated: 0, furthest_back: 0 };
    for (index, recording) in recordings.iter().enumerate() {
        let Some(first) = recording.first() else { continue };
        let first =
            first.unwrap_or_else(|| panic!("{what}: recording {index} begins with something that was not sent"));
        assert!(first <= next, "{what}: recording {index} begins at {first}, {next} is missing");
        let mut unbroken = first;
        for number in recording {
            if *number != Some(unbroken) {
                break;
            }
            unbroken += 1;
        }
        let rest = recording.len() - (unbroken - first);
        let last = index + 1 == recordings.len();
        assert!(
            rest <= if last { 0 } else { REORDERED },
            "{what}: recording {index} goes from {first} to {unbroken}, then {:?}",
            &recording[unbroken - first..(unbroken - first + 20).min(recording.len())]
        );
        verdict.recordings += 1;
        verdict.repeated += next.min(unbroken) - first;
        verdict.furthest_back = verdict.furthest_back.max(next - first);
        next = next.max(unbroken);
    }
    assert_eq!(next, length, "{what}: {next} of {length} arrived");
    eprintln!(
        "{what}: {length} in {} recordings, {} repeated, at most {} at a seam",
        verdict.recordings, verdict.repeated, verdict.furthest_back
    );
    verdict
}
