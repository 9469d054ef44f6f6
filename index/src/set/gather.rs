//! A set of references on its way from an index scan: kept in memory and sorted
//! there, packed if there are many, or beyond its share of `work_mem` by the
//! server's own external sort.

use std::ffi::c_int;

use engine::mvcc::fetch::Keys;
use pgrx::pg_sys;

use super::pack::{Packed, Unpacking};
use super::radix;
use super::stream::Ordered;

/// `<` of `bytea`, the order of bytes.
const BYTEA_LESS: u32 = 1957;
/// `<` of `int8`.
const INT8_LESS: u32 = 412;

/// References as they come. Where all have the same few bytes they are numbers,
/// which sort several times as fast.
enum References {
    /// Numbers of so many bytes, at most eight; and those of them that were
    /// sorted and packed, for there were many.
    Words(usize, Vec<u64>, Packed),
    /// Where each lies in the arena, with its first eight bytes.
    Bytes(Vec<Span>, Vec<u8>),
}

#[derive(Clone, Copy)]
struct Span {
    head: u64,
    start: u32,
    end: u32,
}

impl Span {
    #[inline]
    fn of(self, arena: &[u8]) -> &[u8] {
        &arena[self.start as usize..self.end as usize]
    }

    #[inline]
    fn cmp(&self, other: &Span, arena: &[u8]) -> std::cmp::Ordering {
        let heads = self.head.cmp(&other.head);
        heads.then_with(|| self.of(arena).cmp(other.of(arena)))
    }
}

/// The first eight bytes as a number, whose order is that of the bytes.
#[inline]
fn head_of(bytes: &[u8]) -> u64 {
    match bytes.first_chunk::<8>() {
        Some(eight) => u64::from_be_bytes(*eight),
        None => word_of(bytes) << (64 - 8 * bytes.len().max(1)),
    }
}

/// At most eight bytes as a number.
#[inline]
fn word_of(bytes: &[u8]) -> u64 {
    // A copy of a length that is known is no call.
    if let Ok(eight) = <[u8; 8]>::try_from(bytes) {
        return u64::from_be_bytes(eight);
    }
    let mut word = [0; 8];
    word[8 - bytes.len()..].copy_from_slice(bytes);
    u64::from_be_bytes(word)
}

/// A set that is being gathered.
pub struct Gathering {
    references: References,
    limit_bytes: usize,
    spilled: Option<Sort>,
}

impl Gathering {
    /// Begins a set that keeps so much in memory; `width` is the bytes of each
    /// reference, if all have as many.
    pub fn new(limit_bytes: usize, width: Option<usize>) -> Gathering {
        Gathering {
            references: match width {
                Some(width) if width <= 8 => {
                    References::Words(width, Vec::new(), Packed::default())
                }
                _ => References::Bytes(Vec::new(), Vec::new()),
            },
            // Spans count in 32 bits.
            limit_bytes: limit_bytes.clamp(64 << 10, 1 << 31),
            spilled: None,
        }
    }

    /// Adds a reference; it may be there already.
    ///
    /// # Safety
    /// The current memory context lives as long as the set.
    #[inline]
    pub unsafe fn add(&mut self, reference: &[u8]) {
        if let Some(sort) = &mut self.spilled {
            // SAFETY: the caller's promise.
            return unsafe { sort.put(reference) };
        }
        let used = match &mut self.references {
            References::Words(width, words, packed) => {
                assert_eq!(reference.len(), *width, "all references have as many bytes");
                words.push(word_of(reference));
                // To sort them takes as much memory again, and to pack them
                // together with what is packed takes that twice.
                if words.len() * size_of::<u64>() < self.limit_bytes / 4 {
                    return;
                }
                pack(words, packed);
                2 * packed.bytes()
            }
            References::Bytes(spans, arena) => {
                let start = arena.len() as u32;
                arena.extend_from_slice(reference);
                spans.push(Span {
                    head: head_of(reference),
                    start,
                    end: arena.len() as u32,
                });
                arena.len() + spans.len() * size_of::<Span>()
            }
        };
        if used > self.limit_bytes {
            // SAFETY: the caller's promise.
            unsafe { self.spill() };
        }
    }

