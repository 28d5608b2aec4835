//! Reading beside the writer.

use super::*;

fn reader(path: &Path, stream: Option<&str>) -> Result<StreamReader, StoreError> {
    StreamReader::open(path, stream, &ReaderOptions::default())
}

/// Everything that a reader hands out, as sequence and payload.
pub fn all(reader: &StreamReader) -> Vec<(Sequence, Vec<u8>)> {
    let mut records = Vec::new();
    let mut at = reader.first();
    loop {
        let chunk = reader.read(at, 50, 1 << 20).unwrap();
        assert_eq!((chunk.damaged, chunk.unreadable), (vec![], vec![]));
        records.extend(chunk.records.into_iter().map(|r| (r.sequence, r.payload.as_ref().to_vec())));
        match chunk.next {
            Some(next) => at = next,
            None => return records,
        }
    }
}

#[test]
fn records_that_are_missing_are_told_from_numbers_that_were_never_given() {
    use super::super::holes::Holes;
    use super::super::playback::missing_from;
    let temp = tempfile::tempdir().unwrap();
    let stream = open(temp.path());
    (0..10).for_each(|i| _ = append(&stream, buffer(Sync::Closed), &[i]));
    let chunk = || stream.read(1, 50, 1 << 20).unwrap();
    let holes = Holes::default();
    assert_eq!(chunk().records.len(), 10);
    assert_eq!(missing_from(&chunk(), 1, &holes), None);
    let mut lacking = chunk();
    lacking.records.drain(3..6);
    assert_eq!(missing_from(&lacking, 1, &holes), Some(4));
    let mut lacking = chunk();
    lacking.records.drain(..2);
    assert_eq!(missing_from(&lacking, 1, &holes), Some(1), "before the first of them too");
    // The writer was killed after the fourth.
    let mut restarted = chunk();
    restarted.records.iter_mut().skip(4).for_each(|record| record.sequence += schema::UNCLEAN_GAP);
    assert_eq!(missing_from(&restarted, 1, &holes), None);
}

#[test]
fn a_reader_in_the_same_process_sees_what_is_appended_and_takes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let stream = open(temp.path());
    append(&stream, buffer(Sync::Closed), b"one");
    let (a, b) = (reader(temp.path(), None).unwrap(), reader(temp.path(), Some("default")).unwrap());
    assert!(a.is_shared() && b.is_shared());
    append(&stream, buffer(Sync::None), b"two");
    for reader in [&a, &b] {
        assert_eq!(all(reader), [(1, b"one".to_vec()), (2, b"two".to_vec())]);
        assert_eq!(reader.sync_at_or_before(9).unwrap().map(|point| point.sequence), Some(1));
    }
    drop(stream);
    assert_eq!(all(&a).len(), 2, "after the writer closed");
    assert!(!a.is_shared());
    let stream = open(temp.path());
    append(&stream, buffer(Sync::None), b"three");
    for reader in [&a, &b] {
        reader.refresh().unwrap();
        assert!(reader.is_shared());
        assert_eq!(all(reader).len(), 3);
    }
}

#[test]
fn a_consumer_goes_on_where_it_stood() {
    let temp = tempfile::tempdir().unwrap();
    let stream = open(temp.path());
    append(&stream, buffer(Sync::Closed), b"one");
    append(&stream, buffer(Sync::Closed), b"two");
    let reader = reader(temp.path(), None).unwrap();
    let consumer = reader.consumer("a/b", Duration::from_secs(60)).unwrap();
    assert_eq!(consumer.position(), None);
    assert!(matches!(reader.consumer("a/b", Duration::ZERO), Err(StoreError::ConsumerInUse { .. })));
    let mut cursor = reader.cursor_at(1).unwrap();
    for record in reader.read(1, 1, 1).unwrap().records {
        let before = Mark { sequence: record.sequence, totals: record.before };
        assert!(matches!(cursor.pass(before, record.after()), Pass::New { lost: Totals { buffers: 0, .. } }));
    }
    consumer.advance(cursor);
    drop(consumer);
    let consumer = reader.consumer("a/b", Duration::from_secs(60)).unwrap();
    assert_eq!(consumer.position(), Some(cursor));
    consumer.forget().unwrap();
    assert_eq!(reader.consumer("a/b", Duration::ZERO).unwrap().position(), None);
}
