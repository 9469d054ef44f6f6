/*
 * What the server offers to C only, as macros or inline functions, and a few
 * sequences of calls that are hot enough to be worth one crossing instead of
 * several.  Nothing here decides anything: see the README of the Rust module
 * that calls it.
 *
 * A function marked "guarded" may raise an ERROR and must be called through
 * pg_guard_ffi_boundary.  The others cannot, or run where an ERROR is a PANIC.
 */
/* For dladdr. */
#define _GNU_SOURCE
#include "postgres.h"

#include <dlfcn.h>

#include "access/bufmask.h"
#include "access/toast_helper.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xloginsert.h"
#include "access/xlogutils.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "replication/decode.h"
#include "replication/snapbuild.h"
#include "storage/buf_internals.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "storage/procarray.h"
#include "storage/smgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/snapshot.h"

/* What toast.rs takes these two for. */
StaticAssertDecl(sizeof(ToastAttrInfo) == 16 &&
				 offsetof(ToastAttrInfo, tai_size) == 8 &&
				 offsetof(ToastAttrInfo, tai_colflags) == 12 &&
				 offsetof(ToastAttrInfo, tai_compression) == 13,
				 "ToastAttrInfo has changed");
StaticAssertDecl(sizeof(ToastTupleContext) == 56 &&
				 offsetof(ToastTupleContext, ttc_oldvalues) == 24 &&
				 offsetof(ToastTupleContext, ttc_flags) == 40 &&
				 offsetof(ToastTupleContext, ttc_attr) == 48 &&
				 TOAST_NEEDS_DELETE_OLD == 0x01 && TOASTCOL_INCOMPRESSIBLE == 0x20,
				 "ToastTupleContext has changed");

/* ---- pages: store/README.md, "Locks" ---- */

/*
 * Buffers that blocks were found in lately, so that they need not be looked up
 * in the server's table, which is large and in nobody's cache.  An entry is a
 * hint: that the buffer holds the block still is verified when it is pinned.
 */
typedef struct Recent
{
	RelFileNode node;
	BlockNumber block;
	Buffer		buffer;
} Recent;

#define RECENTS 64

static Recent recents[RECENTS];

/*
 * By how much the buffers' numbers and the blocks' differed lately: whoever
 * read or made a relation in order has left it so in the buffers, for long
 * stretches.  Where that turned out wrong again and again it is not relied on.
 */
typedef struct Stride
{
	RelFileNode node;
	int64		distance;
	int			doubt;
} Stride;

#define STRIDES 8
#define DOUBT_MAX 8
#define DOUBT_ENOUGH 3

static Stride strides[STRIDES];

static inline Stride *
stride_of(Relation rel)
{
	return &strides[rel->rd_node.relNode % STRIDES];
}

static inline Recent *
recent_of(Relation rel, BlockNumber block)
{
	return &recents[(block + rel->rd_node.relNode * 31) % RECENTS];
}

static inline void
note_distance(Relation rel, int64 distance)
{
	Stride	   *stride = stride_of(rel);

	if (!RelFileNodeEquals(stride->node, rel->rd_node))
	{
		stride->node = rel->rd_node;
		stride->doubt = DOUBT_ENOUGH;
	}
	else if (stride->distance == distance)
		stride->doubt = Max(stride->doubt - 1, 0);
	else
		stride->doubt = Min(stride->doubt + 1, DOUBT_MAX);
	stride->distance = distance;
}

static inline void
remember_buffer(Relation rel, BlockNumber block, Buffer buffer)
{
	Recent	   *recent = recent_of(rel, block);

	recent->node = rel->rd_node;
	recent->block = block;
	recent->buffer = buffer;
	note_distance(rel, (int64) buffer - (int64) block);
}

/* Read without a lock: a look that saves most of the wrong tries. */
static inline bool
seems_to_hold(Buffer buffer, Relation rel, BlockNumber block)
{
	BufferTag	tag;

	INIT_BUFFERTAG(tag, rel->rd_node, MAIN_FORKNUM, block);
	return BUFFERTAGS_EQUAL(tag, GetBufferDescriptor(buffer - 1)->tag);
}

/*
 * Where a block of the main fork may be: where it was found last; or, since
 * relations that were loaded in order mostly lie so in the buffers, right
 * behind the block before it, or right before that, because buffers that a
 * dropped relation has left are given away last to first; or as far from the
 * block looked for last as the blocks are from each other.  InvalidBuffer if
 * none of this seems to be so.
 */
