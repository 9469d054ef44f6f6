//! Arenas: leases that stay until all of the arena goes.

use std::io;

use super::epoch::{EpochPool, EpochSource, Place};
use super::segment::{Buffers, Segment, image_entry, index_in};
use super::{Handle, HandleError, LeaseRef, OFFSET_MAX, SpillFile};

/// A segment that takes no more leases.
#[derive(Debug)]
struct Sealed {
    first: Place,
    count: u16,
    held: Held,
}

#[derive(Debug)]
enum Held {
    Memory(Buffers),
    File { at: u64, length_bytes: u32 },
}

/// Which segment of an arena, and which entry of it. An *ordinal* is both in
/// one number, for the intern index: a segment has at most 2048 entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    segment: usize,
    index: usize,
}

const INDEX_BITS: u32 = 11;
const _: () = assert!(1 << INDEX_BITS == OFFSET_MAX as u32);

impl Entry {
    /// `None` beyond four billion leases in one arena.
    pub fn ordinal(self) -> Option<u32> {
        let segment = u32::try_from(self.segment).ok()?;
        let high = segment.checked_mul(1 << INDEX_BITS)?;
        Some(high | self.index as u32)
    }

    pub fn from_ordinal(ordinal: u32) -> Entry {
        Entry {
            segment: (ordinal >> INDEX_BITS) as usize,
            index: (ordinal & ((1 << INDEX_BITS) - 1)) as usize,
        }
    }
}

/// The one spilled segment that was read last.
#[derive(Debug, Default)]
pub(super) struct Cache {
    at: Option<u64>,
    image: Vec<u8>,
}

impl Cache {
    /// To be called whenever the file is cut: offsets are used again then.
    pub fn forget(&mut self) {
        *self = Cache::default();
    }

    pub fn footprint_bytes(&self) -> usize {
        self.image.capacity()
    }
}

/// Segments in the order of their places, which only rise; the oldest ones may
/// lie in the spill file.
#[derive(Debug, Default)]
pub(super) struct Arena {
    sealed: Vec<Sealed>,
    open: Option<Segment>,
    /// How many of the sealed segments lie in the file, oldest first.
    spilled: usize,
    /// The end in the file of the last of them.
    pub spilled_end: u64,
    /// The memory of the sealed segments that do not.
    resident_bytes: usize,
}

impl Arena {
    /// Whether [`Arena::advance`] is due before the next lease.
    #[inline]
    pub fn is_full(&self, bytes_max: usize) -> bool {
        match &self.open {
            Some(segment) => segment.is_full(bytes_max),
            None => true,
        }
    }

    /// Seals the open segment, if there is one, and begins the next. Whether
    /// one was sealed, so that there is more that could be spilled.
    #[cold]
    pub fn advance<E: EpochSource>(
        &mut self,
        pool: &mut EpochPool<E>,
        spare: &mut Option<Buffers>,
    ) -> Result<bool, HandleError> {
        let place = match self.open.as_ref().map(Segment::next) {
            Some(next) if next.offset <= OFFSET_MAX => next,
            Some(full) => pool.take(Some(full.epoch))?,
            None => pool.take(None)?,
        };
        let next = Segment::new(place, spare.take().unwrap_or_default());
        let Some(full) = self.open.replace(next) else {
            return Ok(false);
        };
        self.resident_bytes += full.buffers.footprint_bytes();
        self.sealed.push(Sealed {
            first: full.first,
            count: full.count() as u16,
            held: Held::Memory(full.buffers),
        });
        Ok(true)
    }

    /// Leases the next handle; the arena must not be full.
    #[inline]
    pub fn push(&mut self, lease: LeaseRef<'_>) -> Handle {
        let open = self.open.as_mut().expect("a full arena was advanced");
        open.push(lease)
    }

    /// The entry that the next lease will be.
    pub fn next_entry(&self) -> Entry {
        Entry {
            segment: self.sealed.len(),
            index: self.open.as_ref().map_or(0, Segment::count),
        }
    }

