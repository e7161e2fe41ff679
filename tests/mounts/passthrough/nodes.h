/*
 * What the kernel knows by a number: an open O_PATH descriptor of the same thing in the backing directory. Of those
 * that are more than the process may have open, a handle, which is opened anew for every request.
 */
#pragma once
#include <stdint.h>
#include <sys/stat.h>

/* The node of FUSE_ROOT_ID is the directory `path`. Ends the program where there is none. */
void nodes_begin(const char *path);

/* The descriptor behind a number that the kernel was given, until this thread calls `nodes_end_request`; -1: errno. */
int node_fd(uint64_t id);

/* What `node_fd` has opened for this thread is closed. */
void nodes_end_request(void);

/* The number of `name` in the directory `parent`, counted as looked up once more; its status. 0, or an errno. */
int node_look_up(uint64_t parent, const char *name, uint64_t *id, struct stat *status);

/* The kernel has forgotten `count` of its look-ups. */
void node_forget(uint64_t id, uint64_t count);