static inline Buffer
recent_buffer_of(Relation rel, BlockNumber block)
{
	Recent	   *recent = recent_of(rel, block);
	Stride	   *stride = stride_of(rel);

	if (recent->block == block && RelFileNodeEquals(recent->node, rel->rd_node))
		return seems_to_hold(recent->buffer, rel, block) ? recent->buffer : InvalidBuffer;
	if (block > 0)
	{
		recent = recent_of(rel, block - 1);
		if (recent->block == block - 1 && BufferIsValid(recent->buffer) &&
			RelFileNodeEquals(recent->node, rel->rd_node))
		{
			if (recent->buffer < NBuffers &&
				seems_to_hold(recent->buffer + 1, rel, block))
				return recent->buffer + 1;
			if (recent->buffer > 1 &&
				seems_to_hold(recent->buffer - 1, rel, block))
				return recent->buffer - 1;
		}
	}
	if (stride->doubt < DOUBT_ENOUGH && RelFileNodeEquals(stride->node, rel->rd_node))
	{
		int64		buffer = (int64) block + stride->distance;

		if (buffer >= 1 && buffer <= NBuffers &&
			seems_to_hold((Buffer) buffer, rel, block))
			return (Buffer) buffer;
	}
	return InvalidBuffer;
}

/*
 * What PinBuffer does and ReadRecentBuffer leaves out: without it whoever seeks
 * a buffer to give away would take the page for one that nobody uses.  Once is
 * enough; a change that comes in between is not fought for.
 */
static inline void
count_use(Buffer buffer, BufferAccessStrategy strategy)
{
	BufferDesc *at = GetBufferDescriptor(buffer - 1);
	uint32		state = pg_atomic_read_u32(&at->state);
	uint32		enough = strategy == NULL ? BM_MAX_USAGE_COUNT : 1;

	if (!(state & BM_LOCKED) && BUF_STATE_GET_USAGECOUNT(state) < enough)
		(void) pg_atomic_compare_exchange_u32(&at->state, &state,
											  state + BUF_USAGECOUNT_ONE);
}

/* Pins a block. */
static Buffer
read_buffer(Relation rel, ForkNumber fork, BlockNumber block,
			BufferAccessStrategy strategy)
{
	bool		shared = fork == MAIN_FORKNUM && !RelationUsesLocalBuffers(rel);
	Buffer		buffer;

	if (shared)
	{
		buffer = recent_buffer_of(rel, block);
		if (buffer != InvalidBuffer &&
			ReadRecentBuffer(rel->rd_node, fork, block, buffer))
		{
			count_use(buffer, strategy);
			pgstat_count_buffer_read(rel);
			pgstat_count_buffer_hit(rel);
			/* ReadRecentBuffer leaves this out too: what VACUUM sleeps for. */
			VacuumPageHit++;
			if (VacuumCostActive)
				VacuumCostBalance += VacuumCostPageHit;
			remember_buffer(rel, block, buffer);
			return buffer;
		}
	}
	buffer = ReadBufferExtended(rel, fork, block, RBM_NORMAL, strategy);
	if (shared)
		remember_buffer(rel, block, buffer);
	return buffer;
}

/* Guarded.  Pins and locks a block; its page. */
char *
rowref_read(Relation rel, ForkNumber fork, BlockNumber block, int lock_mode,
			BufferAccessStrategy strategy, Buffer *buffer)
{
	char	   *page;

	*buffer = read_buffer(rel, fork, block, strategy);
	page = BufferGetPage(*buffer);
	/* What is looked at first: header and first slots, special space, fences. */
	__builtin_prefetch(page);
	__builtin_prefetch(page + BLCKSZ - 64);
	__builtin_prefetch(page + BLCKSZ - 128);
	LockBuffer(*buffer, lock_mode);
	return page;
}

/*
 * The part of the page expected last that is asked for once more, bit by bit:
 * a processor drops what it is asked for beyond a few dozen lines at a time.
 */
static char *expected_at;
static char *expected_end;

static inline void
expect_more(void)
{
	if (expected_at < expected_end)
	{
		__builtin_prefetch(expected_at);
		__builtin_prefetch(expected_at + 64);
		__builtin_prefetch(expected_at + 128);
		expected_at += 192;
	}
}

/* To be called between the rows of the page before. */
void
rowref_expect_more(void)
{
	expect_more();
}

/*
 * Begins to fetch a block: from the disk, or says where it is in memory, where
 * the caller has the processor fetch it.  The buffer is not pinned, so it may
 * hold another block by now; to prefetch an address reads nothing.
 */
