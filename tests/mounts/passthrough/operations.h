/* Every operation, carried out in the backing directory. */
#pragma once
#include <linux/fuse.h>
#include <stddef.h>

#define LONGEST_DATA (128 * 1024)

/* One request of the kernel, and room for the answer: LONGEST_DATA bytes. */
struct call {
    const struct fuse_in_header *in;
    const void *body;
    void *out;
    size_t out_bytes;
};

/* The answer to `call` is in `out`. 0, or an errno: then there is none. */
int operate(struct call *call);