    #[cold]
    unsafe fn spill(&mut self) {
        let memory = (self.limit_bytes >> 10) as c_int;
        // SAFETY: by the caller of `add`.
        unsafe {
            let sort = match &mut self.references {
                References::Words(width, words, packed) => {
                    let mut sort = Sort::begin(memory, Some(*width));
                    let mut packed = std::mem::take(packed).read();
                    while let Some(word) = packed.current() {
                        sort.put_word(word);
                        packed.advance();
                    }
                    *words = Vec::new();
                    sort
                }
                References::Bytes(spans, arena) => {
                    let mut sort = Sort::begin(memory, None);
                    let arena = std::mem::take(arena);
                    std::mem::take(spans)
                        .into_iter()
                        .for_each(|span| sort.put(span.of(&arena)));
                    sort
                }
            };
            self.spilled = Some(sort);
        }
    }

    /// Sorts it. Returns whether it went to the server's sort, which writes to
    /// disk what does not fit.
    ///
    /// # Safety
    /// As [`Gathering::add`].
    pub unsafe fn finish(self) -> (Gathered, bool) {
        if let Some(mut sort) = self.spilled {
            // SAFETY: by the caller.
            unsafe { sort.perform() };
            return (Gathered::Spilled(sort), true);
        }
        // What comes by an index on the key is in order already, and entries of
        // equal columns are.
        let gathered = match self.references {
            References::Words(width, mut words, mut packed) => {
                if packed.bytes() > 0 {
                    pack(&mut words, &mut packed);
                    Gathered::Packed(Packages::new(packed.read(), width))
                } else {
                    sort(&mut words);
                    Gathered::Words(Words::new(words, width))
                }
            }
            References::Bytes(mut spans, arena) => {
                let less = |one: &Span, other: &Span| one.cmp(other, &arena).is_lt();
                if !spans.is_sorted_by(less) {
                    spans.sort_unstable_by(|one, other| one.cmp(other, &arena));
                    spans.dedup_by(|one, other| one.of(&arena) == other.of(&arena));
                }
                Gathered::Bytes {
                    spans,
                    arena,
                    at: 0,
                }
            }
        };
        (gathered, false)
    }
}

/// Sorts numbers and keeps each once.
fn sort(words: &mut Vec<u64>) {
    if !words.is_sorted_by(|one, other| one < other) {
        radix::sort(words);
        words.dedup();
    }
}

/// Adds numbers to those that are packed.
#[cold]
fn pack(words: &mut Vec<u64>, packed: &mut Packed) {
    sort(words);
    *packed = std::mem::take(packed).with(words);
    words.clear();
}

/// Packed numbers, being read.
pub struct Packages {
    numbers: Unpacking,
    width: usize,
    /// The one that it stands on, as bytes.
    current: [u8; 8],
}

impl Packages {
    fn new(numbers: Unpacking, width: usize) -> Packages {
        let current = numbers.current().unwrap_or(0).to_be_bytes();
        Packages {
            numbers,
            width,
            current,
        }
    }

    #[inline]
    fn advance(&mut self) {
        self.numbers.advance();
        self.current = self.numbers.current().unwrap_or(0).to_be_bytes();
    }
}

/// Sorted numbers, being read.
pub struct Words {
    words: Vec<u64>,
    width: usize,
    at: usize,
    /// The one that it stands on, as bytes.
    current: [u8; 8],
}

impl Words {
    fn new(words: Vec<u64>, width: usize) -> Words {
        let mut words = Words {
            words,
            width,
            at: 0,
            current: [0; 8],
        };
        words.stand_at(0);
        words
    }

    #[inline]
    fn stand_at(&mut self, at: usize) {
        self.at = at;
        if let Some(word) = self.words.get(at) {
            self.current = word.to_be_bytes();
        }
    }