static char *
expected_page(Relation rel, ForkNumber fork, BlockNumber block)
{
	Buffer		buffer = InvalidBuffer;

	if (fork == MAIN_FORKNUM && !RelationUsesLocalBuffers(rel))
		buffer = recent_buffer_of(rel, block);
	if (buffer == InvalidBuffer)
	{
		buffer = PrefetchBuffer(rel, fork, block).recent_buffer;
		if (buffer <= 0)
			return NULL;
	}
	if (fork == MAIN_FORKNUM && buffer > 0)
		remember_buffer(rel, block, buffer);
	return BufferGetPage(buffer);
}

/* Guarded.  Begins to fetch a block all of which will be read. */
void
rowref_expect(Relation rel, ForkNumber fork, BlockNumber block)
{
	char	   *page = expected_page(rel, fork, block);

	if (page == NULL)
		return;
	for (int at = 0; at < BLCKSZ; at += 64)
		__builtin_prefetch(page + at, 0, 2);
	expected_at = page;
	expected_end = page + BLCKSZ;
}

/*
 * Guarded.  As rowref_expect, for a page on which a few rows will be looked up:
 * its header and slots, and its end.
 */
void
rowref_expect_little(Relation rel, ForkNumber fork, BlockNumber block)
{
	char	   *page = expected_page(rel, fork, block);

	if (page == NULL)
		return;
	for (int at = 0; at < 512; at += 64)
		__builtin_prefetch(page + at);
	__builtin_prefetch(page + BLCKSZ - 64);
	__builtin_prefetch(page + BLCKSZ - 128);
}

/*
 * Fetches the cells from the one with the key `first` to that with `last`, of a
 * leaf that was expected a while ago, so that its slots are there: keys of
 * `width` bytes, eight at most, with zeros behind, read as numbers.  The page is
 * read without pin and lock, as engine/src/page draws it.  Whatever it has
 * become, nothing outside of it is looked at, and an address is all that comes
 * of it.
 */
void
rowref_expect_rows(Relation rel, BlockNumber block, uint64 first, uint64 last, int width)
{
	enum
	{
		SLOTS = 24, SLOT = 8, PREFIX = BLCKSZ - 32 + 24, CELLS_MAX = 24
	};
	Recent	   *recent = recent_of(rel, block);
	const char *page;
	uint16		lower;
	uint16		prefix;
	int			low = 0;
	int			high;

	if (recent->block != block || !BufferIsValid(recent->buffer) ||
		!RelFileNodeEquals(recent->node, rel->rd_node))
		return;
	page = BufferGetPage(recent->buffer);
	lower = *(const volatile uint16 *) (page + 12);
	prefix = *(const volatile uint16 *) (page + PREFIX);
	if (lower < SLOTS || lower > BLCKSZ - 32 || prefix >= width)
		return;
	first = (first << (8 * prefix)) >> 32;
	last = (last << (8 * prefix)) >> 32;
	high = (lower - SLOTS) / SLOT;
	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (*(const volatile uint32 *) (page + SLOTS + middle * SLOT + 4) < first)
			low = middle + 1;
		else
			high = middle;
	}
	for (int count = 0; count < CELLS_MAX && low < (lower - SLOTS) / SLOT; count++, low++)
	{
		uint16		cell = *(const volatile uint16 *) (page + SLOTS + low * SLOT);

		if (*(const volatile uint32 *) (page + SLOTS + low * SLOT + 4) > last)
			break;
		if (cell < BLCKSZ - 128)
		{
			__builtin_prefetch(page + cell);
			__builtin_prefetch(page + cell + 64);
		}
	}
}

/* Guarded.  As rowref_read, exclusively; NULL where it would have to wait. */
char *
rowref_try_lock(Relation rel, ForkNumber fork, BlockNumber block,
				BufferAccessStrategy strategy, Buffer *buffer)
{
	*buffer = read_buffer(rel, fork, block, strategy);
	if (ConditionalLockBuffer(*buffer))
		return BufferGetPage(*buffer);
	ReleaseBuffer(*buffer);
	*buffer = InvalidBuffer;
	return NULL;
}

/*
 * Guarded.  Makes the fork one block longer; that block, locked exclusively.
 * The extension lock is given up only when the page is locked, so that nobody
 * who sees the new length can find the page unlocked and take it for leaked.
 */
