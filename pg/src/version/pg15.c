/*
 * PostgreSQL 15: what other servers spell differently.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xlogreader.h"
#include "access/xlogutils.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "catalog/storage_xlog.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/relfilenode.h"
#include "storage/smgr.h"
#include "storage/standby.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"

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

/*
 * Guarded.  Waits until nobody else is about to change a relation's row in
 * pg_class, as what updates it in place does (since 15.9).
 */
void
rowref_await_class_row(Oid relation)
{
#if PG_VERSION_NUM >= 150009
	Relation	catalog = table_open(RelationRelationId, RowExclusiveLock);
	ScanKeyData key;
	HeapTuple	row;
	void	   *state;

	ScanKeyInit(&key, Anum_pg_class_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relation));
	systable_inplace_update_begin(catalog, ClassOidIndexId, true, NULL, 1, &key,
								  &row, &state);
	if (HeapTupleIsValid(row))
	{
		systable_inplace_update_cancel(state);
		heap_freetuple(row);
	}
	table_close(catalog, RowExclusiveLock);
	AcceptInvalidationMessages();
#endif
}

/* Raises unless the current user may execute the function. */
void
rowref_check_function(Oid function)
{
	AclResult	result = pg_proc_aclcheck(function, GetUserId(), ACL_EXECUTE);

	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_FUNCTION, get_func_name(function));
	InvokeFunctionExecuteHook(function);
}