    /// Goes on to the first one that is not less, looking near first.
    fn seek(&mut self, least: u64) {
        let ahead = &self.words[self.at.min(self.words.len())..];
        let mut bound = 1;
        while bound < ahead.len() && ahead[bound] < least {
            bound *= 2;
        }
        let near = &ahead[..ahead.len().min(bound + 1)];
        let skipped = near.partition_point(|word| *word < least);
        self.stand_at(self.at + skipped);
    }
}

/// A sorted set, being read.
pub enum Gathered {
    /// Numbers, in memory.
    Words(Words),
    /// Many numbers, in memory.
    Packed(Packages),
    /// Bytes, in memory.
    Bytes {
        /// The references.
        arena: Vec<u8>,
        /// Where they are, in order, each once.
        #[expect(private_interfaces, reason = "made and read here")]
        spans: Vec<Span>,
        /// How many were read.
        at: usize,
    },
    /// In the server's sort.
    Spilled(Sort),
}

impl Gathered {
    /// Gives up what the server's sort holds. (After an ERROR that goes with
    /// its memory context and resource owner.)
    ///
    /// # Safety
    /// The memory context that it was gathered in is live.
    pub unsafe fn end(self) {
        if let Gathered::Spilled(sort) = self {
            // SAFETY: the caller's promise.
            unsafe { sort.end() };
        }
    }
}

impl Ordered for Gathered {
    #[inline]
    fn head(&self) -> Option<&[u8]> {
        match self {
            Gathered::Words(words) => {
                (words.at < words.words.len()).then(|| &words.current[8 - words.width..])
            }
            Gathered::Packed(packed) => {
                packed.numbers.current()?;
                Some(&packed.current[8 - packed.width..])
            }
            Gathered::Bytes { arena, spans, at } => Some(spans.get(*at)?.of(arena)),
            Gathered::Spilled(sort) => sort.head(),
        }
    }

    #[inline]
    fn advance(&mut self) {
        match self {
            Gathered::Words(words) => words.stand_at(words.at + 1),
            Gathered::Packed(packed) => packed.advance(),
            Gathered::Bytes { at, .. } => *at += 1,
            // SAFETY: the set is read while its memory context lives.
            Gathered::Spilled(sort) => unsafe { sort.advance() },
        }
    }

    fn take(&mut self, count: usize, names: &mut Keys) {
        if let Gathered::Words(words) = self {
            let rest = &words.words[words.at.min(words.words.len())..];
            let taken = count.saturating_sub(names.len()).min(rest.len());
            let shift = 64 - 8 * words.width;
            names.extend_short(rest[..taken].iter().map(|word| word << shift));
            return words.stand_at(words.at + taken);
        }
        while names.len() < count
            && let Some(head) = self.head()
        {
            names.push(head);
            self.advance();
        }
    }

    fn seek(&mut self, least: &[u8]) {
        match self {
            Gathered::Words(words) if least.len() == words.width => words.seek(word_of(least)),
            _ => {
                while self.head().is_some_and(|head| head < least) {
                    self.advance();
                }
            }
        }
    }
}

/// The server's external sort, of byte strings or of numbers.
pub struct Sort {
    state: *mut pg_sys::Tuplesortstate,
    /// The bytes of each, if they are sorted as numbers.
    width: Option<usize>,
    /// A varlena that is put in.
    scratch: Vec<u32>,
    /// What it stands on.
    current: Standing,
}

enum Standing {
    /// A number, as bytes.
    Word([u8; 8]),
    /// A varlena, palloc'ed.
    Varlena(*mut u32),
    /// Behind the last one.
    End,
}

/// Numbers are sorted as signed ones.
const SIGN: u64 = 1 << 63;

/// Bytes of a varlena's long header; the length is in the upper 30 bits.
const HEADER_BYTES: usize = 4;