char *
rowref_extend(Relation rel, ForkNumber fork, BufferAccessStrategy strategy,
			  Buffer *buffer, BlockNumber *block)
{
	bool		shared = !RELATION_IS_LOCAL(rel);

	if (shared)
		LockRelationForExtension(rel, ExclusiveLock);
	*buffer = ReadBufferExtended(rel, fork, P_NEW, RBM_NORMAL, strategy);
	LockBuffer(*buffer, BUFFER_LOCK_EXCLUSIVE);
	if (shared)
		UnlockRelationForExtension(rel, ExclusiveLock);
	*block = BufferGetBlockNumber(*buffer);
	return BufferGetPage(*buffer);
}

/*
 * Unlocks and unpins.  Raises an ERROR only for a buffer that is not held,
 * which the guard types rule out.
 *
 * While Rust unwinds from a server ERROR, errfinish() has already zeroed the
 * interrupt holdoff count that the lock still accounts for; without the hold
 * below, giving up the lock would make the count wrap around.
 */
void
rowref_release(Buffer buffer)
{
	if (InterruptHoldoffCount == 0 && !BufferIsLocal(buffer))
		HOLD_INTERRUPTS();
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	ReleaseBuffer(buffer);
}

/*
 * Guarded.  Whether a block of the main fork is there.  The answer is kept
 * where heaps keep the block they insert to: cutting the file off resets it in
 * every session, before the relation's lock lets that session in again.
 */
bool
rowref_holds(Relation rel, BlockNumber block)
{
	SMgrRelation smgr = RelationGetSmgr(rel);

	if (smgr->smgr_targblock == InvalidBlockNumber || block >= smgr->smgr_targblock)
		smgr->smgr_targblock = smgrnblocks(smgr, MAIN_FORKNUM);
	return block < smgr->smgr_targblock;
}

/* ---- changes: store/README.md, "Commit" ---- */

bool
rowref_needs_wal(Relation rel, ForkNumber fork)
{
	/* An init fork has to be there after a crash: it is always logged. */
	return fork == INIT_FORKNUM || RelationNeedsWAL(rel);
}

bool
rowref_standby_cares(Relation rel)
{
	return RelationNeedsWAL(rel) && XLogStandbyInfoActive();
}

bool
rowref_wal_is_needed(void)
{
	return XLogIsNeeded();
}

void
rowref_critical_begin(void)
{
	START_CRIT_SECTION();
}

/*
 * Whether the server would log the page as a whole, as far as this backend
 * knows: wal/README.md, "Page images".  Raises nothing.  The server's own
 * XLogCheckBufferNeedsBackup() says no in a backend that has logged nothing yet.
 */
bool
rowref_wants_image(Buffer buffer)
{
	XLogRecPtr	redo;
	bool		wanted;

	GetFullPageWriteInfo(&redo, &wanted);
	if (redo == InvalidXLogRecPtr)
	{
		redo = GetRedoRecPtr();
		wanted = fullPageWrites;
	}
	return wanted && PageGetLSN(BufferGetPage(buffer)) <= redo;
}

/* Mirrors `Part` in ffi.rs. */
typedef struct RowrefPart
{
	const char *data;
	uint32		data_bytes;
	Buffer		buffer;
	uint8		init;
} RowrefPart;

/*
 * Inside the critical section, all pages changed: marks them dirty, logs them
 * as one record (rmid 0: not at all) and ends the section.
 */
void
rowref_critical_log(const RowrefPart *parts, int count, RmgrId rmid,
					uint8 info, const char *header, uint32 header_bytes)
{
	for (int i = 0; i < count; i++)
		MarkBufferDirty(parts[i].buffer);
	if (rmid != 0)
	{
		XLogRecPtr	lsn;

		XLogBeginInsert();
		if (header_bytes > 0)
			XLogRegisterData(unconstify(char *, header), header_bytes);
		for (int i = 0; i < count; i++)
		{
			XLogRegisterBuffer(i, parts[i].buffer,
							   parts[i].init ? REGBUF_WILL_INIT | REGBUF_STANDARD
							   : REGBUF_STANDARD);
			XLogRegisterBufData(i, unconstify(char *, parts[i].data), parts[i].data_bytes);
		}
		lsn = XLogInsert(rmid, info);
		for (int i = 0; i < count; i++)
			PageSetLSN(BufferGetPage(parts[i].buffer), lsn);
	}
	END_CRIT_SECTION();
}

/* Guarded.  Logs a record that changes no page. */
void
rowref_log_notice(RmgrId rmid, uint8 info, const char *data, uint32 bytes)
{
	XLogBeginInsert();
	XLogRegisterData(unconstify(char *, data), bytes);
	(void) XLogInsert(rmid, info);
}

