//! The order of keys, told to the engine.

use std::cmp::Ordering;
use std::mem::MaybeUninit;
use std::ptr;

use engine::compare::{Bytewise, Compare};
use pgrx::pg_sys;
use rowref::key::{Bound, CompareColumn, KeyLayout};

use super::deform::load;
use super::layout::Context;
use super::{KeyColumnSpec, Organization};

/// How keys of one organization compare, and the codec for them.
pub struct KeyOrder {
    organization: Organization,
    /// `None` for row ids, whose keys compare as bytes.
    layout: Option<KeyLayout>,
    /// For each comparator column its comparison function, looked up once.
    functions: Box<[*mut pg_sys::FmgrInfo]>,
    /// Holds `functions` and what they cache.
    _memory: Option<Context>,
}

impl KeyOrder {
    /// Looks the comparison functions up.
    pub fn new(organization: Organization) -> KeyOrder {
        let layout = organization.key_layout();
        let mut memory = None;
        let functions = organization
            .columns()
            .iter()
            .map(|column| {
                if column.form.is_ordered() {
                    return ptr::null_mut();
                }
                let memory = memory.get_or_insert_with(Context::new).as_ptr();
                // SAFETY: the allocation is as large as the structure, which
                // the look-up fills; an unknown function is an ERROR.
                unsafe {
                    let function = pg_sys::MemoryContextAllocZero(
                        memory,
                        std::mem::size_of::<pg_sys::FmgrInfo>(),
                    )
                    .cast::<pg_sys::FmgrInfo>();
                    pg_sys::fmgr_info_cxt(column.compare_proc.into(), function, memory);
                    function
                }
            })
            .collect();
        KeyOrder {
            organization,
            layout,
            functions,
            _memory: memory,
        }
    }

    /// What the keys are made of.
    pub fn organization(&self) -> &Organization {
        &self.organization
    }

    /// The key columns; none for row ids.
    pub fn columns(&self) -> &[KeyColumnSpec] {
        self.organization.columns()
    }

    /// The codec; `None` for row ids.
    pub fn layout(&self) -> Option<&KeyLayout> {
        self.layout.as_ref()
    }
}

impl CompareColumn for KeyOrder {
    fn compare(&self, column: usize, left: &[u8], right: &[u8]) -> Ordering {
        let shape = &self.columns()[column];
        let (mut left_copy, mut right_copy) = (Aligned::new(), Aligned::new());
        // SAFETY: both are whole datums of the column's type, as the codec has
        // delimited them; the function takes two of its type and returns an
        // int4. The guarded call turns an ERROR into an unwinding panic, so
        // that page guards on the way are released.
        let result = unsafe {
            pg_sys::FunctionCall2Coll(
                self.functions[column],
                shape.collation.into(),
                left_copy.datum(shape, left),
                right_copy.datum(shape, right),
            )
        };
        (result.value() as i32).cmp(&0)
    }
}

/// Room for a datum that does not lie aligned in its key. Those that are stored
/// are far smaller than a page; one that is searched for may be longer.
struct Aligned {
    room: MaybeUninit<[u64; 1024]>,
    larger: Vec<u64>,
}

impl Aligned {
    fn new() -> Aligned {
        Aligned {
            room: MaybeUninit::uninit(),
            larger: Vec::new(),
        }
    }

    /// The datum that these bytes of a key are.
    fn datum(&mut self, shape: &KeyColumnSpec, bytes: &[u8]) -> pg_sys::Datum {
        if shape.by_value {
            assert_eq!(bytes.len(), shape.length as usize);
            // SAFETY: just as many bytes are there.
            return unsafe { load(bytes.as_ptr(), shape.length) };
        }
        // A one-byte header frees a varlena from alignment.
        let short = shape.length == -1 && bytes.first().is_some_and(|first| first & 1 == 1);
        if short || (bytes.as_ptr() as usize).is_multiple_of(usize::from(shape.align)) {
            return bytes.as_ptr().into();
        }
        let room = if bytes.len() <= size_of_val(&self.room) {
            self.room.as_mut_ptr().cast::<u8>()
        } else {
            self.larger.resize(bytes.len().div_ceil(8), 0);
            self.larger.as_mut_ptr().cast()
        };
        // SAFETY: it fits the one, and the other was made for it.
        unsafe { room.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        room.into()
    }
}

impl Compare for KeyOrder {
    fn ordered(&self) -> bool {
        self.layout.as_ref().is_none_or(KeyLayout::is_ordered)
    }

    #[inline]
    fn compare(&self, left: &[u8], right: &[u8]) -> Ordering {
        match &self.layout {
            Some(layout) => layout.compare(left, right, self),
            None => left.cmp(right),
        }
    }

    fn compare_bound(&self, key: &[u8], bound: &[u8], after: bool) -> Ordering {
        let Some(layout) = self.layout.as_ref().filter(|layout| !layout.is_ordered()) else {
            return Bytewise.compare_bound(key, bound, after);
        };
        let ordering = layout.compare(key, bound, self);
        if !after || ordering.is_lt() {
            return ordering;
        }
        if ordering.is_eq() {
            return Ordering::Less;
        }
        // Behind the bound's bytes, but perhaps only by continuing them.
        layout.compare_bound(key, &Bound::after(bound.to_vec()), self)
    }

    fn separator(&self, left: &[u8], right: &[u8], out: &mut Vec<u8>) {
        match &self.layout {
            Some(layout) => layout.separator(left, right, self, out),
            None => Bytewise.separator(left, right, out),
        }
    }
}

impl Compare for super::TableLayout {
    fn ordered(&self) -> bool {
        self.order().ordered()
    }

    #[inline]
    fn compare(&self, left: &[u8], right: &[u8]) -> Ordering {
        Compare::compare(self.order(), left, right)
    }

    fn compare_bound(&self, key: &[u8], bound: &[u8], after: bool) -> Ordering {
        self.order().compare_bound(key, bound, after)
    }

    fn separator(&self, left: &[u8], right: &[u8], out: &mut Vec<u8>) {
        self.order().separator(left, right, out);
    }
}
