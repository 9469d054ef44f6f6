//! The table of a backend's handles: who gets which, and when they end.

use std::io;

use super::arena::{Arena, Cache, Entry};
use super::epoch::{EpochPool, EpochSource};
use super::intern::{InternIndex, identity_hash};
use super::ring::Ring;
use super::segment::Buffers;
use super::{Handle, HandleError, LeaseRef, SpillFile};

/// How many leases a ring keeps unless told otherwise.
pub const RING_CAPACITY: usize = 2048;

/// The fewest leases a ring keeps: core comes back for the rows of a batch
/// that it inserted at once, and its largest batch is this.
pub const RING_CAPACITY_MIN: usize = 1000;

/// Segments are spilled whole; larger ones would be slow to read back.
const SEGMENT_BYTES_MAX: usize = 256 * 1024;
/// Smaller ones would make the directory larger than the leases.
const SEGMENT_BYTES_MIN: usize = 512;

/// How long a lease lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseMode {
    /// Until so many newer ring leases were made; see [`RING_CAPACITY`].
    Ring,
    /// Until the transaction ends. The same version may get several handles.
    Retained,
    /// Until the transaction ends, and the same version always gets the same
    /// handle.
    Canonical,
    /// Until the scope is closed, or the transaction ends.
    Scoped(ScopeId),
}

/// An executor run, whose row-mark leases end with it. Runs of cursors overlap
/// in any order, so scopes are no stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ScopeId {
    slot: u32,
    /// Tells this use of the slot from earlier ones.
    serial: u64,
}

#[derive(Debug)]
pub(super) struct Scope {
    serial: u64,
    pub arena: Arena,
}

/// A backend's handles.
#[derive(Debug)]
pub struct HandleTable<E, S> {
    pool: EpochPool<E>,
    pub(super) file: S,
    memory_limit_bytes: usize,
    pub(super) ring: Ring,
    pub(super) retained: Arena,
    pub(super) canonical: Arena,
    interned: InternIndex,
    pub(super) scopes: Vec<Option<Scope>>,
    /// Places in `scopes` that are empty.
    free_scopes: Vec<u32>,
    scopes_opened: u64,
    pub(super) cache: Cache,
    /// Buffers of a segment that went, for the next one.
    spare: Option<Buffers>,
    image: Vec<u8>,
    /// Whether the file holds anything.
    spilled: bool,
}

impl<E: EpochSource, S: SpillFile> HandleTable<E, S> {
    /// An empty table that spills beyond `memory_limit_bytes`.
    pub fn new(source: E, file: S, memory_limit_bytes: usize) -> Self {
        HandleTable {
            pool: EpochPool::new(source),
            file,
            memory_limit_bytes,
            ring: Ring::new(RING_CAPACITY),
            retained: Arena::default(),
            canonical: Arena::default(),
            interned: InternIndex::default(),
            scopes: Vec::new(),
            free_scopes: Vec::new(),
            scopes_opened: 0,
            cache: Cache::default(),
            spare: None,
            image: Vec::new(),
            spilled: false,
        }
    }

    /// Changes how much memory retained leases may take, from the next segment
    /// on.
    pub fn set_memory_limit(&mut self, memory_limit_bytes: usize) {
        self.memory_limit_bytes = memory_limit_bytes;
    }

    /// Changes how many ring leases are kept; never fewer than
    /// [`RING_CAPACITY_MIN`].
    pub fn set_ring_capacity(&mut self, leases: usize) {
        self.ring.capacity = leases.max(RING_CAPACITY_MIN);
    }

    /// Leases a handle for a version of a row.
    ///
    /// On an error there is no lease, and earlier ones stay as they were.
    ///
    /// # Panics
    /// If the mode names a scope that is closed.
    #[inline]
    pub fn lease(&mut self, mode: LeaseMode, lease: LeaseRef<'_>) -> Result<Handle, HandleError> {
        let length_bytes = lease.reference.as_bytes().len();
        if length_bytes > usize::from(u16::MAX) {
            return Err(HandleError::ReferenceTooLong { length_bytes });
        }
        match mode {
            LeaseMode::Ring => self.ring.lease(lease, &mut self.pool),
            LeaseMode::Retained => {
                if self.retained.is_full(self.segment_bytes_max())
                    && self.retained.advance(&mut self.pool, &mut self.spare)?
                {
                    self.spill_excess()?;
                }
                Ok(self.retained.push(lease))
            }
            LeaseMode::Scoped(scope) => {
                let bytes_max = self.segment_bytes_max();
                let arena = scope_arena(&mut self.scopes, scope);
                if arena.is_full(bytes_max) && arena.advance(&mut self.pool, &mut self.spare)? {
                    self.spill_excess()?;
                }
                Ok(scope_arena(&mut self.scopes, scope).push(lease))
            }
            LeaseMode::Canonical => self.lease_canonical(lease),
        }
    }

    fn lease_canonical(&mut self, lease: LeaseRef<'_>) -> Result<Handle, HandleError> {
        let hash = identity_hash(lease);
        let (arena, cache, file) = (&self.canonical, &mut self.cache, &mut self.file);
        let known = self.interned.find(hash, |ordinal| {
            let entry = Entry::from_ordinal(ordinal);
            let known = arena.entry(entry, cache, file)?;
            Ok::<_, HandleError>(known.is_same_version(lease))
        })?;
        if let Some(ordinal) = known {
            return Ok(self.canonical.handle(Entry::from_ordinal(ordinal)));
        }
        if self.canonical.is_full(self.segment_bytes_max())
            && self.canonical.advance(&mut self.pool, &mut self.spare)?
        {
            self.spill_excess()?;
        }
        // Beyond four billion leases in one transaction the ordinals end.
        let ordinal = self
            .canonical
            .next_entry()
            .ordinal()
            .ok_or(HandleError::EpochsExhausted)?;
        self.interned.insert(hash, ordinal);
        Ok(self.canonical.push(lease))
    }

