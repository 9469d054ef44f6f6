//! A set of references on its way from an index scan: kept in memory and sorted
//! there, or beyond its share of `work_mem` by the server's own external sort.

use std::ffi::c_int;

use pgrx::pg_sys;

use super::stream::Ordered;

/// `<` of `bytea`, the order of bytes.
const BYTEA_LESS: u32 = 1957;

/// What one reference costs in memory beyond its bytes.
const SPAN_BYTES: usize = size_of::<(u32, u32)>();

/// References as they come.
pub struct Gathering {
    arena: Vec<u8>,
    spans: Vec<(u32, u32)>,
    limit_bytes: usize,
    spilled: Option<Sort>,
}

impl Gathering {
    /// Begins a set that keeps so much in memory.
    pub fn new(limit_bytes: usize) -> Gathering {
        Gathering {
            arena: Vec::new(),
            spans: Vec::new(),
            // Spans count in 32 bits.
            limit_bytes: limit_bytes.clamp(64 << 10, 1 << 31),
            spilled: None,
        }
    }

    /// Adds a reference; it may be there already.
    ///
    /// # Safety
    /// The current memory context lives as long as the set.
    pub unsafe fn add(&mut self, reference: &[u8]) {
        if let Some(sort) = &mut self.spilled {
            // SAFETY: the caller's promise.
            return unsafe { sort.put(reference) };
        }
        let start = self.arena.len() as u32;
        self.arena.extend_from_slice(reference);
        self.spans.push((start, self.arena.len() as u32));
        if self.arena.len() + self.spans.len() * SPAN_BYTES > self.limit_bytes {
            // SAFETY: the caller's promise.
            unsafe { self.spill() };
        }
    }

    unsafe fn spill(&mut self) {
        // SAFETY: by the caller of `add`.
        unsafe {
            let mut sort = Sort::begin((self.limit_bytes >> 10) as c_int);
            for &(start, end) in &self.spans {
                sort.put(&self.arena[start as usize..end as usize]);
            }
            self.spilled = Some(sort);
        }
        self.arena = Vec::new();
        self.spans = Vec::new();
    }

    /// Sorts it. Returns whether it went to the server's sort, which writes to
    /// disk what does not fit.
    ///
    /// # Safety
    /// As [`Gathering::add`].
    pub unsafe fn finish(mut self) -> (Gathered, bool) {
        if let Some(mut sort) = self.spilled {
            // SAFETY: by the caller.
            unsafe { sort.perform() };
            return (Gathered::Spilled(sort), true);
        }
        let arena = self.arena;
        let bytes = |&(start, end): &(u32, u32)| &arena[start as usize..end as usize];
        // What comes by an index on the key is in order already.
        if !self
            .spans
            .is_sorted_by(|one, other| bytes(one) < bytes(other))
        {
            self.spans
                .sort_unstable_by(|one, other| bytes(one).cmp(bytes(other)));
            self.spans.dedup_by(|one, other| bytes(one) == bytes(other));
        }
        let gathered = Gathered::Memory {
            spans: self.spans,
            arena,
            at: 0,
        };
        (gathered, false)
    }
}

/// A sorted set, being read.
pub enum Gathered {
    /// In memory.
    Memory {
        /// The references.
        arena: Vec<u8>,
        /// Where they are, in order, each once.
        spans: Vec<(u32, u32)>,
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
            Gathered::Memory { arena, spans, at } => {
                let &(start, end) = spans.get(*at)?;
                Some(&arena[start as usize..end as usize])
            }
            Gathered::Spilled(sort) => sort.head(),
        }
    }

    #[inline]
    fn advance(&mut self) {
        match self {
            Gathered::Memory { at, .. } => *at += 1,
            // SAFETY: the set is read while its memory context lives.
            Gathered::Spilled(sort) => unsafe { sort.advance() },
        }
    }
}

/// The server's external sort of byte strings.
pub struct Sort {
    state: *mut pg_sys::Tuplesortstate,
    /// A varlena that is put in.
    scratch: Vec<u32>,
    /// The varlena that it stands on, palloc'ed; null behind the last one.
    current: *mut u32,
}

/// Bytes of a varlena's long header; the length is in the upper 30 bits.
const HEADER_BYTES: usize = 4;

impl Sort {
    unsafe fn begin(work_kilobytes: c_int) -> Sort {
        // SAFETY: type and operator belong together.
        let state = unsafe {
            pg_sys::tuplesort_begin_datum(
                pg_sys::BYTEAOID,
                BYTEA_LESS.into(),
                pg_sys::InvalidOid,
                false,
                work_kilobytes,
                std::ptr::null_mut(),
                0,
            )
        };
        Sort {
            state,
            scratch: Vec::new(),
            current: std::ptr::null_mut(),
        }
    }

    unsafe fn put(&mut self, bytes: &[u8]) {
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

    unsafe fn perform(&mut self) {
        // SAFETY: the sort is live; the first element is fetched.
        unsafe {
            pg_sys::tuplesort_performsort(self.state);
            self.current = self.next();
        }
    }

    /// The next element, the same one again or not.
    unsafe fn next(&mut self) -> *mut u32 {
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
        if found {
            datum.cast_mut_ptr()
        } else {
            std::ptr::null_mut()
        }
    }

    #[inline]
    fn head(&self) -> Option<&[u8]> {
        // SAFETY: a varlena that `put` has laid out, copied by the sort.
        unsafe { (!self.current.is_null()).then(|| contents(self.current)) }
    }

    unsafe fn advance(&mut self) {
        let before = self.current;
        if before.is_null() {
            return;
        }
        // SAFETY: both are the sort's copies, given up one by one.
        unsafe {
            loop {
                let next = self.next();
                let is_same = !next.is_null() && contents(next) == contents(before);
                if !is_same {
                    self.current = next;
                    break;
                }
                pg_sys::pfree(next.cast());
            }
            pg_sys::pfree(before.cast());
        }
    }

    unsafe fn end(self) {
        // SAFETY: used no more.
        unsafe {
            if !self.current.is_null() {
                pg_sys::pfree(self.current.cast());
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
