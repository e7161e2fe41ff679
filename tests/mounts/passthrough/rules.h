/* How the file system is sick: a file of lines, read again before the next operation when it was replaced.
 *
 *     OPERATION latency_us N    each waits so long
 *     OPERATION errno N         each fails
 *     OPERATION hang 1          each waits until there is no such line any more
 *     all budget N              the bytes of all files; a write beyond that is ENOSPC
 *
 * OPERATION is a name of the table in rules.c, or `all`. Later lines win.
 */
#pragma once
#include <linux/fuse.h>
#include <stdint.h>
#include <sys/types.h>

/* `path` holds the rules, and is outside the mount; `backing` is what a budget counts. */
void rules_begin(const char *path, const char *backing);

/* Waits as the rules say for this request; the errno that it fails with, or 0. */
int rules_obey(const struct fuse_in_header *in, const void *body);

/* ENOSPC where a budget has no room for so many more bytes; otherwise they are used, and 0. */
int budget_use(int64_t bytes);

void budget_release(int64_t bytes);

/* The bytes that the budget has left, or -1 without one. */
int64_t budget_left(void);
