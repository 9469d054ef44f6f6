//! From a handle back to the version that it was leased for.

use super::arena::Arena;
use super::epoch::EpochSource;
use super::{Handle, HandleError, HandleTable, LeaseRef, SpillFile};

impl<E: EpochSource, S: SpillFile> HandleTable<E, S> {
    /// What a handle stands for, or `None` if its lease has ended or it never
    /// was this backend's. Places are never leased twice and no two live
    /// arenas share one, so the first arena that has the handle is right.
    pub fn resolve(&mut self, handle: Handle) -> Result<Option<LeaseRef<'_>>, HandleError> {
        let scopes = self.scopes.iter().flatten().map(|scope| &scope.arena);
        let arenas = [&self.retained, &self.canonical].into_iter().chain(scopes);
        for arena in arenas {
            if let Some(entry) = Arena::find(arena, handle) {
                return arena
                    .entry(entry, &mut self.cache, &mut self.file)
                    .map(Some);
            }
        }
        Ok(self.ring.resolve(handle))
    }
}