/*
 * Guarded.  Logs a record that changes no page but tells of a changed row; its
 * origin goes along, by which output plugins filter.
 */
void
rowref_log_change(RmgrId rmid, uint8 info, const char *data, uint32 bytes)
{
	XLogBeginInsert();
	XLogSetRecordFlags(XLOG_INCLUDE_ORIGIN);
	XLogRegisterData(unconstify(char *, data), bytes);
	(void) XLogInsert(rmid, info);
}

/* ---- logical decoding: wal/README.md ---- */

XLogReaderState *
rowref_decoded_record(XLogRecordBuffer *buffer, XLogRecPtr *lsn)
{
	*lsn = buffer->origptr;
	return buffer->record;
}

TransactionId
rowref_record_xid(XLogReaderState *record)
{
	return XLogRecGetXid(record);
}

RepOriginId
rowref_record_origin(XLogReaderState *record)
{
	return XLogRecGetOrigin(record);
}

bool
rowref_decoding_has_snapshot(SnapBuild *builder)
{
	return SnapBuildCurrentState(builder) >= SNAPBUILD_FULL_SNAPSHOT;
}

/* Our own bug, or corruption in redo: no way on but recovery. */
void
rowref_panic(const char *what, const char *detail)
{
	ereport(PANIC,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("%s", what), errdetail_internal("%s", detail)));
	abort();
}

/* ---- hints: store/README.md, "Hints" ---- */

/* Guarded.  Whether a commit may be noted on this page already (rule 7). */
bool
rowref_commit_is_durable(Buffer buffer, TransactionId xid)
{
	XLogRecPtr	commit = TransactionIdGetCommitLSN(xid);

	return !(BufferIsPermanent(buffer) && XLogNeedsFlush(commit) &&
			 BufferGetLSNAtomic(buffer) < commit);
}

/* ---- transactions: xact/README.md ---- */

/* Guarded.  Mirrors the numbers in xact/status.rs. */
int
rowref_xid_status(TransactionId xid)
{
	if (TransactionIdIsCurrentTransactionId(xid))
		return 0;
	if (TransactionIdIsInProgress(xid))
		return 1;
	return TransactionIdDidCommit(xid) ? 2 : 3;
}

/*
 * Guarded.  A writer under an MVCC snapshot, the snapshot asked before the
 * transaction log so that a transaction that ends meanwhile counts as running.
 */
int
rowref_xid_in_snapshot(TransactionId xid, Snapshot snapshot)
{
	if (TransactionIdIsCurrentTransactionId(xid))
		return 0;
	if (XidInMVCCSnapshot(xid, snapshot))
		return 1;
	return TransactionIdDidCommit(xid) ? 2 : 3;
}

/* ---- redo: wal/README.md ---- */

uint8
rowref_record_info(XLogReaderState *record)
{
	return XLogRecGetInfo(record) & ~XLR_INFO_MASK;
}

const char *
rowref_record_data(XLogReaderState *record, uint32 *bytes)
{
	*bytes = XLogRecGetDataLen(record);
	return XLogRecGetData(record);
}

/* The number of block references; ids run from 0. */
int
rowref_record_blocks(XLogReaderState *record)
{
	return XLogRecMaxBlockId(record) + 1;
}

/* Whether the reference is there; if so, whether redo makes the page anew. */
bool
rowref_record_has_block(XLogReaderState *record, uint8 id, bool *init)
{
	if (!XLogRecHasBlockRef(record, id))
		return false;
	*init = (XLogRecGetBlock(record, id)->flags & BKPBLOCK_WILL_INIT) != 0;
	return true;
}

/* Guarded.  Locks a block for redo; its page, or NULL if nothing is to do. */
char *
rowref_redo_begin(XLogReaderState *record, uint8 id, bool init, Buffer *buffer)
{
	if (init)
		*buffer = XLogInitBufferForRedo(record, id);
	else if (XLogReadBufferForRedo(record, id, buffer) != BLK_NEEDS_REDO)
		return NULL;
	return BufferGetPage(*buffer);
}

/* Guarded.  The page is changed. */
void
rowref_redo_end(XLogReaderState *record, Buffer buffer, bool init_fork)
{
	PageSetLSN(BufferGetPage(buffer), record->EndRecPtr);
	MarkBufferDirty(buffer);
	/* At the end of recovery init forks are copied from disk. */
	if (init_fork)
		FlushOneBuffer(buffer);
}

