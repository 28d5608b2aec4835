//! Which sent pictures arrived: sequences of checksums laid over each other.
//!
//! What a connection delivered is a run of the sent sequence. A run starts where the one before it ended, or earlier: then
//! the overlap is duplicated. Pictures that no run covers are lost. Positions are compared, not sets of checksums, so that
//! equal pictures (a still scene, a clip played twice) cannot stand in for each other.

use std::collections::HashMap;

/// All sent pictures in one sequence.
#[derive(Default)]
pub struct Sent {
    pictures: Vec<u64>,
    /// Position after the last picture of each run of the sender.
    ends: Vec<usize>,
    /// Where each checksum occurs.
    positions: HashMap<u64, Vec<usize>>,
}

impl Sent {
    pub fn add(&mut self, pictures: Vec<u64>) {
        for checksum in pictures {
            self.positions.entry(checksum).or_default().push(self.pictures.len());
            self.pictures.push(checksum);
        }
        self.ends.push(self.pictures.len());
    }

    /// How many pictures from `position` on are those of `received`.
    fn matching(&self, position: usize, received: &[u64]) -> usize {
        self.pictures[position..].iter().zip(received).take_while(|(sent, received)| sent == received).count()
    }

    /// Index of the sender's run that holds `position`.
    fn run(&self, position: usize) -> usize {
        self.ends.partition_point(|end| *end <= position)
    }

    pub fn range(&self, from: usize, to: usize) -> String {
        let run = self.run(from);
        let start = run.checked_sub(1).map_or(0, |before| self.ends[before]);
        format!("frames {} to {} of the sender's run {}", from - start, to - start - 1, run + 1)
    }
}

pub struct Comparison<'a> {
    sent: &'a Sent,
    covered: Vec<bool>,
    /// Position after the furthest run so far.
    next: usize,
    duplicated: usize,
    damaged: usize,
    /// Per run of the sender, the picture of its unwritten last unit once that has shown up.
    unwritten: Vec<Option<u64>>,
}

pub struct Counts {
    pub sent: usize,
    pub received: usize,
    pub lost: usize,
    pub duplicated: usize,
    pub damaged: usize,
}

impl<'a> Comparison<'a> {
    pub fn new(sent: &'a Sent) -> Self {
        Self {
            sent,
            covered: vec![false; sent.pictures.len()],
            next: 0,
            duplicated: 0,
            damaged: 0,
            unwritten: vec![None; sent.ends.len()],
        }
    }

    /// Places the pictures of one connection.
    pub fn add(&mut self, received: &[u64]) {
        let mut position = None;
        let mut index = 0;
        while index < received.len() {
            let rest = &received[index..];
            let start = match position {
                Some(position) if self.sent.matching(position, rest) > 0 => position,
                Some(position) if self.is_unwritten(position, rest) => {
                    index += 1;
                    continue;
                }
                _ => match self.place(rest) {
                    Some(start) => start,
                    None => {
                        self.damaged += 1;
                        index += 1;
                        continue;
                    }
                },
            };
            let length = self.sent.matching(start, rest);
            for covered in &mut self.covered[start..start + length] {
                self.duplicated += usize::from(std::mem::replace(covered, true));
            }
            position = Some(start + length);
            self.next = self.next.max(start + length);
            index += length;
        }
    }

    /// Start of the run that `received` begins with: the place where most of it fits; among equals one that loses nothing,
    /// and of those the one that repeats least.
    fn place(&self, received: &[u64]) -> Option<usize> {
        let candidates = self.sent.positions.get(received.first()?)?;
        candidates.iter().copied().max_by_key(|start| {
            let loses_nothing = *start <= self.next;
            let nearness = usize::MAX - start.abs_diff(self.next);
            (self.sent.matching(*start, received), loses_nothing, nearness)
        })
    }

    /// A killed sender may have handed over one more unit than it could write down. Its picture then stands between known ones
    /// near the end of that run of the sender (not always after the last one: pictures are listed in display order).
    /// Having been received it was sent, so it counts as both; only when it comes again it is duplicated.
    fn is_unwritten(&mut self, position: usize, received: &[u64]) -> bool {
        const REORDERING: usize = 16;
        let near_end = |end: &usize| position <= *end && *end - position <= REORDERING;
        let Some(run) = self.sent.ends.iter().position(near_end) else { return false };
        let goes_on = received.len() == 1 || self.sent.matching(position, &received[1..]) > 0;
        let picture = received[0];
        if !goes_on || self.sent.positions.contains_key(&picture) {
            return false;
        }
        match self.unwritten[run] {
            None => self.unwritten[run] = Some(picture),
            Some(known) if known == picture => self.duplicated += 1,
            Some(_) => return false,
        }
        true
    }

