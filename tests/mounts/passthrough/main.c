/* A FUSE file system that passes everything through to a directory, and is sick as its rules say.
 *
 *     passthrough BACKING MOUNT-POINT RULES
 *
 * Says "ready" when it is mounted. Needs CAP_SYS_ADMIN. Ends with whoever started it: the mount then answers ENOTCONN.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "nodes.h"
#include "operations.h"
#include "rules.h"

/* One that waits for its latency, or hangs, carries nothing else out meanwhile. */
#define THREADS 160
#define REQUEST_BYTES (LONGEST_DATA + 8192)

static int device;

static void answer(const struct fuse_in_header *in, int error, const void *data, size_t bytes) {
    struct fuse_out_header head = {
        .len = sizeof head + (error ? 0 : bytes), .error = -error, .unique = in->unique};
    struct iovec parts[] = {{&head, sizeof head}, {(void *)data, error ? 0 : bytes}};
    /* ENOENT: whoever asked was killed. */
    if (writev(device, parts, 2) < 0 && errno != ENOENT && errno != ENODEV)
        perror("answer");
}

static void forget(const struct fuse_in_header *in, const void *body) {
    if (in->opcode == FUSE_FORGET) {
        node_forget(in->nodeid, ((const struct fuse_forget_in *)body)->nlookup);
        return;
    }
    const struct fuse_batch_forget_in *batch = body;
    const struct fuse_forget_one *one = (const void *)(batch + 1);
    for (uint32_t number = 0; number < batch->count; number++)
        node_forget(one[number].nodeid, one[number].nlookup);
}

static void initialise(const struct fuse_in_header *in, const struct fuse_init_in *asked) {
    struct fuse_init_out out = {
        .major = FUSE_KERNEL_VERSION,
        .minor = 31,
        .max_readahead = asked->max_readahead,
        .flags = asked->flags & (FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_PARALLEL_DIROPS),
        .max_background = 64,
        .congestion_threshold = 48,
        .max_write = LONGEST_DATA,
        .time_gran = 1,
    };
    answer(in, 0, &out, sizeof out);
}

static void *work(void *unused) {
    char *request = malloc(REQUEST_BYTES), *out = malloc(LONGEST_DATA);
    if (!request || !out)
        abort();
    prctl(PR_SET_TIMERSLACK, 1); /* a latency is what it says, not 50 us more */
    for (;;) {
        ssize_t got = read(device, request, REQUEST_BYTES);
        if (got < 0 && errno == ENODEV)
            exit(0); /* unmounted */
        if (got < 0)
            continue; /* EINTR, EAGAIN, and ENOENT for a request that was taken back */
        const struct fuse_in_header *in = (const void *)request;
        struct call call = {.in = in, .body = in + 1, .out = out};
        if (in->opcode == FUSE_INIT) {
            initialise(in, call.body);
        } else if (in->opcode == FUSE_FORGET || in->opcode == FUSE_BATCH_FORGET) {
            forget(in, call.body);
        } else if (in->opcode != FUSE_INTERRUPT) { /* what hangs cannot be interrupted, as on a hard NFS mount */
            int error = rules_obey(in, call.body);
            if (!error || in->opcode == FUSE_RELEASE || in->opcode == FUSE_RELEASEDIR)
                error = operate(&call);
            answer(in, error, out, call.out_bytes);
            nodes_end_request();
        }
    }
    return unused;
}

static void mount_at(const char *point) {
    char options[128];
    device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (device < 0) {
        perror("/dev/fuse");
        exit(1);
    }
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions", device);
    if (mount("passthrough", point, "fuse.passthrough", MS_NOSUID | MS_NODEV, options) < 0) {
        perror(point);
        exit(1);
    }
}

int main(int count, char **words) {
    if (count != 4) {
        fprintf(stderr, "usage: %s BACKING MOUNT-POINT RULES\n", words[0]);
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    umask(0);
    struct rlimit limit = {1 << 20, 1 << 20}; /* a descriptor for every file that the kernel remembers */
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0 && getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    nodes_begin(words[1]);
    rules_begin(words[3], words[1]);
    mount_at(words[2]);
    puts("ready");
    fflush(stdout);
    for (int number = 1; number < THREADS; number++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, NULL) != 0)
            abort();
    }
    work(NULL);
}