bool
rowref_in_hot_standby(void)
{
	return InHotStandby;
}

void
rowref_mask_lsn_and_checksum(char *page)
{
	mask_page_lsn_and_checksum(page);
}

/* ---- sweeps: sweep.rs ---- */

/* Whether a row satisfies a scan node's condition.  Errors pass by. */
bool
rowref_passes(PlanState *node, TupleTableSlot *row)
{
	ExprContext *econtext = node->ps_ExprContext;
	MemoryContext memory = econtext->ecxt_per_tuple_memory;

	expect_more();
	if (!memory->isReset || memory->firstchild != NULL)
		MemoryContextReset(memory);
	econtext->ecxt_scantuple = row;
	if (ExecQual(node->qual, econtext))
		return true;
	InstrCountFiltered1(node, 1);
	return false;
}

/* What a scan node makes of a row.  Errors pass by. */
TupleTableSlot *
rowref_project(PlanState *node, TupleTableSlot *row)
{
	ExprContext *econtext = node->ps_ExprContext;

	if (node->ps_ProjInfo == NULL)
		return row;
	ResetExprContext(econtext);
	econtext->ecxt_scantuple = row;
	return ExecProject(node->ps_ProjInfo);
}

/* Guarded.  Counts rows deleted, at least one. */
void
rowref_count_deletes(Relation rel, int64 rows)
{
	pgstat_count_heap_delete(rel);
	if (rel->pgstat_info != NULL && rel->pgstat_info->trans != NULL)
		rel->pgstat_info->trans->tuples_deleted += rows - 1;
}

/* ---- shared memory ---- */

LWLock *
rowref_addin_shmem_init_lock(void)
{
	return AddinShmemInitLock;
}

/* ---- errors ---- */

/*
 * Calls work, then after, also when work raises an ERROR, which goes on as it
 * was: see hook.rs.
 */
void
rowref_finally(void (*work) (void *), void (*after) (void *), void *argument)
{
	PG_TRY();
	{
		work(argument);
	}
	PG_CATCH();
	{
		after(argument);
		PG_RE_THROW();
	}
	PG_END_TRY();
	after(argument);
}

/* What an error's innermost part added: see error/context.rs. */
static ErrorData *kept_error = NULL;

/* An error context callback, called while an error is put together. */
void
rowref_keep_error(void *argument pg_attribute_unused())
{
	MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);
	ErrorData  *error = CopyErrorData();

	MemoryContextSwitchTo(before);
	if (kept_error)
		FreeErrorData(kept_error);
	kept_error = NULL;
	if (error->elevel == ERROR)
		kept_error = error;
	else
		FreeErrorData(error);
}

static void
give_kept_error(void *argument pg_attribute_unused())
{
	ErrorData  *error = kept_error;

	if (error == NULL)
		return;
	kept_error = NULL;
	if (error->context)
		errcontext("%s", error->context);
	if (error->internalquery)
	{
		internalerrquery(error->internalquery);
		internalerrposition(error->internalpos);
	}
	if (error->cursorpos > 0)
		errposition(error->cursorpos);
	if (error->schema_name)
		err_generic_string(PG_DIAG_SCHEMA_NAME, error->schema_name);
	if (error->table_name)
		err_generic_string(PG_DIAG_TABLE_NAME, error->table_name);
	if (error->column_name)
		err_generic_string(PG_DIAG_COLUMN_NAME, error->column_name);
	if (error->datatype_name)
		err_generic_string(PG_DIAG_DATATYPE_NAME, error->datatype_name);
	if (error->constraint_name)
		err_generic_string(PG_DIAG_CONSTRAINT_NAME, error->constraint_name);
	FreeErrorData(error);
}

/*
 * Has the error that is raised next take over what was kept.  The callback
 * takes itself off by the jump that follows, as in error/field.rs.
 */
void
rowref_pass_on_error(void)
{
	static ErrorContextCallback callback;

	for (ErrorContextCallback *at = error_context_stack; at; at = at->previous)
		if (at == &callback)
			return;
	callback.previous = error_context_stack;
	callback.callback = give_kept_error;
	callback.arg = NULL;
	error_context_stack = &callback;
}

/* ---- workers: parallel.rs ---- */

/*
 * The name that this library was loaded by, which the server has on its list
 * of loaded libraries: a worker finds it there and opens no file, wherever the
 * library is installed.
 */
const char *
rowref_library_path(void)
{
	Dl_info		info;

	return dladdr((void *) rowref_library_path, &info) ? info.dli_fname : "pg_rowref";
}