    pub fn counts(&self) -> Counts {
        let unwritten = self.unwritten.iter().flatten().count();
        let covered = self.covered.iter().filter(|covered| **covered).count();
        Counts {
            sent: self.covered.len() + unwritten,
            received: covered + unwritten + self.duplicated,
            lost: self.covered.len() - covered,
            duplicated: self.duplicated,
            damaged: self.damaged,
        }
    }

    /// Ranges [from, to) of sent pictures that never arrived, split where the sender was started again.
    pub fn lost_ranges(&self) -> Vec<(usize, usize)> {
        let mut ranges: Vec<(usize, usize)> = Vec::new();
        for position in (0..self.covered.len()).filter(|position| !self.covered[*position]) {
            match ranges.last_mut() {
                Some((_, to)) if *to == position && !self.sent.ends.contains(to) => *to += 1,
                _ => ranges.push((position, position + 1)),
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sent, received, lost, duplicated, damaged.
    fn compare(sent: &[&[u64]], received: &[&[u64]]) -> [usize; 5] {
        let mut all = Sent::default();
        for run in sent {
            all.add(run.to_vec());
        }
        let mut comparison = Comparison::new(&all);
        for connection in received {
            comparison.add(connection);
        }
        let Counts { sent, received, lost, duplicated, damaged } = comparison.counts();
        [sent, received, lost, duplicated, damaged]
    }

    #[test]
    fn a_rewind_is_duplicated_and_a_hole_is_lost() {
        assert_eq!(compare(&[&[1, 2, 3, 4, 5, 6]], &[&[1, 2, 3, 4], &[3, 4, 5, 6]]), [6, 8, 0, 2, 0]);
        assert_eq!(compare(&[&[1, 2, 3, 4, 5, 6]], &[&[1, 2], &[4, 5, 6]]), [6, 5, 1, 0, 0]);
        assert_eq!(compare(&[&[1, 2, 3, 4, 5, 6]], &[&[1, 2, 4, 5, 6]]), [6, 5, 1, 0, 0]);
    }

    #[test]
    fn equal_pictures_do_not_hide_a_loss() {
        // A still scene of five pictures of which four arrive.
        assert_eq!(compare(&[&[1, 7, 7, 7, 7, 7, 2]], &[&[1, 7, 7, 7, 7, 2]])[2], 1);
        // A rewind into the still scene.
        assert_eq!(compare(&[&[1, 7, 7, 7, 7, 7, 2, 3]], &[&[1, 7, 7, 7], &[7, 7, 7, 2, 3]])[..4], [8, 9, 0, 1]);
        // The same clip twice, of which the first half of the second run is missing.
        assert!(compare(&[&[1, 2, 3, 4], &[1, 2, 3, 4]], &[&[1, 2, 3, 4], &[3, 4]])[2] >= 2);
    }

    #[test]
    fn an_unwritten_unit_of_a_killed_sender_counts_as_sent_and_received() {
        assert_eq!(compare(&[&[1, 2, 3], &[5, 6]], &[&[1, 2, 3, 4, 5, 6]]), [6, 6, 0, 0, 0]);
        // In display order it may stand before pictures that were written.
        assert_eq!(compare(&[&[1, 2, 3], &[5, 6]], &[&[1, 2, 4, 3, 5, 6]]), [6, 6, 0, 0, 0]);
        assert_eq!(compare(&[&[1, 2, 3], &[5, 6]], &[&[1, 2, 3, 4, 5], &[2, 3, 4, 5, 6]]), [6, 10, 0, 4, 0]);
        // Only one for each run of the sender.
        assert_eq!(compare(&[&[1, 2, 3], &[5, 6]], &[&[1, 2, 3, 4, 9, 5, 6]])[4], 1);
    }

    #[test]
    fn a_picture_that_was_never_sent_is_damaged() {
        assert_eq!(compare(&[&[1, 2, 3, 4]], &[&[1, 2], &[9, 2, 3, 4]]), [4, 5, 0, 1, 1]);
    }
}
