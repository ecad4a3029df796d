//! HDR histogram interval logs (version 1.3 of the format, as HistogramLogAnalyzer and its kin read
//! them): written interval by interval while a run goes on, so that a long run holds nothing; read
//! back for `plot`.

use crate::run::measure::empty;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, IntervalLogWriterBuilder, LogEntry, Tag};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

pub struct Writer {
    file: BufWriter<File>,
    start: SystemTime,
    has_head: bool,
    serializer: V2DeflateSerializer,
}

impl Writer {
    /// Times of intervals count from `start` on.
    pub fn create(path: &Path, start: SystemTime) -> io::Result<Writer> {
        let (file, serializer) = (BufWriter::new(File::create(path)?), V2DeflateSerializer::new());
        Ok(Writer { file, start, has_head: false, serializer })
    }

    /// One histogram of one interval.
    pub fn interval(
        &mut self,
        tag: &str,
        (at, len): (Duration, Duration),
        histogram: &Histogram<u64>,
    ) -> io::Result<()> {
        let (mut lines, mut builder) = (Vec::new(), IntervalLogWriterBuilder::new());
        builder.add_comment("[Logged by framegate-loadtest; values in microseconds]");
        builder.with_start_time(self.start).with_base_time(self.start);
        let mut log = builder.begin_log_with(&mut lines, &mut self.serializer)?;
        // Characters that the format does not allow in a tag are replaced.
        let tag = tag.replace([',', '\n', '\r', ' '], "_");
        let written = log.write_histogram(histogram, at, len, Tag::new(&tag));
        drop(log);
        written.map_err(|e| io::Error::other(format!("{e:?}")))?;
        // The library begins a log with each call; a file has one beginning.
        let head_len = match self.has_head {
            true => {
                lines.split_inclusive(|byte| *byte == b'\n').take_while(|line| !is_entry(line)).map(<[u8]>::len).sum()
            }
            false => 0,
        };
        self.has_head = true;
        self.file.write_all(lines.get(head_len..).unwrap_or(&[]))
    }

    pub fn finish(mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn is_entry(line: &[u8]) -> bool {
    !line.starts_with(b"#") && !line.starts_with(b"\"")
}

/// All intervals of each tag in one histogram; those without a tag under an empty one.
pub fn read(path: &Path) -> Result<BTreeMap<String, Histogram<u64>>, String> {
    let error = |what: &str| format!("{}: {what}", path.display());
    let bytes = std::fs::read(path).map_err(|e| error(&e.to_string()))?;
    let mut all: BTreeMap<String, Histogram<u64>> = BTreeMap::new();
    for entry in IntervalLogIterator::new(&bytes) {
        let LogEntry::Interval(interval) = entry.map_err(|_| error("not an HDR histogram log"))? else { continue };
        let coded = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, interval.encoded_histogram());
        let coded = coded.map_err(|_| error("one of its histograms is not base64"))?;
        let histogram: Histogram<u64> = Deserializer::new()
            .deserialize(&mut coded.as_slice())
            .map_err(|_| error("one of its histograms cannot be read"))?;
        let tag = interval.tag().map_or_else(String::new, |tag| tag.as_str().to_owned());
        let sum = all.entry(tag).or_insert_with(empty);
        sum.add(&histogram).map_err(|_| error("one of its histograms has values over an hour"))?;
    }
    if all.is_empty() {
        return Err(error("it has no histogram"));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read_back_as_it_was_written() {
        let path = std::env::temp_dir().join(format!("framegate-hlog-{}", std::process::id()));
        let mut writer = Writer::create(&path, SystemTime::now()).unwrap();
        for second in 0..3u64 {
            for (tag, base) in [("round-trip", 100), ("chatty crowd/ping", 5000)] {
                let mut histogram = empty();
                (0..100).for_each(|n| histogram.record(base + n + second).unwrap());
                let at = Duration::from_secs(second);
                writer.interval(tag, (at, Duration::from_secs(1)), &histogram).unwrap();
            }
        }
        writer.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with("Tag=round-trip,")).count(), 3, "{text}");
        assert_eq!(text.matches("StartTime").count(), 1, "{text}");
        let all = read(&path).unwrap();
        assert_eq!(all.keys().collect::<Vec<_>>(), ["chatty_crowd/ping", "round-trip"]);
        assert_eq!((all["round-trip"].len(), all["round-trip"].min()), (300, 100));
        std::fs::write(&path, "Tag=x,1,1,1,@@@\n").unwrap();
        assert!(read(&path).is_err());
        std::fs::write(&path, "#\n").unwrap();
        assert!(read(&path).unwrap_err().contains("no histogram"));
        std::fs::remove_file(&path).unwrap();
        assert!(read(&path).is_err());
    }
}
