#define _GNU_SOURCE
#include "rules.h"

#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define OPCODES 64
#define HANG_LOOK_US 2000

/* FUSE_SETATTR is four calls; the last three take numbers that the protocol does not use. */
enum { TRUNCATE = FUSE_SETATTR, CHOWN = OPCODES - 3, CHMOD, UTIMENS };

static const char *const names[OPCODES] = {
    [FUSE_LOOKUP] = "lookup",   [FUSE_GETATTR] = "getattr", [TRUNCATE] = "truncate",      [CHOWN] = "chown",
    [CHMOD] = "chmod",          [UTIMENS] = "utimens",      [FUSE_READLINK] = "readlink", [FUSE_SYMLINK] = "symlink",
    [FUSE_MKNOD] = "mknod",     [FUSE_MKDIR] = "mkdir",     [FUSE_UNLINK] = "unlink",     [FUSE_RMDIR] = "rmdir",
    [FUSE_RENAME] = "rename",   [FUSE_LINK] = "link",       [FUSE_OPEN] = "open",         [FUSE_READ] = "read",
    [FUSE_WRITE] = "write",     [FUSE_STATFS] = "statfs",   [FUSE_RELEASE] = "release",   [FUSE_FSYNC] = "fsync",
    [FUSE_FLUSH] = "flush",     [FUSE_OPENDIR] = "opendir", [FUSE_READDIR] = "readdir",   [FUSE_RELEASEDIR] = "release",
    [FUSE_FSYNCDIR] = "fsyncdir", [FUSE_CREATE] = "create", [FUSE_RENAME2] = "rename",
};

struct rule {
    long latency_us;
    int error;
    bool hangs;
};

static struct rule rules[OPCODES];
static int64_t budget = -1, used;
static const char *rules_path, *backing_path;
static struct stat read_as;
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_mutex_t budget_lock = PTHREAD_MUTEX_INITIALIZER;

static int count_file(const char *path, const struct stat *status, int kind, struct FTW *at) {
    (void)path, (void)at;
    if (kind == FTW_F)
        used += status->st_size;
    return 0;
}

static void set(struct rule *rule, const char *what, long long value) {
    if (!strcmp(what, "latency_us"))
        rule->latency_us = value;
    else if (!strcmp(what, "errno"))
        rule->error = value;
    else if (!strcmp(what, "hang"))
        rule->hangs = value;
}

static void read_rules(void) {
    char name[32], what[32];
    long long value;
    memset(rules, 0, sizeof rules);
    budget = -1;
    FILE *file = fopen(rules_path, "re");
    while (file && fscanf(file, "%31s %31s %lld", name, what, &value) == 3) {
        if (!strcmp(what, "budget"))
            budget = value;
        for (int code = 0; code < OPCODES; code++)
            if (names[code] && (!strcmp(name, "all") || !strcmp(name, names[code])))
                set(&rules[code], what, value);
    }
    if (file)
        fclose(file);
    if (budget >= 0) { /* what was removed behind our back is room as well */
        used = 0;
        nftw(backing_path, count_file, 32, FTW_PHYS);
    }
}

static bool same(const struct stat *a, const struct stat *b) {
    return a->st_ino == b->st_ino && a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static struct rule rule_of(int code) {
    struct stat now = {0};
    stat(rules_path, &now);
    pthread_rwlock_rdlock(&lock);
    if (!same(&now, &read_as)) {
        pthread_rwlock_unlock(&lock);
        pthread_rwlock_wrlock(&lock);
        if (!same(&now, &read_as)) {
            pthread_mutex_lock(&budget_lock);
            read_rules();
            pthread_mutex_unlock(&budget_lock);
            read_as = now;
        }
    }
    struct rule found = rules[code];
    pthread_rwlock_unlock(&lock);
    return found;
}

void rules_begin(const char *path, const char *backing) {
    rules_path = path;
    backing_path = backing;
}

static int code_of(const struct fuse_in_header *in, const void *body) {
    if (in->opcode == FUSE_SETATTR) {
        uint32_t valid = ((const struct fuse_setattr_in *)body)->valid;
        if (!(valid & FATTR_SIZE))
            return valid & (FATTR_UID | FATTR_GID) ? CHOWN : valid & FATTR_MODE ? CHMOD : UTIMENS;
    }
    return in->opcode < CHOWN ? (int)in->opcode : 0;
}

static void wait_us(long us) {
    struct timespec time = {us / 1000000, us % 1000000 * 1000};
    while (us > 0 && nanosleep(&time, &time) < 0)
        ;
}

int rules_obey(const struct fuse_in_header *in, const void *body) {
    int code = code_of(in, body);
    struct rule rule = rule_of(code);
    while (rule.hangs) {
        wait_us(HANG_LOOK_US);
        rule = rule_of(code);
    }
    wait_us(rule.latency_us);
    return rule.error;
}

int budget_use(int64_t bytes) {
    int error = 0;
    pthread_mutex_lock(&budget_lock);
    if (budget >= 0 && bytes > 0 && used + bytes > budget)
        error = ENOSPC;
    else
        used += bytes;
    pthread_mutex_unlock(&budget_lock);
    return error;
}

void budget_release(int64_t bytes) {
    pthread_mutex_lock(&budget_lock);
    used -= bytes;
    pthread_mutex_unlock(&budget_lock);
}

int64_t budget_left(void) {
    pthread_mutex_lock(&budget_lock);
    int64_t left = budget < 0 ? -1 : used > budget ? 0 : budget - used;
    pthread_mutex_unlock(&budget_lock);
    return left;
}