    /// Where a handle's lease lies, if this arena has it.
    #[inline]
    pub fn find(&self, handle: Handle) -> Option<Entry> {
        let open = self.open.as_ref()?;
        if let Some(index) = open.index_of(handle) {
            let segment = self.sealed.len();
            return Some(Entry { segment, index });
        }
        let after = self.sealed.partition_point(|sealed| {
            (sealed.first.epoch, sealed.first.offset) <= (handle.epoch, handle.offset)
        });
        let segment = after.checked_sub(1)?;
        let sealed = &self.sealed[segment];
        let index = index_in(sealed.first, sealed.count.into(), handle)?;
        Some(Entry { segment, index })
    }

    /// The handle of an entry.
    pub fn handle(&self, entry: Entry) -> Handle {
        let first = match self.sealed.get(entry.segment) {
            Some(sealed) => sealed.first,
            None => {
                self.open
                    .as_ref()
                    .expect("an entry's segment is there")
                    .first
            }
        };
        Handle {
            epoch: first.epoch,
            offset: first.offset + entry.index as u16,
        }
    }

    /// The lease of an entry, read back from the file if it lies there.
    #[inline]
    pub fn entry<'a, S: SpillFile>(
        &'a self,
        entry: Entry,
        cache: &'a mut Cache,
        file: &mut S,
    ) -> Result<LeaseRef<'a>, HandleError> {
        let Some(sealed) = self.sealed.get(entry.segment) else {
            let open = self.open.as_ref().expect("an entry's segment is there");
            return Ok(open.buffers.entry(entry.index));
        };
        let (at, length_bytes) = match &sealed.held {
            Held::Memory(buffers) => return Ok(buffers.entry(entry.index)),
            Held::File { at, length_bytes } => (*at, *length_bytes as usize),
        };
        if cache.at != Some(at) {
            cache.forget();
            cache.image = file.read(at, length_bytes)?;
            if cache.image.len() != length_bytes {
                return Err(HandleError::SpillDamaged { at });
            }
            cache.at = Some(at);
        }
        image_entry(&cache.image, sealed.count.into(), entry.index)
            .ok_or(HandleError::SpillDamaged { at })
    }

    /// Writes the oldest segment in memory to the file. Returns its buffers
    /// for further use, or `None` if there is none to write. On an error the
    /// segment stays where it was.
    pub fn spill_oldest<S: SpillFile>(
        &mut self,
        file: &mut S,
        image: &mut Vec<u8>,
    ) -> io::Result<Option<Buffers>> {
        let Some(sealed) = self.sealed.get_mut(self.spilled) else {
            return Ok(None);
        };
        let Held::Memory(buffers) = &mut sealed.held else {
            unreachable!("segments are spilled oldest first");
        };
        buffers.write_image(image);
        let at = file.write(image)?;
        let mut buffers = std::mem::take(buffers);
        self.resident_bytes -= buffers.footprint_bytes();
        sealed.held = Held::File {
            at,
            length_bytes: image.len() as u32,
        };
        self.spilled += 1;
        self.spilled_end = at + image.len() as u64;
        buffers.clear();
        Ok(Some(buffers))
    }

    /// The memory of the segments that could be spilled.
    pub fn resident_bytes(&self) -> usize {
        self.resident_bytes
    }

    /// All memory held.
    pub fn footprint_bytes(&self) -> usize {
        let open = self.open.as_ref();
        self.resident_bytes
            + self.sealed.capacity() * size_of::<Sealed>()
            + open.map_or(0, |open| open.buffers.footprint_bytes())
    }

    /// Forgets all leases, returns the rest of the epoch, and keeps the open
    /// segment's buffers for whoever comes next.
    pub fn clear<E: EpochSource>(&mut self, pool: &mut EpochPool<E>, spare: &mut Option<Buffers>) {
        if let Some(open) = std::mem::take(self).open {
            pool.give_back(open.next());
            let mut buffers = open.buffers;
            buffers.clear();
            *spare = Some(buffers);
        }
    }
}
