/*
 * PostgreSQL 15: what other servers spell differently.
 */
#include "postgres.h"

#include "access/xlogreader.h"
#include "access/xlogutils.h"
#include "catalog/storage_xlog.h"
#include "storage/relfilenode.h"
#include "storage/smgr.h"
#include "storage/standby.h"

/* Mirrors `RelationFile` in version/pg15.rs: spcNode, dbNode, relNode. */

/* The file and block of a reference, and whether it is an init fork's. */
void
rowref_record_block(XLogReaderState *record, uint8 id, RelFileNode *file,
					BlockNumber *block, bool *init_fork)
{
	ForkNumber	fork;

	XLogRecGetBlockTag(record, id, file, &fork, block);
	*init_fork = fork == INIT_FORKNUM;
}

/* Guarded. */
void
rowref_resolve_conflict(TransactionId newest, const RelFileNode *file)
{
	ResolveRecoveryConflictWithSnapshot(newest, *file);
}

/* Guarded. */
void
rowref_resolve_conflict_full(uint64 newest, const RelFileNode *file)
{
	ResolveRecoveryConflictWithSnapshotFullXid(FullTransactionIdFromU64(newest), *file);
}
