#define _GNU_SOURCE
#include "nodes.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define BUCKETS 65536

struct node {
    int fd;
    dev_t dev;
    ino_t ino;
    uint64_t lookups;
    struct node *next;
};

static struct node root;
static struct node *buckets[BUCKETS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void nodes_begin(const char *path) {
    root.fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root.fd < 0) {
        perror(path);
        exit(1);
    }
}

static struct node *node_of(uint64_t id) {
    return id == FUSE_ROOT_ID ? &root : (struct node *)(uintptr_t)id;
}

int node_fd(uint64_t id) {
    return node_of(id)->fd;
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
        *found = (struct node){.fd = fd, .dev = status->st_dev, .ino = status->st_ino, .next = *bucket};
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
        close(node->fd);
        free(node);
    }
    pthread_mutex_unlock(&lock);
}
