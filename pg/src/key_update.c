/*
 * The executor's side of an update by key: am/README.md, "Updates by key".
 *
 * Expressions are evaluated here because they may raise: an ERROR goes past
 * these frames, which own nothing, and keeps its context.  What touches the
 * table is the table AM's, and guarded there.
 */
#include "postgres.h"

#include "access/tableam.h"
#include "executor/executor.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "pgstat.h"
#include "utils/expandeddatum.h"
#include "utils/rel.h"

/* version/: raises unless the current user may execute the function. */
extern void rowref_check_function(Oid function);

/* What looking for the row under its key has come to. */
typedef enum Found
{
	FOUND_NOTHING,
	FOUND_ROW,
	/* Something that ModifyTable has to look at. */
	FOUND_ELSE,
} Found;

typedef Found (*FindRow) (Relation table, Snapshot snapshot, const Datum *key, int columns,
						  TupleTableSlot *row, BlockNumber *near_block);
typedef bool (*WriteRow) (Relation table, CommandId command, TupleTableSlot *old_row,
						  BlockNumber near_block, TupleTableSlot *new_row, List *changed);

typedef struct KeyUpdate
{
	CustomScanState base;
	FindRow		find;
	WriteRow	write;
	/* What this stands for, and its state once it was needed. */
	ModifyTable *plan;
	PlanState  *instead;
	int			key_columns;
	ExprState **key_states;
	Datum	   *key;
	/* The numbers of the columns that get new values. */
	List	   *changed;
	ProjectionInfo *project;
	TupleTableSlot *new_row;
	/* Null if the table has no constraints. */
	ResultRelInfo *target;
	bool		is_done;
} KeyUpdate;

/* Guarded.  Whether expressions coerce to a domain, which may call anything. */
bool
rowref_coerces_to_domain(Node *node, void *context)
{
	if (node == NULL)
		return false;
	return IsA(node, CoerceToDomain) ||
		expression_tree_walker(node, rowref_coerces_to_domain, context);
}

/* Guarded. */
Node *
rowref_key_update_create(const CustomExecMethods *methods, FindRow find, WriteRow write)
{
	KeyUpdate  *update = (KeyUpdate *) newNode(sizeof(KeyUpdate), T_CustomScanState);

	update->base.methods = methods;
	update->find = find;
	update->write = write;
	return (Node *) update;
}

void
rowref_key_update_begin(CustomScanState *node, EState *estate, int eflags pg_attribute_unused())
{
	KeyUpdate  *update = (KeyUpdate *) node;
	PlanState  *state = &node->ss.ps;
	Relation	table = node->ss.ss_currentRelation;
	List	   *parts = castNode(CustomScan, state->plan)->custom_private;
	List	   *key = lsecond(parts);
	List	   *targets = lthird(parts);
	List	   *quals = lfourth(parts);
	ListCell   *cell;
	int			nth = 0;

	/* As ModifyTable does for a table. */
	CheckCmdReplicaIdentity(table, CMD_UPDATE);
	update->plan = castNode(ModifyTable, linitial(parts));
	update->changed = linitial(update->plan->updateColnosLists);
	/* The server has prepared for virtual rows. */
	ExecInitScanTupleSlot(estate, &node->ss, RelationGetDescr(table),
						  table_slot_callbacks(table));
	state->qual = ExecInitQual(quals, state);
	update->key_columns = list_length(key);
	update->key_states = palloc(sizeof(ExprState *) * update->key_columns);
	update->key = palloc(sizeof(Datum) * update->key_columns);
	foreach(cell, key)
		update->key_states[nth++] = ExecInitExpr(lfirst(cell), state);
	/* What a scan would have been about to call the user may call. */
	foreach(cell, castNode(IndexScan, outerPlan(&update->plan->plan))->indexqualorig)
	{
		if (IsA(lfirst(cell), OpExpr))
			rowref_check_function(lfirst_node(OpExpr, cell)->opfuncid);
		else
			/* A boolean column, say. */
			ExecInitExpr(lfirst(cell), state);
	}
	update->new_row = ExecInitExtraTupleSlot(estate, RelationGetDescr(table),
											 table_slot_callbacks(table));
	update->project = ExecBuildUpdateProjection(targets, true, update->changed,
												RelationGetDescr(table), state->ps_ExprContext,
												update->new_row, state);
	if (table->rd_att->constr)
	{
		update->target = makeNode(ResultRelInfo);
		InitResultRelInfo(update->target, table,
						  castNode(CustomScan, state->plan)->scan.scanrelid, NULL,
						  estate->es_instrument);
	}
}