    /// Opens a scope, for the row-mark leases of one executor run.
    pub fn open_scope(&mut self) -> ScopeId {
        self.scopes_opened += 1;
        let serial = self.scopes_opened;
        let scope = Some(Scope {
            serial,
            arena: Arena::default(),
        });
        let slot = match self.free_scopes.pop() {
            Some(free) => {
                self.scopes[free as usize] = scope;
                free
            }
            None => {
                self.scopes.push(scope);
                (self.scopes.len() - 1) as u32
            }
        };
        ScopeId { slot, serial }
    }

    /// Ends a scope and its leases. A scope that [`HandleTable::clear`] has
    /// ended already may be closed, to no effect. An error says that the file
    /// could not be shortened; the scope is closed all the same.
    pub fn close_scope(&mut self, scope: ScopeId) -> io::Result<()> {
        let Some(place) = self.scopes.get_mut(scope.slot as usize) else {
            return Ok(());
        };
        let Some(mut closed) = place.take_if(|open| open.serial == scope.serial) else {
            return Ok(());
        };
        self.free_scopes.push(scope.slot);
        let closed_end = closed.arena.spilled_end;
        closed.arena.clear(&mut self.pool, &mut self.spare);
        self.drop_large_spare();
        if closed_end == 0 {
            return Ok(());
        }
        let scopes = self.scopes.iter().flatten().map(|scope| &scope.arena);
        let live_end = scopes
            .chain([&self.retained, &self.canonical])
            .map(|arena| arena.spilled_end)
            .max()
            .unwrap_or(0);
        if live_end < closed_end {
            self.cache.forget();
            self.spilled = live_end > 0;
            self.file.truncate(live_end)?;
        }
        Ok(())
    }

    /// Ends all leases and scopes: the transaction is over. Everything is
    /// forgotten even if emptying the file fails.
    pub fn clear(&mut self) -> io::Result<()> {
        self.ring.clear(&mut self.pool);
        self.retained.clear(&mut self.pool, &mut self.spare);
        self.canonical.clear(&mut self.pool, &mut self.spare);
        for mut scope in self.scopes.drain(..).flatten() {
            scope.arena.clear(&mut self.pool, &mut self.spare);
        }
        self.free_scopes.clear();
        self.interned = InternIndex::default();
        self.cache.forget();
        self.image = Vec::new();
        self.drop_large_spare();
        if std::mem::take(&mut self.spilled) {
            self.file.truncate(0)?;
        }
        Ok(())
    }

    /// How many scopes are open.
    pub fn open_scopes(&self) -> usize {
        self.scopes.len() - self.free_scopes.len()
    }

    /// The memory held by the table, in bytes.
    pub fn footprint_bytes(&self) -> usize {
        let scopes = self.scopes.iter().flatten().map(|scope| &scope.arena);
        scopes
            .chain([&self.retained, &self.canonical])
            .map(Arena::footprint_bytes)
            .sum::<usize>()
            + self.ring.footprint_bytes()
            + self.interned.footprint_bytes()
            + self.cache.footprint_bytes()
            + self.image.capacity()
            + self.spare.as_ref().map_or(0, Buffers::footprint_bytes)
    }

    /// The size at which a segment is sealed: so small that several fit the
    /// memory limit.
    #[inline]
    fn segment_bytes_max(&self) -> usize {
        (self.memory_limit_bytes / 8).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)
    }

    /// Spills until the sealed segments in memory keep to the limit, less what
    /// the intern index takes. If that fails, the next segment tries again.
    #[cold]
    fn spill_excess(&mut self) -> io::Result<()> {
        let limit = self
            .memory_limit_bytes
            .saturating_sub(self.interned.footprint_bytes());
        let scopes = self.scopes.iter_mut().flatten();
        let mut arenas: Vec<&mut Arena> = scopes.map(|scope| &mut scope.arena).collect();
        arenas.extend([&mut self.retained, &mut self.canonical]);
        let mut resident: usize = arenas.iter().map(|arena| arena.resident_bytes()).sum();
        for arena in arenas {
            while resident > limit {
                self.spilled = true;
                let before = arena.resident_bytes();
                let Some(buffers) = arena.spill_oldest(&mut self.file, &mut self.image)? else {
                    break;
                };
                self.spare = Some(buffers);
                resident -= before - arena.resident_bytes();
            }
        }
        Ok(())
    }

    /// A spare is worth keeping from one small transaction to the next, not a
    /// megabyte in every idle backend.
    fn drop_large_spare(&mut self) {
        self.spare
            .take_if(|spare| spare.footprint_bytes() > 64 * 1024);
    }
}

#[inline]
fn scope_arena(scopes: &mut [Option<Scope>], scope: ScopeId) -> &mut Arena {
    match scopes.get_mut(scope.slot as usize) {
        Some(Some(open)) if open.serial == scope.serial => &mut open.arena,
        _ => panic!("the scope of a row-mark lease is open"),
    }
}
