//! Records written whole, with their fields in the order in which the code gives them.

use crate::text::one_line;
use slog::{BorrowedKV, Drain, KV, Key, OwnedKVList, Record, RecordStatic, Serializer, Value, o};
use std::io::{self, Write};

/// Collects a record and writes it when it is whole. One that cannot be written is forgotten: were its rest kept, as a
/// `BufWriter` does, it would run into the next.
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

/// Passes records on with their fields in the order written, the logger's own first. slog keeps them the other way
/// round, `slog_json` leaves them so, and `slog_term`'s own remedy panics when a write fails.
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

/// Numbers and booleans stay what they are; all else becomes text.
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
