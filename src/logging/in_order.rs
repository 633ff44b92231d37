//! Writes records whole, with their fields in the order in which the code gives them.
//!
//! Relies on slog to give a record's fields in the reverse order, and turns them round.

use crate::text::one_line;
use slog::{BorrowedKV, Drain, KV, Key, OwnedKVList, Record, RecordStatic, Serializer, Value, o};
use std::io::{self, Write};

/// Collects a record and writes it when it is whole. A record that cannot be written is dropped. A `BufWriter` would keep
/// its rest, which would run into the next record.
pub(super) struct Whole<W> {
    pub(super) out: W,
    pub(super) record: Vec<u8>,
}

impl<W: Write> Write for Whole<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.record.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let written = self.out.write_all(&self.record);
        self.record.clear();
        written.and_then(|()| self.out.flush())
    }
}

/// Passes records on with their fields in the order written, the logger's own first. slog keeps them in the reverse order,
/// and `slog_json` leaves them so. `slog_term` has a remedy of its own, which panics when a write fails.
pub(super) struct InOrder<D> {
    pub(super) drain: D,
    /// For a format that does not escape control characters itself.
    pub(super) escape: bool,
}

impl<D: Drain<Ok = (), Err = io::Error>> Drain for InOrder<D> {
    type Ok = ();
    type Err = slog::Error;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> slog::Result {
        let mut fields = Fields { values: Vec::new(), escape: self.escape };
        record.kv().serialize(record, &mut fields)?;
        values.serialize(record, &mut fields)?;
        fields.values.reverse();
        let meta = RecordStatic { location: record.location(), tag: record.tag(), level: record.level() };
        Ok(self.drain.log(&Record::new(&meta, record.msg(), BorrowedKV(&fields)), &o!().into())?)
    }
}

/// The fields of one record.
struct Fields {
    values: Vec<(Key, Box<dyn Value>)>,
    escape: bool,
}

/// Numbers and booleans keep their types; all else becomes text.
macro_rules! keep {
    ($($emit:ident: $kind:ty),*) => {
        $(fn $emit(&mut self, key: Key, value: $kind) -> slog::Result {
            self.values.push((key, Box::new(value)));
            Ok(())
        })*
    };
}

impl Serializer for Fields {
    keep! {
        emit_bool: bool, emit_u8: u8, emit_u16: u16, emit_u32: u32, emit_u64: u64, emit_usize: usize,
        emit_i8: i8, emit_i16: i16, emit_i32: i32, emit_i64: i64, emit_isize: isize, emit_f32: f32, emit_f64: f64
    }

    fn emit_arguments(&mut self, key: Key, value: &std::fmt::Arguments<'_>) -> slog::Result {
        let text = value.to_string();
        self.values.push((key, Box::new(if self.escape { one_line(&text) } else { text })));
        Ok(())
    }
}

impl KV for Fields {
    fn serialize(&self, record: &Record<'_>, serializer: &mut dyn Serializer) -> slog::Result {
        self.values.iter().try_for_each(|(key, value)| value.serialize(record, key, serializer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        logging::{
            program::plain,
            status_line::StatusLine,
            testing::{logged, settings},
        },
        settings::LogFormat,
    };
    use slog::{info, warn};
    use std::io::{BufRead, BufReader, PipeWriter};

    #[test]
    fn a_compact_record_is_one_line_with_its_fields_in_the_order_written() {
        let text = logged(LogFormat::Compact, |log| {
            let log = log.new(o!("client" => "c", "worker" => 1));
            info!(log, "connection closed"; "peer" => %"127.0.0.1:7", "received" => 12, "reason" => "client");
        });
        let (time, rest) = text.split_at(24);
        assert!(humantime::parse_rfc3339(time).is_ok() && time.ends_with('Z'), "{time}");
        let expected =
            " INFO connection closed, client: c, worker: 1, peer: 127.0.0.1:7, received: 12, reason: client\n";
        assert_eq!(rest, expected);
    }

    #[test]
    fn a_compact_record_stays_one_line_with_any_text_in_its_fields() {
        let text = logged(LogFormat::Auto, |log| info!(log, "a"; "b" => "1\n2\u{1b}[31m", "c" => ?"x"));
        assert!(text.ends_with(" a, b: 1\\n2\\u{1b}[31m, c: \"x\"\n"), "{text}");
    }

    #[test]
    fn a_json_record_is_one_object_with_its_fields_in_the_order_written() {
        let text = logged(LogFormat::Json, |log| {
            let log = log.new(o!("client" => "c", "worker" => 1));
            warn!(log, "echo \"lost\""; "n" => 3_u64, "reason" => "a\nb", "elapsed_s" => 0.5, "late" => true);
        });
        let (time, rest) = text.strip_prefix(r#"{"ts":""#).unwrap().split_at(24);
        assert!(humantime::parse_rfc3339(time).is_ok(), "{time}");
        let expected = r#"","level":"warn","msg":"echo \"lost\"","client":"c","worker":1,"n":3,"reason":"a\nb","elapsed_s":0.5,"late":true}"#;
        assert_eq!(rest, format!("{expected}\n"));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["reason"], "a\nb");
    }

    /// Fails at its second record.
    struct Faulty(PipeWriter, usize);

    impl Write for Faulty {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 += 1;
            if self.1 == 2 { Err(io::ErrorKind::StorageFull.into()) } else { self.0.write(bytes) }
        }

        fn flush(&mut self) -> io::Result<()> {
            self.0.flush()
        }
    }

    #[test]
    fn a_record_that_cannot_be_written_costs_no_other() {
        for format in [LogFormat::Compact, LogFormat::Json] {
            let (reader, writer) = io::pipe().unwrap();
            let (log, guard) = plain(&settings(format), Faulty(writer, 0), &StatusLine::default()).unwrap();
            for n in 1..=3 {
                info!(log, "record"; "n" => n, "m" => n);
            }
            drop((log, guard));
            let lines: Vec<_> = BufReader::new(reader).lines().map(Result::unwrap).collect();
            assert_eq!(lines.len(), 2, "{lines:?}");
            assert!(lines[0].contains('1') && lines[1].trim_end_matches('}').ends_with('3'), "{lines:?}");
        }
    }
}