/* Counts what an index scan would have counted. */
static void
count_scan(KeyUpdate *update, bool has_found)
{
	Oid			oid = castNode(IndexScan, outerPlan(&update->plan->plan))->indexid;
	Relation	index = RelationIdGetRelation(oid);

	if (!RelationIsValid(index))
		return;
	pgstat_count_index_scan(index);
	if (has_found)
	{
		pgstat_count_index_tuples(index, 1);
		pgstat_count_heap_fetch(index);
	}
	RelationClose(index);
}

/*
 * A value that a function of the row is given must be there afterwards: one that
 * is expanded, and may be written to, is the function's own, to change and to
 * free.
 */
static void
protect_values(KeyUpdate *update)
{
	TupleTableSlot *row = update->new_row;
	ListCell   *cell;

	foreach(cell, update->changed)
	{
		int			at = lfirst_int(cell) - 1;

		row->tts_values[at] =
			MakeExpandedObjectReadOnly(row->tts_values[at], row->tts_isnull[at],
									   TupleDescAttr(row->tts_tupleDescriptor, at)->attlen);
	}
}

/*
 * Finds the row and writes its successor, if nobody is at it and nothing is to
 * be done but that.  If not, nothing was done.
 */
static bool
update_by_key(KeyUpdate *update)
{
	PlanState  *state = &update->base.ss.ps;
	ExprContext *context = state->ps_ExprContext;
	EState	   *estate = state->state;
	Relation	table = update->base.ss.ss_currentRelation;
	TupleTableSlot *row = update->base.ss.ss_ScanTupleSlot;
	BlockNumber near_block;
	MemoryContext before;
	Found		found;
	bool		any_null = false;
	bool		is_written;

	/* A foreign key's action, which looks at rows by two snapshots. */
	if (estate->es_crosscheck_snapshot != InvalidSnapshot)
		return false;
	for (int nth = 0; nth < update->key_columns; nth++)
	{
		bool		is_null;

		update->key[nth] = ExecEvalExprSwitchContext(update->key_states[nth], context, &is_null);
		any_null |= is_null;
	}
	/* The operators are strict. */
	if (any_null)
	{
		count_scan(update, false);
		return true;
	}
	before = MemoryContextSwitchTo(context->ecxt_per_tuple_memory);
	found = update->find(table, estate->es_snapshot, update->key, update->key_columns, row,
						 &near_block);
	MemoryContextSwitchTo(before);
	if (found == FOUND_ELSE)
		return false;
	if (found == FOUND_NOTHING)
	{
		count_scan(update, false);
		return true;
	}
	context->ecxt_scantuple = row;
	if (!ExecQual(state->qual, context))
	{
		count_scan(update, true);
		InstrCountFiltered1(update, 1);
		return true;
	}
	ExecProject(update->project);
	protect_values(update);
	update->new_row->tts_tableOid = RelationGetRelid(table);
	if (update->target)
		ExecConstraints(update->target, update->new_row, estate);
	before = MemoryContextSwitchTo(context->ecxt_per_tuple_memory);
	is_written = update->write(table, estate->es_output_cid, row, near_block, update->new_row,
							   update->changed);
	MemoryContextSwitchTo(before);
	if (!is_written)
		return false;
	count_scan(update, true);
	pgstat_count_heap_update(table, true);
	estate->es_processed++;
	return true;
}

TupleTableSlot *
rowref_key_update_execute(CustomScanState *node)
{
	KeyUpdate  *update = (KeyUpdate *) node;

	if (update->is_done)
		return NULL;
	if (!update->instead)
	{
		EState	   *estate = node->ss.ps.state;
		MemoryContext before;

		if (update_by_key(update))
		{
			update->is_done = true;
			return NULL;
		}
		/* From the start, as if this had never been tried. */
		before = MemoryContextSwitchTo(estate->es_query_cxt);
		update->instead = ExecInitNode((Plan *) update->plan, estate, estate->es_top_eflags);
		/* EXPLAIN shows it below this node. */
		node->custom_ps = list_make1(update->instead);
		MemoryContextSwitchTo(before);
	}
	if (TupIsNull(ExecProcNode(update->instead)))
		update->is_done = true;
	return NULL;
}

void
rowref_key_update_end(CustomScanState *node)
{
	KeyUpdate  *update = (KeyUpdate *) node;

	if (update->instead)
		ExecEndNode(update->instead);
}

void
rowref_key_update_rescan(CustomScanState *node pg_attribute_unused())
{
	elog(ERROR, "an update by key cannot be executed again");
}
