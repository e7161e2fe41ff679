#define _GNU_SOURCE
#include "nodes.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#define BUCKETS 65536
#define SPARE 2048 /* descriptors for what is open on the mount, and for the requests */
#define MOST_IN_REQUEST 8

struct node {
    int fd; /* -1: there is only the handle */
    struct file_handle *handle;
    dev_t dev;
    ino_t ino;
    uint64_t lookups;
    struct node *next;
};

static struct node root;
static struct node *buckets[BUCKETS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int backing; /* for open_by_handle_at, which takes no O_PATH */
static int64_t descriptors, most_descriptors;
static __thread int opened[MOST_IN_REQUEST];
static __thread int opened_count;

void nodes_begin(const char *path) {
    root.fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    backing = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    most_descriptors = (int64_t)limit.rlim_cur - SPARE;
    if (root.fd < 0 || backing < 0) {
        perror(path);
        exit(1);
    }
}

static struct node *node_of(uint64_t id) {
    return id == FUSE_ROOT_ID ? &root : (struct node *)(uintptr_t)id;
}

int node_fd(uint64_t id) {
    struct node *node = node_of(id);
    if (node->fd >= 0)
        return node->fd;
    int fd = open_by_handle_at(backing, node->handle, O_PATH | O_CLOEXEC);
    if (fd >= 0 && opened_count == MOST_IN_REQUEST)
        abort();
    if (fd >= 0)
        opened[opened_count++] = fd;
    return fd;
}

void nodes_end_request(void) {
    while (opened_count)
        close(opened[--opened_count]);
}

/* The handle of what is open as `fd`, if its descriptor should not be kept; NULL where it has to be. */
static struct file_handle *handle_of(int fd) {
    if (descriptors < most_descriptors)
        return NULL;
    struct file_handle *handle = malloc(sizeof *handle + MAX_HANDLE_SZ);
    if (!handle)
        abort();
    int mount;
    handle->handle_bytes = MAX_HANDLE_SZ;
    if (name_to_handle_at(fd, "", handle, &mount, AT_EMPTY_PATH) < 0) {
        free(handle);
        return NULL;
    }
    return handle;
}

int node_look_up(uint64_t parent, const char *name, uint64_t *id, struct stat *status) {
    int fd = openat(node_fd(parent), name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstatat(fd, "", status, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0) {
        int error = errno;
        if (fd >= 0)
            close(fd);
        return error;
    }
    pthread_mutex_lock(&lock);
    struct node **bucket = &buckets[status->st_ino % BUCKETS], *found = *bucket;
    while (found && !(found->ino == status->st_ino && found->dev == status->st_dev))
        found = found->next;
    if (found) {
        close(fd);
    } else {
        found = malloc(sizeof *found);
        if (!found)
            abort();
        struct file_handle *handle = handle_of(fd);
        if (handle) {
            close(fd);
            fd = -1;
        }
        descriptors += fd >= 0;
        *found = (struct node){.fd = fd, .handle = handle, .dev = status->st_dev, .ino = status->st_ino, .next = *bucket};
        *bucket = found;
    }
    found->lookups++;
    pthread_mutex_unlock(&lock);
    *id = (uint64_t)(uintptr_t)found;
    return 0;
}

void node_forget(uint64_t id, uint64_t count) {
    if (id == FUSE_ROOT_ID)
        return;
    struct node *node = node_of(id);
    pthread_mutex_lock(&lock);
    node->lookups -= count;
    if (node->lookups == 0) {
        struct node **at = &buckets[node->ino % BUCKETS];
        while (*at != node)
            at = &(*at)->next;
        *at = node->next;
        if (node->fd >= 0) {
            close(node->fd);
            descriptors--;
        }
        free(node->handle);
        free(node);
    }
    pthread_mutex_unlock(&lock);
}