impl Sort {
    unsafe fn begin(work_kilobytes: c_int, width: Option<usize>) -> Sort {
        let (of, less) = match width {
            Some(_) => (pg_sys::INT8OID, INT8_LESS),
            None => (pg_sys::BYTEAOID, BYTEA_LESS),
        };
        // SAFETY: type and operator belong together.
        let state = unsafe {
            pg_sys::tuplesort_begin_datum(
                of,
                less.into(),
                pg_sys::InvalidOid,
                false,
                work_kilobytes,
                std::ptr::null_mut(),
                0,
            )
        };
        Sort {
            state,
            width,
            scratch: Vec::new(),
            current: Standing::End,
        }
    }

    unsafe fn put(&mut self, bytes: &[u8]) {
        if self.width.is_some() {
            // SAFETY: the caller's promise.
            return unsafe { self.put_word(word_of(bytes)) };
        }
        let size = HEADER_BYTES + bytes.len();
        self.scratch.clear();
        self.scratch.resize(size.div_ceil(HEADER_BYTES), 0);
        self.scratch[0] = (size as u32) << 2;
        let words: &mut [u8] = bytemuck::cast_slice_mut(&mut self.scratch);
        words[HEADER_BYTES..size].copy_from_slice(bytes);
        let datum = pg_sys::Datum::from(self.scratch.as_mut_ptr());
        // SAFETY: a whole varlena, which the sort copies.
        unsafe { pg_sys::tuplesort_putdatum(self.state, datum, false) };
    }

    unsafe fn put_word(&mut self, word: u64) {
        let datum = pg_sys::Datum::from(word ^ SIGN);
        // SAFETY: a value by itself.
        unsafe { pg_sys::tuplesort_putdatum(self.state, datum, false) };
    }

    unsafe fn perform(&mut self) {
        // SAFETY: the sort is live; the first element is fetched.
        unsafe {
            pg_sys::tuplesort_performsort(self.state);
            self.current = self.next();
        }
    }

    /// The next element, the same one again or not.
    unsafe fn next(&mut self) -> Standing {
        let mut datum = pg_sys::Datum::null();
        let mut is_null = false;
        // SAFETY: the sort is live and performed.
        let found = unsafe {
            pg_sys::tuplesort_getdatum(
                self.state,
                true,
                &mut datum,
                &mut is_null,
                std::ptr::null_mut(),
            )
        };
        match self.width {
            _ if !found => Standing::End,
            Some(_) => Standing::Word((datum.value() as u64 ^ SIGN).to_be_bytes()),
            None => Standing::Varlena(datum.cast_mut_ptr()),
        }
    }

    #[inline]
    fn head(&self) -> Option<&[u8]> {
        self.bytes(&self.current)
    }

    #[inline]
    fn bytes<'s>(&self, standing: &'s Standing) -> Option<&'s [u8]> {
        match standing {
            Standing::Word(word) => Some(&word[8 - self.width.unwrap_or(8)..]),
            // SAFETY: a varlena that `put` has laid out, copied by the sort.
            Standing::Varlena(varlena) => Some(unsafe { contents(*varlena) }),
            Standing::End => None,
        }
    }

    unsafe fn advance(&mut self) {
        if matches!(self.current, Standing::End) {
            return;
        }
        // SAFETY: both are the sort's copies, given up one by one.
        unsafe {
            loop {
                let next = self.next();
                let is_same = self.bytes(&next) == self.head();
                let done = if is_same {
                    next
                } else {
                    std::mem::replace(&mut self.current, next)
                };
                if let Standing::Varlena(varlena) = done {
                    pg_sys::pfree(varlena.cast());
                }
                if !is_same {
                    return;
                }
            }
        }
    }

    unsafe fn end(self) {
        // SAFETY: used no more.
        unsafe {
            if let Standing::Varlena(varlena) = self.current {
                pg_sys::pfree(varlena.cast());
            }
            pg_sys::tuplesort_end(self.state);
        }
    }
}

/// # Safety
/// `varlena` has a long header and is whole.
unsafe fn contents<'v>(varlena: *const u32) -> &'v [u8] {
    // SAFETY: the caller's promise.
    unsafe {
        let size = (*varlena >> 2) as usize;
        std::slice::from_raw_parts(varlena.cast::<u8>().add(HEADER_BYTES), size - HEADER_BYTES)
    }
}
